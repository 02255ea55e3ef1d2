"""P11 with C11: a position that was closed has a quantity again, because the broker took back what had closed it."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

from closeflow.domain.frozen import replace
from closeflow.domain.incidents import IncidentKind, about
from closeflow.domain.model import Book, CloseRequest, Incident, PositionStatus, RequestStatus
from closeflow.domain.orders import status as order_status
from closeflow.domain.reasons import REVERSED


def bust_window_ends_at(closed_at: datetime) -> datetime:
    """The end (UTC) of the first weekday after the day of the close. Holidays count as trading days, so over a holiday
    the window is short by one; past it a person decides, which is never wrong."""
    day = closed_at.astimezone(UTC).date() + timedelta(days=1)
    while day.isoweekday() > 5:
        day += timedelta(days=1)
    return datetime.combine(day + timedelta(days=1), time(), UTC)


def reopen(book: Book, *, now: datetime) -> tuple[Book, Incident]:
    """The book with its position open for what came back; its quantity is already what the ledger says.

    The request whose order was changed goes on: with the order, if that lives again or what it filled cannot be named
    yet (R4); else, inside the bust window, as one that a person has to retry. Past the window, or without such a
    request, the position is just open.
    """
    position = book.position
    closed_at = position.closed_at or now
    found = _reversed_request(book)
    status, active = PositionStatus.OPEN, None
    if found is not None:
        again = _again(book, found, now < bust_window_ends_at(closed_at))
        if again is not None:
            status = PositionStatus.CLOSING
            if again.status is RequestStatus.RETRYABLE:
                status = PositionStatus.CLOSE_RETRYABLE
            active = again.id
            book = replace(book, requests={**book.requests, again.id: again})
    position = replace(
        position, status=status, active_close_request_id=active, closed_at=None, reopened_at=position.reopened_at or now
    )
    detail = f"P11: closed at {closed_at.isoformat()}, it holds {position.quantity} again and is {status}"
    incident = about(IncidentKind.POSITION_REOPENED, detail, position_id=position.id, close_request_id=active)
    return replace(book, position=position), incident


def _reversed_request(book: Book) -> CloseRequest | None:
    """The newest completed request that has less than its target now and an order that the broker changed."""
    found = [
        request
        for request in book.requests.values()
        if request.status is RequestStatus.COMPLETED
        and request.remaining_quantity > 0
        and any(order_status.has_reversal(order) for order in book.orders_of(request.id))
    ]
    return max(found, key=lambda request: (request.created_at, request.id), default=None)


def _again(book: Book, request: CloseRequest, inside_window: bool) -> CloseRequest | None:
    alive = not all(order_status.is_settled(order) for order in book.orders_of(request.id))
    if not alive and not inside_window:
        return None
    status = RequestStatus.SUBMITTED if alive else RequestStatus.RETRYABLE
    return replace(request, status=status, auto_retry=False, reason=REVERSED, completed_at=None, next_attempt_at=None)
