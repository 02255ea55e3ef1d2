"""What a market says: quotes, last trades, its hours, and whether an instrument is traded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from closeflow.domain.model import Side


@dataclass(frozen=True, slots=True)
class LastTrade:
    """The newest trade of a symbol, as of the market data's own time: what a doubtful quote is held against."""

    price: Decimal
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """Best bid and ask of one symbol, in the symbol's currency, as of the market data's own time; a side that nobody
    quotes is absent.

    `age_s` is how old it was when it was fetched, by the market data's own clock: no clock of ours is compared with it.
    `standing`: it was asked for again later, and nothing newer exists. `last_trade` is there where it was asked for.
    """

    symbol: str
    bid: Decimal | None
    ask: Decimal | None
    at: datetime
    age_s: float = 0.0
    standing: bool = False
    last_trade: LastTrade | None = None


class Instrument(StrEnum):
    """What the broker says of a symbol."""

    ACTIVE = "active"
    INACTIVE = "inactive"
    UNKNOWN = "unknown"
    """An explicit not-found from the right endpoint."""


@dataclass(frozen=True, slots=True)
class MarketClock:
    """Whether the stock market is open at `at`, and when it opens next, both by the broker's clock."""

    is_open: bool
    next_open: datetime
    at: datetime


def noted_touch(side: Side, noted: Mapping[str, str] | None) -> Decimal | None:
    """The touch in the quote that an order keeps; None when the order was planned without one."""
    found = (noted or {}).get("bid" if side is Side.SELL else "ask")
    return Decimal(found) if found is not None else None
