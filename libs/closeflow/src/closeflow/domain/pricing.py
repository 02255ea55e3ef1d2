"""From a quote to what goes on the order: limit price, tick, lot and time in force (price ladder, rung 1).

Rung 1 is the near touch: a sell at the bid, a buy at the ask, never worse than `max_slippage_bps` away from the mid.
"""

from __future__ import annotations

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

_TEN_THOUSAND: Final = Decimal(10_000)


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


def is_usable(quote: Quote) -> bool:
    """Two-sided and not crossed."""
    return ZERO < quote.bid <= quote.ask


def near_touch(asset_type: AssetType, side: Side, quote: Quote, max_slippage_bps: int | None) -> Decimal | Unpriced:
    """Rung 1. Rounding goes towards the other side of the book, so that the limit still reaches the touch, but never
    beyond the bound."""
    if not is_usable(quote):
        return Unpriced("crossed_quote")
    bps = DEFAULT_SLIPPAGE_BPS[asset_type] if max_slippage_bps is None else max_slippage_bps
    mid = (quote.bid + quote.ask) / 2
    if side is Side.SELL:
        worst = tick_above(asset_type, mid * max(ZERO, 1 - bps / _TEN_THOUSAND))
        price = max(tick_below(asset_type, quote.bid), worst)
    else:
        worst = tick_below(asset_type, mid * (1 + bps / _TEN_THOUSAND))
        price = min(tick_above(asset_type, quote.ask), worst)
    return price if price > ZERO else Unpriced("no_price_within_slippage")


def users_limit(asset_type: AssetType, side: Side, limit_price: Decimal) -> Decimal | Unpriced:
    """The user's own limit on the tick grid, rounded so that it is never worse than asked."""
    price = tick_above(asset_type, limit_price) if side is Side.SELL else tick_below(asset_type, limit_price)
    return price if price > ZERO else Unpriced("limit_below_one_tick")


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
