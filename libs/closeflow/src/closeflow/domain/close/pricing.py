"""From a quote to what goes on the order: limit price (the price ladder), lot and time in force.

Rung 1 is the near touch: a sell at the bid, a buy at the ask, never worse than `max_slippage_bps` away from the mid,
unless the market is so narrow that no price is nearer.
Each further rung goes an equal part of the way from the touch to that bound, and the last one is at the bound. A
bound of 10 000 bps or more is none: with it a request says that its last rung may be a market order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Final

from closeflow.domain.close.ticks import TICKS, Grid, tick_above, tick_below, tick_size
from closeflow.domain.market_data import Quote
from closeflow.domain.model import ZERO, AssetType, Side, TimeInForce

DEFAULT_SLIPPAGE_BPS: Final = {AssetType.STOCK: 200, AssetType.OPTION: 2000, AssetType.CRYPTO: 300}
"""The bound where the request names none: wide enough for a usual spread, never absent."""

MAX_SPREAD_BPS: Final = {AssetType.STOCK: 1000, AssetType.OPTION: 10_000, AssetType.CRYPTO: 1000}
"""How far bid, ask and last trade may lie apart. FINRA Rule 6272 wants market makers within 8 % of the best price in
liquid shares; a cheap option with an ask of three times its bid is usual."""

FEW_TICKS: Final = 5
"""A market so narrow is one, whatever that is in per cent: five cents are one nickel of an option class in nickels."""
_CENT: Final = Decimal("0.01")

NO_BOUND_BPS: Final = 10_000
TOUCH_BEYOND_SLIPPAGE: Final = "touch_beyond_slippage"
_TEN_THOUSAND: Final = Decimal(10_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteRules:
    """When a quote is a stub: nobody means to trade at it, and its mid says nothing."""

    max_spread_bps: Mapping[AssetType, int] = field(default_factory=lambda: MAX_SPREAD_BPS)
    last_trade_max_age_s: float = 300.0
    """A trade before that is no witness against a quote of now."""


@dataclass(frozen=True, slots=True)
class Priced:
    """`limit` None makes it a market order. `worth` is the price that the account's limits measure the order at: its
    limit or the touch, whichever is higher."""

    limit: Decimal | None
    worth: Decimal


@dataclass(frozen=True, slots=True)
class Unpriced:
    """There is no price that the market and the bound both allow; it may be different in a moment."""

    reason: str


def touch(side: Side, quote: Quote) -> Decimal | Unpriced:
    """The price on the other side of the book: a sell needs a bid, a buy an ask, and neither the other one. No price
    is in a crossed quote."""
    if quote.bid is not None and quote.ask is not None and quote.bid > quote.ask:
        return Unpriced("crossed_quote")
    found = quote.bid if side is Side.SELL else quote.ask
    if found is None or found <= ZERO:
        return Unpriced("no_bid" if side is Side.SELL else "no_ask")
    return found


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
    return apart > (one + other) / 2 * bps / _TEN_THOUSAND and apart > _few_ticks(asset_type, min(one, other), grid)


def _few_ticks(asset_type: AssetType, price: Decimal, grid: Grid) -> Decimal:
    """Stocks below a dollar may move by less than a cent, and are quoted in whole cents by most all the same."""
    quoted = _CENT if asset_type is AssetType.STOCK and price >= _CENT else ZERO
    return max(FEW_TICKS * tick_size(grid, price), quoted)


def ladder_price(
    asset_type: AssetType,
    side: Side,
    quote: Quote,
    max_slippage_bps: int | None,
    *,
    rung: int,
    rungs: int,
    grid: Grid | None = None,
) -> Priced | Unpriced:
    """The price of a rung, counted from 1, of a ladder of so many. On one quote a higher rung never asks more for a
    sell and never bids less for a buy. A ladder of one rung is the touch alone.

    Rounding goes towards the other side of the book, so that the limit still reaches what it aims at, but never beyond
    the bound. Where the bound does not reach the touch there is no price: what it allows could only stand and wait.
    """
    near = touch(side, quote)
    if isinstance(near, Unpriced):
        return near
    grid = grid or TICKS[asset_type]
    bps = DEFAULT_SLIPPAGE_BPS[asset_type] if max_slippage_bps is None else max_slippage_bps
    if bps >= NO_BOUND_BPS and 1 < rungs <= rung:
        return at_market(side, quote)
    way, share = Decimal(min(rung, rungs) - 1) / max(1, rungs - 1), bps / _TEN_THOUSAND
    # Slippage is measured from the mid, or from the touch itself where the other side is missing.
    bid, ask = quote.bid or near, quote.ask or near
    mid = (bid + ask) / 2
    # Per cent of mid say little where a tick is many of them: a market of one tick has no price nearer to its mid, and
    # where the user named no bound a few ticks are within it.
    most = _few_ticks(asset_type, bid, grid) if max_slippage_bps is None else tick_size(grid, bid)
    narrow = ask - bid <= most
    if side is Side.SELL:
        bound, reach = mid * max(ZERO, 1 - share), tick_below(grid, near)
        bound = min(bound, reach) if narrow else bound
        price = max(tick_below(grid, near - way * max(ZERO, near - bound)), tick_above(grid, bound))
        beyond = reach < bound
    else:
        bound, reach = mid * (1 + share), tick_above(grid, near)
        bound = max(bound, reach) if narrow else bound
        price = min(tick_above(grid, near + way * max(ZERO, bound - near)), tick_below(grid, bound))
        beyond = reach > bound
    return Unpriced(TOUCH_BEYOND_SLIPPAGE) if beyond or price <= ZERO else Priced(price, max(price, near))


def at_market(side: Side, quote: Quote) -> Priced | Unpriced:
    """A market order: what it is worth is known from the quote alone."""
    near = touch(side, quote)
    return near if isinstance(near, Unpriced) else Priced(None, near)


def users_limit(side: Side, limit_price: Decimal, grid: Grid, *, market: Decimal | None = None) -> Priced | Unpriced:
    """The user's own limit on the tick grid, rounded so that it is never worse than asked; it is every rung. A buy
    costs no more than its limit; a sell brings what the `market` pays, where that is known to be more."""
    price = tick_above(grid, limit_price) if side is Side.SELL else tick_below(grid, limit_price)
    worth = max(price, market or ZERO) if side is Side.SELL else price
    return Priced(price, worth) if price > ZERO else Unpriced("limit_below_one_tick")


def time_in_force(asset_type: AssetType, quantity: Decimal, asked: TimeInForce) -> TimeInForce:
    """What the asset type allows, as near to what was asked as possible: options and fractional stock day only,
    crypto never day."""
    match asset_type:
        case AssetType.OPTION:
            return TimeInForce.DAY
        case AssetType.CRYPTO:
            return TimeInForce.GTC if asked is TimeInForce.DAY else asked
        case AssetType.STOCK:
            return TimeInForce.DAY if quantity % 1 else asked


def market_hours(asset_type: AssetType) -> bool:
    """Whether the asset trades only while the market is open."""
    return asset_type is not AssetType.CRYPTO
