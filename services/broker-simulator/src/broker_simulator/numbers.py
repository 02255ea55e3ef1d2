"""Decimals and times as the wire has them. Times inside are integers: microseconds since 1970, UTC."""

import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def plain(value: Decimal) -> str:
    """Without exponent and trailing zeros: `Decimal("1.500")` is "1.5", `Decimal("1E+2")` is "100"."""
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def rfc3339(at_us: int) -> str:
    """Always six digits, so the text has exactly the microseconds of `at_us`."""
    seconds, micros = divmod(at_us, 1_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{micros:06d}Z"


def rfc3339_or_none(at_us: int | None) -> str | None:
    """As `rfc3339`; None stays None."""
    return None if at_us is None else rfc3339(at_us)


def parse_time(text: str) -> int | None:
    """Microseconds of an RFC 3339 time or a date, None when it is neither. A time without zone is UTC.

    Fractions beyond microseconds are cut off. A "+" that a client forgot to escape in a query arrives as a blank.
    """
    candidate = text.strip()
    if len(candidate) > 6 and candidate[-6] == " ":
        candidate = f"{candidate[:-6]}+{candidate[-5:]}"
    try:
        parsed = datetime.fromisoformat(candidate)
    except ValueError:
        return None
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=UTC)
    return (parsed - _EPOCH) // timedelta(microseconds=1)


class Ticker:
    """Gives strictly increasing microseconds, so that no two things at this broker have the same time.

    Starts after `last_us`, the newest time already stored: a restart or a clock that jumps back never repeats a time.
    """

    def __init__(self, last_us: int = 0) -> None:
        self._last_us = last_us

    def next_us(self) -> int:
        """Now in microseconds since 1970, and always later than the time before, also when the clock went back."""
        self._last_us = max(time.time_ns() // 1000, self._last_us + 1)
        return self._last_us
