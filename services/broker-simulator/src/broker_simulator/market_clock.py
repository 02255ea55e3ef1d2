"""Market hours: open unless scripted closed. Crypto trades always."""

from datetime import datetime

from .assets import AssetClass
from .behaviour import Spec
from .numbers import parse_time, rfc3339

_HOUR_US = 3_600_000_000


class MarketHours(Spec):
    """`is_open: false` closes the market, until `next_open` if that is given (it then opens by itself)."""

    is_open: bool = True
    next_open: datetime | None = None
    next_close: datetime | None = None


def opens_at_us(hours: MarketHours) -> int | None:
    """When it opens next (microseconds since 1970); None while it is open, or where no time is scripted."""
    return None if hours.is_open or hours.next_open is None else parse_time(hours.next_open.isoformat())


def is_open(hours: MarketHours, asset_class: AssetClass, now_us: int) -> bool:
    """Whether the class trades at that time."""
    if asset_class == "crypto" or hours.is_open:
        return True
    opens_us = opens_at_us(hours)
    return opens_us is not None and now_us >= opens_us


def clock_json(hours: MarketHours, now_us: int) -> dict[str, object]:
    """Without scripted times the next open and close are made up, a few hours ahead and in the right order."""
    open_now = is_open(hours, "us_equity", now_us)
    next_open = now_us + (24 if open_now else 12) * _HOUR_US
    next_close = now_us + (6 if open_now else 18) * _HOUR_US
    scripted_open = parse_time(hours.next_open.isoformat()) if hours.next_open else None
    scripted_close = parse_time(hours.next_close.isoformat()) if hours.next_close else None
    return {
        "timestamp": rfc3339(now_us),
        "is_open": open_now,
        "next_open": rfc3339(scripted_open if scripted_open and scripted_open > now_us else next_open),
        "next_close": rfc3339(scripted_close if scripted_close and scripted_close > now_us else next_close),
    }
