"""A broker update takes its place in the book: the order, what was booked of it, and what it freezes."""

from __future__ import annotations

from closeflow.domain.frozen import replace
from closeflow.domain.model import Book, Order
from closeflow.domain.orders import status as order_status
from closeflow.domain.orders.verdicts import Applied
from closeflow.domain.position.freeze import FREEZING, freeze


def apply_update(book: Book, order: Order, verdict: Applied) -> Book:
    """The book with the verdict's order, its booked execution, and the request frozen where an incident demands it."""
    orders = {**book.orders, order.client_order_id: verdict.order}
    book = replace(book, orders=orders)
    # Not only when a trade was booked: a name for one can be what makes the bust of it count.
    moved = order_status.signed(order.side, order_status.executed(verdict.order) - order_status.executed(order))
    book = replace(book, ledger_quantity=book.ledger_quantity + moved)
    for incident in verdict.incidents:
        if incident.kind in FREEZING:
            book = freeze(book, order, incident.kind)
    return book
