"""What executions brought beyond zero is not this position's (P12)."""

from __future__ import annotations

from decimal import Decimal

from closeflow.domain.model import (
    ZERO,
    Book,
)


def beyond_zero(book: Book) -> Decimal:
    """P12: what executions brought beyond zero, signed as a position; one that is tagged with this one holds it."""
    return book.ledger_quantity - book.position.quantity


def quantity_within_zero(book: Book) -> Decimal:
    """The ledger's quantity, except that executions never take a position across zero (P12): what they bring too much
    is not this position's."""
    if book.base_quantity > ZERO:
        return max(ZERO, book.ledger_quantity)
    return min(ZERO, book.ledger_quantity) if book.base_quantity else ZERO
