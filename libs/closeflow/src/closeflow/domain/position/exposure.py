"""What of a position may still be sold: what its orders may fill, what is owed, and whether nothing is in doubt."""

from __future__ import annotations

from decimal import Decimal

from closeflow.domain import lots
from closeflow.domain.model import ZERO, Book, CloseRequest, Order, Side
from closeflow.domain.orders.status import is_done, is_settled, known_cum, signed, unattributed


def exposure(order: Order) -> Decimal:
    """What the broker may still fill."""
    return ZERO if is_done(order) else order.quantity - known_cum(order)


def is_clear(book: Book) -> bool:
    """Whether every order of the position is done, without a gap and without a withheld trade: nothing of it is in
    doubt."""
    return all(is_settled(order) for order in book.orders.values())


def owed(book: Book, request: CloseRequest) -> Decimal:
    """What a new attempt of the request may order without selling more than is there (rule R5), in whole lots; never
    negative."""
    mine = [order for order in book.orders.values() if order.close_request_id == request.id]
    others = [order for order in book.orders.values() if order.close_request_id != request.id]
    of_target = request.target_quantity - sum((known_cum(order) for order in mine), ZERO)
    taken = sum((exposure(order) + unattributed(order) for order in others), ZERO)
    # Fills of this request that we cannot name yet have not lowered the position, so they are taken from it here.
    taken += sum((unattributed(order) for order in mine), ZERO)
    return lots.tradable(request.asset_type, max(ZERO, min(of_target, abs(book.position.quantity) - taken)))


def closable(book: Book, side: Side) -> Decimal:
    """How much an order of this side can take off the position: nothing once the position is on the other side."""
    return max(ZERO, -signed(side, book.position.quantity))


def oversells(book: Book, request: CloseRequest) -> bool:
    """Rule R5 at the moment of a send, over the order that is about to go out and all the others."""
    mine = [order for order in book.orders.values() if order.close_request_id == request.id]
    of_request = sum((known_cum(order) + exposure(order) for order in mine), ZERO)
    of_position = sum((exposure(order) + unattributed(order) for order in book.orders.values()), ZERO)
    return of_request > request.target_quantity or of_position > closable(book, request.side)
