"""Refusals that pass by themselves, and how patiently what may pass is asked about again.

A halt, a closed market or another order in the way says nothing against the order's price: a try that meets one costs
no retry, and the next one comes ever later, for as long as it lasts.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from closeflow.domain.model import Order, OrderStatus

PASSING: Final = frozenset(
    {"extended_hours", "held_for_orders", "market_closed", "opposite_side_open", "price_band", "symbol_halted"}
)
"""Reject codes about the instrument at this hour: no price of ours would pass."""


def is_passing(order: Order) -> bool:
    """Whether the order was refused for what passes by itself."""
    return order.status is OrderStatus.REJECTED and order.reject_code in PASSING


def waits_since(orders: Sequence[Order]) -> datetime | None:
    """Since when a request's orders, oldest first, have met nothing but refusals that pass; None where the last has
    not."""
    since = None
    for order in reversed(orders):
        if not is_passing(order):
            break
        since = order.created_at
    return since
