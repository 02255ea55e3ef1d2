"""Orders that would bring more than is left to close: withdrawn or canceled (O13, rule Q, the note to C5)."""

from __future__ import annotations

from datetime import datetime

from closeflow.domain.frozen import replace
from closeflow.domain.incidents import IncidentKind, about_order
from closeflow.domain.model import (
    Book,
    CloseRequest,
    Incident,
    OrderStatus,
    RejectClass,
)
from closeflow.domain.orders import status as order_status
from closeflow.domain.position import exposure
from closeflow.domain.reasons import (
    WITHDRAWN,
)


def withdraw_oversold_plans(book: Book) -> Book:
    """O13: a planned order that the broker cannot have seen is denied once late fills leave less than it would sell."""
    for order in book.orders.values():
        request = book.requests.get(order.close_request_id)
        if request is None or not order_status.never_taken(order):
            continue
        if exposure.oversells(book, request):
            denied = replace(
                order,
                status=OrderStatus.DENIED,
                reject_code=WITHDRAWN,
                reject_class=RejectClass.RETRYABLE,
                next_send_at=None,
            )
            book = replace(book, orders={**book.orders, order.client_order_id: denied})
    return book


def cancel_oversold_orders(book: Book, request: CloseRequest, *, now: datetime) -> tuple[Book, list[Incident]]:
    """C5's note and rule Q: an order that may fill more than the target or the position has left is cancelled."""
    if not exposure.oversells(book, request):
        return book, []
    if request.filled_quantity >= request.target_quantity:
        kind, detail = IncidentKind.TARGET_REACHED_WITH_LIVE_ORDER, "the target is filled while an order is not done"
    else:
        kind, detail = IncidentKind.EXPOSURE_ABOVE_OWED, "an order may fill more than is left to close"
    orders, incidents = dict(book.orders), list[Incident]()
    for order in book.orders_of(request.id):
        if order_status.is_done(order) or order.cancel_requested_at is not None:
            continue
        orders[order.client_order_id] = order_status.derive(replace(order, cancel_requested_at=now))
        incidents.append(about_order(order, kind, detail))
    return replace(book, orders=orders), incidents
