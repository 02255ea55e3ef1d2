"""What made a version of a position, and at what price its close has filled: for those who hold positions elsewhere."""

from __future__ import annotations

from decimal import Decimal
from typing import Final
from uuid import UUID

from closeflow.domain.model import ZERO, Book, PositionCause
from closeflow.domain.orders import execution_ledger
from closeflow.domain.text import EXACT

_SMALLEST: Final = Decimal(1).scaleb(-18)
"""The digits that a price has in a contract."""


def cause_of(before: Book, after: Book) -> PositionCause:
    """Why the position is not as it was; what changed its quantity counts before what became of its close."""
    if before.position.quantity == after.position.quantity:
        return PositionCause.CLOSE_MOVED
    if before.base_quantity != after.base_quantity:
        return PositionCause.OVERFILL if after.position.overfill_of is not None else PositionCause.ADJUSTMENT
    return PositionCause.REVERSAL if _reversals(after) > _reversals(before) else PositionCause.EXECUTION


def average_price(book: Book, request_id: UUID) -> Decimal | None:
    """Of all that the request has filled, as it stands now, rounded to 18 digits; None while that is nothing."""
    fills = [one for order in book.orders_of(request_id) for one in execution_ledger.effective_executions(order)]
    filled = sum((one.quantity for one in fills), ZERO)
    if not filled:
        return None
    value = sum((EXACT.multiply(one.quantity, one.price) for one in fills), ZERO)
    return EXACT.quantize(EXACT.divide(value, filled), _SMALLEST)


def _reversals(book: Book) -> int:
    return sum(
        one.trade is not one.by
        for order in book.orders.values()
        for one in execution_ledger.effective_executions(order)
    )
