"""What quantities can be traded: lots by asset type, their digits, what is too small, and the largest."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from closeflow.domain.model import AssetType

LOTS: Final = {
    AssetType.STOCK: Decimal("0.000000001"),
    AssetType.OPTION: Decimal(1),
    AssetType.CRYPTO: Decimal("0.000000001"),
}
"""Smallest quantity and step of quantity."""


def tradable(asset_type: AssetType, quantity: Decimal) -> Decimal:
    """The most of a quantity, without its sign, that can be ordered; the rest is below a lot."""
    lot = LOTS[asset_type]
    return abs(quantity) // lot * lot


def is_residual(asset_type: AssetType, quantity: Decimal) -> bool:
    """Nothing, or less than can be traded: what a position may be left with when it ends."""
    return abs(quantity) < LOTS[asset_type]


LOT_DIGITS: Final[Mapping[AssetType, int]] = {AssetType.STOCK: 9, AssetType.OPTION: 0, AssetType.CRYPTO: 9}
"""Digits a quantity may have after the point: contracts are whole, shares and coins divide to a billionth."""
LARGEST_QUANTITY: Final = Decimal("1e15")
"""Events can tell of less."""
