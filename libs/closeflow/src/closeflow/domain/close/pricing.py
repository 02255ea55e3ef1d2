"""From a quote to what goes on the order: limit price (the price ladder), lot and time in force.

Rung 1 is the near touch: a sell at the bid, a buy at the ask, never worse than `max_slippage_bps` away from the mid,
unless the market is so narrow that no price is nearer.
Each further rung goes an equal part of the way from the touch to that bound, and the last one is at the bound. A
bound of 10 000 bps or more is none: with it a request says that its last rung may be a market order.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from closeflow.domain.close.quotes import (
    NO_BOUND_BPS,
    TEN_THOUSAND,
    Unpriced,
    few_ticks,
    touch,
)
from closeflow.domain.close.ticks import TICKS, Grid, tick_above, tick_below, tick_size
from closeflow.domain.market_data import Quote
from closeflow.domain.model import ZERO, AssetType, Side, TimeInForce

DEFAULT_SLIPPAGE_BPS: Final = {AssetType.STOCK: 200, AssetType.OPTION: 2000, AssetType.CRYPTO: 300}
"""The bound where the request names none: wide enough for a usual spread, never absent."""
TOUCH_BEYOND_SLIPPAGE: Final = "touch_beyond_slippage"


@dataclass(frozen=True, slots=True)
class Priced:
    """`limit` None makes it a market order. `worth` is the price that the account's limits measure the order at: its
    limit or the touch, whichever is higher."""

    limit: Decimal | None
    worth: Decimal


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
    way, share = Decimal(min(rung, rungs) - 1) / max(1, rungs - 1), bps / TEN_THOUSAND
    # Slippage is measured from the mid, or from the touch itself where the other side is missing.
    bid, ask = quote.bid or near, quote.ask or near
    mid = (bid + ask) / 2
    # Per cent of mid say little where a tick is many of them: a market of one tick has no price nearer to its mid, and
    # where the user named no bound a few ticks are within it.
    most = few_ticks(asset_type, bid, grid) if max_slippage_bps is None else tick_size(grid, bid)
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
