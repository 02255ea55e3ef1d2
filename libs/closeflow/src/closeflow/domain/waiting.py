"""Refusals that pass by themselves, and how patiently what may pass is asked about again.

A halt, a closed market or another order in the way says nothing against the order's price: a try that meets one costs
no retry, and the next one comes ever later, for as long as it lasts.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from closeflow.domain.model import Order, OrderStatus

PASSING: Final = frozenset(
    {"extended_hours", "held_for_orders", "market_closed", "opposite_side_open", "price_band", "symbol_halted"}
)
"""Reject codes about the instrument at this hour: no price of ours would pass."""

_DOUBLES_UP_TO: Final = timedelta(seconds=30)
_LONGEST: Final = timedelta(minutes=5)


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


def pause(waited: timedelta, *, first: timedelta, jitter: float) -> timedelta:
    """Pauses begin with `first`, double up to half a minute, and are a third of the time waited so far after that, up
    to five minutes: an hour of them is about 20. `jitter` (0 to 1) makes one up to a half longer, so that closes which
    began to wait together do not ask together."""
    growing = max(first, min(waited, _DOUBLES_UP_TO), min(waited / 3, _LONGEST))
    return growing * (1 + jitter / 2)


def fraction(request_id: UUID, attempt: int) -> float:
    """A fixed number in [0, 1) that differs between requests and attempts."""
    return ((request_id.int ^ (attempt * 0x9E3779B97F4A7C15)) % 1_000_003) / 1_000_003
