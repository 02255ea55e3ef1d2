"""From a quote to what goes on the order: limit price (the price ladder), tick, lot and time in force.

Rung 1 is the near touch: a sell at the bid, a buy at the ask, never worse than `max_slippage_bps` away from the mid.
Each further rung goes an equal part of the way from the touch to that bound, and the last one is at the bound. A
bound of 10 000 bps or more is none: with it a request says that its last rung may be a market order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Final

from closeflow.domain.answers import Quote
from closeflow.domain.model import ZERO, AssetType, Side, TimeInForce

TICKS: Final[dict[AssetType, tuple[tuple[Decimal, Decimal], ...]]] = {
    # SEC Rule 612 (Regulation NMS): whole cents from one dollar on, hundredths of a cent below.
    AssetType.STOCK: ((Decimal(1), Decimal("0.01")), (ZERO, Decimal("0.0001"))),
    # As for classes in the penny interval programme below 3 and out of it above: 0.05 is a legal price in both.
    AssetType.OPTION: ((Decimal(3), Decimal("0.05")), (ZERO, Decimal("0.01"))),
    AssetType.CRYPTO: (
        (Decimal(1), Decimal("0.01")),
        (Decimal("0.001"), Decimal("0.000001")),
        (ZERO, Decimal("0.000000001")),
    ),
}
"""Per asset type: from this price on, this tick; highest price first."""

LOTS: Final = {
    AssetType.STOCK: Decimal("0.000000001"),
    AssetType.OPTION: Decimal(1),
    AssetType.CRYPTO: Decimal("0.000000001"),
}
"""Smallest quantity and step of quantity."""

DEFAULT_SLIPPAGE_BPS: Final = {AssetType.STOCK: 200, AssetType.OPTION: 2000, AssetType.CRYPTO: 300}
"""The bound where the request names none: wide enough for a usual spread, never absent."""

NO_BOUND_BPS: Final = 10_000
_TEN_THOUSAND: Final = Decimal(10_000)


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


def tick_size(asset_type: AssetType, price: Decimal) -> Decimal:
    return next(tick for start, tick in TICKS[asset_type] if price >= start)


def tick_below(asset_type: AssetType, price: Decimal) -> Decimal:
    """The highest legal price that is not above `price`; 0 when there is none."""
    tick = tick_size(asset_type, price)
    return (price / tick).to_integral_value(ROUND_FLOOR) * tick


def tick_above(asset_type: AssetType, price: Decimal) -> Decimal:
    """The lowest legal price that is not below `price`."""
    tick = tick_size(asset_type, price)
    return (price / tick).to_integral_value(ROUND_CEILING) * tick


def touch(side: Side, quote: Quote) -> Decimal | Unpriced:
    """The price on the other side of the book: a sell needs a bid, a buy an ask, and neither the other one. No price
    is in a crossed quote."""
    if quote.bid is not None and quote.ask is not None and quote.bid > quote.ask:
        return Unpriced("crossed_quote")
    found = quote.bid if side is Side.SELL else quote.ask
    if found is None or found <= ZERO:
        return Unpriced("no_bid" if side is Side.SELL else "no_ask")
    return found


def noted_touch(side: Side, noted: Mapping[str, str] | None) -> Decimal | None:
    """The touch in the quote that an order keeps; None when the order was planned without one."""
    found = (noted or {}).get("bid" if side is Side.SELL else "ask")
    return Decimal(found) if found is not None else None


def _middle(near: Decimal, quote: Quote) -> Decimal:
    """What slippage is measured from: the mid, or the touch itself where the other side is missing."""
    return (quote.bid + quote.ask) / 2 if quote.bid and quote.ask else near


def ladder_price(
    asset_type: AssetType, side: Side, quote: Quote, max_slippage_bps: int | None, *, rung: int, rungs: int
) -> Priced | Unpriced:
    """The price of a rung, counted from 1, of a ladder of so many. On one quote a higher rung never asks more for a
    sell and never bids less for a buy. A ladder of one rung is the touch alone.

    Rounding goes towards the other side of the book, so that the limit still reaches what it aims at, but never beyond
    the bound.
    """
    near = touch(side, quote)
    if isinstance(near, Unpriced):
        return near
    bps = DEFAULT_SLIPPAGE_BPS[asset_type] if max_slippage_bps is None else max_slippage_bps
    if bps >= NO_BOUND_BPS and 1 < rungs <= rung:
        return at_market(side, quote)
    way = Decimal(min(rung, rungs) - 1) / max(1, rungs - 1)
    mid = _middle(near, quote)
    if side is Side.SELL:
        bound = mid * max(ZERO, 1 - bps / _TEN_THOUSAND)
        aim = near - way * max(ZERO, near - bound)
        price = max(tick_below(asset_type, aim), tick_above(asset_type, bound))
    else:
        bound = mid * (1 + bps / _TEN_THOUSAND)
        aim = near + way * max(ZERO, bound - near)
        price = min(tick_above(asset_type, aim), tick_below(asset_type, bound))
    return Priced(price, max(price, near)) if price > ZERO else Unpriced("no_price_within_slippage")


def at_market(side: Side, quote: Quote) -> Priced | Unpriced:
    """A market order: what it is worth is known from the quote alone."""
    near = touch(side, quote)
    return near if isinstance(near, Unpriced) else Priced(None, near)


def users_limit(asset_type: AssetType, side: Side, limit_price: Decimal) -> Priced | Unpriced:
    """The user's own limit on the tick grid, rounded so that it is never worse than asked; it is every rung."""
    price = tick_above(asset_type, limit_price) if side is Side.SELL else tick_below(asset_type, limit_price)
    return Priced(price, price) if price > ZERO else Unpriced("limit_below_one_tick")


def fits_lot(asset_type: AssetType, quantity: Decimal) -> bool:
    return quantity > ZERO and quantity % LOTS[asset_type] == ZERO


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
