"""Whether there is still something to trade: options that expired, symbols that the broker does not know."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, assert_never

from closeflow.domain.market_data import Instrument, MarketClock
from closeflow.domain.model import AssetType
from closeflow.domain.option_symbol import read_option

EXPIRED: Final = "instrument_expired"
UNKNOWN: Final = "unknown_symbol"
INACTIVE: Final = "instrument_inactive"

_DAY_IS_OVER: Final = timedelta(days=1, hours=5)
"""After midnight UTC of the expiry day it is the next day in New York, in winter as in summer."""


def has_expired(asset_type: AssetType, symbol: str, at: datetime) -> bool:
    """Whether the expiry day of an option is over; not of what cannot be read as one."""
    option = read_option(symbol, padded=True) if asset_type is AssetType.OPTION else None
    if option is None:
        return False
    try:
        day = datetime.strptime(option.day, "%y%m%d").replace(tzinfo=UTC)
    except ValueError:
        return False
    return at >= day + _DAY_IS_OVER


@dataclass(frozen=True, slots=True)
class Gone:
    """Nobody trades it any more: waiting does not help."""

    code: str
    detail: str


def gone(asset_type: AssetType, symbol: str, clock: MarketClock | None, listed: Instrument | None) -> Gone | None:
    """Judged by the market's own clock, and by what the broker's list says where it was asked."""
    if clock is not None and has_expired(asset_type, symbol, clock.at):
        return Gone(EXPIRED, f"{symbol} has expired")
    match listed:
        case Instrument.UNKNOWN:
            return Gone(UNKNOWN, f"the broker does not know {symbol}")
        case Instrument.INACTIVE:
            return Gone(INACTIVE, f"the broker lists {symbol} as inactive")
        case Instrument.ACTIVE | None:
            return None
        case _:
            assert_never(listed)
