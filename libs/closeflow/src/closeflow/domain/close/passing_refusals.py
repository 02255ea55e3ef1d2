"""Refusals that pass by themselves, and how patiently what may pass is asked about again.

A halt, a closed market or another order in the way says nothing against the order's price: a try that meets one costs
no retry, and the next one comes ever later, for as long as it lasts.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from closeflow.domain.close.ticks import BAD_INCREMENT
from closeflow.domain.model import Book, CloseRequest, Order, OrderStatus, SendKind
from closeflow.domain.orders.status import sends_that_count

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


def costs_a_retry(book: Book, request: CloseRequest, order: Order) -> bool:
    """Whether the order was a try of its price. One that was never sent was none; nor was one that was refused for its
    increment or for what passes by itself, or as the circuit breaker's probe in a storm of refusals: as many of these
    as there are tries."""
    if not sends_that_count(order) or order.reject_code == BAD_INCREMENT or is_passing(order):
        return False
    if not _refused_probe(order):
        return True
    probes = [one.attempt for one in book.orders_of(request.id) if _refused_probe(one)]
    return order.attempt in probes[request.max_retries + 1 :]


def _refused_probe(order: Order) -> bool:
    counting = [one for one in order.sends if one.kind is SendKind.SUBMIT and one.counts]
    return order.status is OrderStatus.REJECTED and bool(counting) and all(one.probe for one in counting)
