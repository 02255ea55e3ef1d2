"""When a server wants to be asked again, in every form in which it may say so."""

from __future__ import annotations

import email.utils
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

LONGEST_DELAY_S: Final = 900.0
"""No server's wish keeps closes waiting longer; Alpaca's limits are per minute."""


_HINTS: Final = ("retry-after", "x-ratelimit-reset", "ratelimit-reset")


_NUMBER: Final = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?")


_FIRST_UNIX_S: Final = 1e9
"""What is larger is no number of seconds to wait but a time: since 2001 in seconds, and in milliseconds."""


_FIRST_UNIX_MS: Final = 1e11


def http_date(text: str | None) -> datetime | None:
    """A time as HTTP writes it (RFC 9110, 5.6.7), in UTC; None for anything else."""
    try:
        read = None if text is None else email.utils.parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return None if read is None else read.replace(tzinfo=read.tzinfo or UTC)


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds the server asks us to wait, at most LONGEST_DELAY_S: Retry-After (RFC 9110, 10.2.3), or the reset time of
    its rate limit where that says nothing or "at once". Seconds may have a fraction, times be an HTTP date, RFC 3339 or
    Unix time in seconds or milliseconds; a time is compared with the server's own Date. None when it asks for nothing
    that can be read."""
    said_at = _time(headers.get("date", "")) or now
    asked = {name: _asked_delay(headers.get(name, ""), said_at) for name in _HINTS}
    readable = [
        min(max(0.0, delay), LONGEST_DELAY_S)
        for name, delay in asked.items()
        if delay is not None and (name == _HINTS[0] or math.isfinite(delay))
    ]
    return next((delay for delay in readable if delay > 0), readable[0] if readable else None)


def _asked_delay(text: str, said_at: datetime) -> float | None:
    text = text.strip()
    if _NUMBER.fullmatch(text) is None:
        until = _time(text)
        return None if until is None else (until - said_at).total_seconds()
    number = float(text)
    if number < _FIRST_UNIX_S:
        return number
    return number / (1 if number < _FIRST_UNIX_MS else 1000) - said_at.timestamp()


def _time(text: str) -> datetime | None:
    for read in (email.utils.parsedate_to_datetime, datetime.fromisoformat):
        try:
            found = read(text)
            return found.replace(tzinfo=found.tzinfo or UTC)
        except (ValueError, OverflowError):  # Not this form, or too many digits for a date.
            continue
    return None
