"""Which quote is one: new enough to price an order by, not crossed, not wider and not further off than a market is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Final

from closeflow.domain.close.ticks import Grid, tick_size
from closeflow.domain.frozen import replace
from closeflow.domain.market_data import Quote
from closeflow.domain.model import ZERO, AssetType, Side

STANDING_QUOTE_MAX_AGE_S: Final = {AssetType.STOCK: 300.0, AssetType.OPTION: 3600.0, AssetType.CRYPTO: 300.0}
"""Of a quote that was asked for again and is the newest there is: in a thin market nobody changes one for long."""
MAX_SPREAD_BPS: Final = {AssetType.STOCK: 1000, AssetType.OPTION: 10_000, AssetType.CRYPTO: 1000}
"""How far bid, ask and last trade may lie apart. FINRA Rule 6272 wants market makers within 8 % of the best price in
liquid shares; a cheap option with an ask of three times its bid is usual."""
FEW_TICKS: Final = 5
"""A market so narrow is one, whatever that is in per cent: five cents are one nickel of an option class in nickels."""
_CENT: Final = Decimal("0.01")
NO_BOUND_BPS: Final = 10_000
TEN_THOUSAND: Final = Decimal(10_000)


def fresh(quote: Quote | None, waited_s: float, *, max_age_s: float, standing_max_age_s: float) -> Quote | None:
    """The quote if it is fresh, or if it stands: nobody has changed it, and no later trade went through it. `waited_s`
    is how long ago it was as old as it says."""
    if quote is None:
        return None
    age_s = quote.age_s + waited_s
    stands = quote.standing and age_s <= standing_max_age_s and not traded_through(quote)
    return quote if age_s <= max_age_s or stands else None


def of_any_age(quote: Quote | None) -> Quote | None:
    """What a market order is worth needs no fresh quote: an old one will do, or the last trade where it says more."""
    if quote is None or quote.last_trade is None:
        return quote
    nobody = quote.bid is None and quote.ask is None
    last = quote.last_trade.price
    return replace(quote, bid=last, ask=last) if nobody or traded_through(quote) else quote


def traded_through(quote: Quote) -> bool:
    """Whether a trade after the quote was beyond it by more than its spread: then it does not stand any more."""
    last = quote.last_trade
    if last is None or last.at <= quote.at:
        return False
    slack = quote.ask - quote.bid if quote.bid is not None and quote.ask is not None else ZERO
    below = quote.bid is not None and last.price < quote.bid - slack
    return below or (quote.ask is not None and last.price > quote.ask + slack)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteRules:
    """When a quote is a stub: nobody means to trade at it, and its mid says nothing."""

    max_spread_bps: Mapping[AssetType, int] = field(default_factory=lambda: MAX_SPREAD_BPS)
    last_trade_max_age_s: float = 300.0
    """A trade before that is no witness against a quote of now."""


@dataclass(frozen=True, slots=True)
class Unpriced:
    """There is no price that the market and the bound both allow; it may be different in a moment."""

    reason: str


def quote_fault(asset_type: AssetType, side: Side, quote: Quote, grid: Grid, rules: QuoteRules) -> Unpriced | None:
    """Why this is not taken for a quote; None when it is one. Opening rotation, halts and thin books show as a spread
    that nobody trades over, or as a touch far from where trades were made a moment ago."""
    near = touch(side, quote)
    if isinstance(near, Unpriced):
        return near
    bps = rules.max_spread_bps[asset_type]
    if quote.bid and quote.ask and _far_apart(asset_type, quote.bid, quote.ask, grid, bps):
        return Unpriced("wide_quote")
    traded = quote.last_trade
    # By the market data's own clock, at the moment when the quote was fetched.
    if traded is None or quote.at + timedelta(seconds=quote.age_s - rules.last_trade_max_age_s) > traded.at:
        return None
    return Unpriced("quote_off_last_trade") if _far_apart(asset_type, near, traded.price, grid, bps) else None


def _far_apart(asset_type: AssetType, one: Decimal, other: Decimal, grid: Grid, bps: int) -> bool:
    apart = abs(one - other)
    return apart > (one + other) / 2 * bps / TEN_THOUSAND and apart > few_ticks(asset_type, min(one, other), grid)


def few_ticks(asset_type: AssetType, price: Decimal, grid: Grid) -> Decimal:
    """Stocks below a dollar may move by less than a cent, and are quoted in whole cents by most all the same."""
    quoted = _CENT if asset_type is AssetType.STOCK and price >= _CENT else ZERO
    return max(FEW_TICKS * tick_size(grid, price), quoted)


def touch(side: Side, quote: Quote) -> Decimal | Unpriced:
    """The price on the other side of the book: a sell needs a bid, a buy an ask, and neither the other one. No price
    is in a crossed quote."""
    if quote.bid is not None and quote.ask is not None and quote.bid > quote.ask:
        return Unpriced("crossed_quote")
    found = quote.bid if side is Side.SELL else quote.ask
    if found is None or found <= ZERO:
        return Unpriced("no_bid" if side is Side.SELL else "no_ask")
    return found
