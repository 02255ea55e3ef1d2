"""Bring requests and the position in line with the facts about their orders (moves P2-P4, P7, P9, C5-C7, C9, O13).

`settle` is what every service runs after it changed a fact: the fill-processor after broker updates, the
order-submitter after a denial, the reconciler when time is up. It looks only at state, so running it again changes
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final
from uuid import UUID

from closeflow.domain import facts
from closeflow.domain.events import position_event
from closeflow.domain.model import (
    UNFINISHED,
    ZERO,
    Book,
    CloseRequest,
    Event,
    Incident,
    Order,
    OrderStatus,
    Position,
    PositionStatus,
    RejectClass,
    RequestStatus,
    SendKind,
)

USER_CANCEL: Final = "canceled_by_user"
RETRIES_EXHAUSTED: Final = "retries_exhausted"
DEADLINE_PASSED: Final = "deadline_passed"
EXTERNALLY_CLOSED: Final = "externally_closed"
WITHDRAWN: Final = "withdrawn_by_late_fill"

POSITION_STATUS_OF: Final = {
    RequestStatus.PENDING: PositionStatus.CLOSING,
    RequestStatus.SUBMITTED: PositionStatus.CLOSING,
    RequestStatus.RETRYABLE: PositionStatus.CLOSE_RETRYABLE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Exponential back-off with full jitter, never shorter than the settle delay (seconds)."""

    settle_delay_s: float = 1.0
    base_s: float = 1.0
    cap_s: float = 30.0

    def next_attempt_at(self, request: CloseRequest, now: datetime) -> datetime:
        """When the next attempt is due. The jitter is a function of the request and attempt, so a replay agrees."""
        ceiling = min(self.cap_s, self.base_s * 2.0 ** min(request.retry_count, 16))
        jitter = _fraction(request.id, request.attempt)
        return now + timedelta(seconds=max(self.settle_delay_s, jitter * ceiling))


@dataclass(frozen=True, slots=True)
class Settled:
    book: Book
    events: tuple[Event, ...] = ()
    incidents: tuple[Incident, ...] = ()


def settle(before: Book, book: Book, *, now: datetime, policy: RetryPolicy) -> Settled:
    """The book with requests and position brought in line, and the position event if anything of it changed.

    `before` is the book as it was before the facts changed; one event with one new version covers the difference.
    """
    incidents: list[Incident] = []
    book = _with_position(book, quantity=book.ledger_quantity)
    book = _withdraw_oversold_plans(book)
    for request in list(book.requests.values()):
        settled, raised = _settle_request(book, request, now=now, policy=policy)
        incidents += raised
        book = replace(book, requests={**book.requests, request.id: settled})
        book = _cancel_surplus(book, settled, now=now)
    book, last = settle_position(book, now=now)
    incidents += _sign_incidents(before.position, book.position)
    book, events = publish_position(before, book, last, now=now)
    return Settled(book, events, tuple(incidents))


def publish_position(
    before: Book, book: Book, request: CloseRequest | None, *, now: datetime
) -> tuple[Book, tuple[Event, ...]]:
    """Raise the position's version and make its event, if its quantity, status or proof of exposure changed."""

    def visible(position: Position) -> tuple[object, ...]:
        return (position.quantity, position.status, position.active_close_request_id, position.exposure_unproven)

    if visible(before.position) == visible(book.position):
        return book, ()
    position = replace(book.position, version=before.position.version + 1)
    event = position_event(before.position, position, request, at=now)
    return replace(book, position=position), (event,)


def _settle_request(
    book: Book, request: CloseRequest, *, now: datetime, policy: RetryPolicy
) -> tuple[CloseRequest, list[Incident]]:
    orders = book.orders_of(request.id)
    request = replace(request, filled_quantity=sum((facts.executed(order) for order in orders), ZERO))
    done = all(facts.is_done(order) for order in orders)
    reached = request.filled_quantity >= request.target_quantity
    if request.status is RequestStatus.COMPLETED:
        return request, []
    if done and reached and orders:
        return _finish(request, RequestStatus.COMPLETED, None, now), []
    if reached and request.status is RequestStatus.SUBMITTED:
        return request, [
            _incident(request, "target_reached_with_live_order", "the target is filled while an order is not done")
        ]
    if book.position.quantity == ZERO and done and request.status in (RequestStatus.PENDING, RequestStatus.RETRYABLE):
        return _finish(request, RequestStatus.COMPLETED, EXTERNALLY_CLOSED, now), []
    if request.status is not RequestStatus.SUBMITTED or not orders:
        return request, []
    return _settle_submitted(book, request, orders[-1], now=now, policy=policy)


def _settle_submitted(
    book: Book, request: CloseRequest, last: Order, *, now: datetime, policy: RetryPolicy
) -> tuple[CloseRequest, list[Incident]]:
    """C6, C6a and C7: every order is over, the target is not reached, and it is decided whether to go on."""
    if not facts.is_clear(book) or request.frozen_reason is not None:
        return request, []
    if request.cancel_requested_at is not None:
        return _finish(request, RequestStatus.FAILED, USER_CANCEL, now), []
    if last.status in (OrderStatus.REJECTED, OrderStatus.DENIED) and last.reject_class is not RejectClass.RETRYABLE:
        return _finish(request, RequestStatus.FAILED, last.reject_code or last.status.value, now), []
    if request.deadline_at is not None and request.deadline_at <= now:
        return _finish(request, RequestStatus.FAILED, DEADLINE_PASSED, now), []
    if request.retry_count >= request.max_retries and last.status is not OrderStatus.DENIED:
        return _finish(request, RequestStatus.FAILED, RETRIES_EXHAUSTED, now), []
    return replace(
        request,
        status=RequestStatus.RETRYABLE,
        reason=last.reject_code or last.status.value,
        next_attempt_at=policy.next_attempt_at(request, now),
    ), []


def settle_position(book: Book, *, now: datetime) -> tuple[Book, CloseRequest | None]:
    """Derive the position's status from its active request; also returns the request that the change is about."""
    position, request = book.position, book.active
    clear = facts.is_clear(book)
    unproven = position.exposure_unproven and not clear
    if request is not None and request.status in UNFINISHED:
        status = POSITION_STATUS_OF[request.status]
        return _with_position(book, status=status, exposure_unproven=unproven), request
    if request is None:
        request = _newest_finished(book)
        status = position.status
        if position.quantity == ZERO and status is not PositionStatus.CLOSED:
            status = PositionStatus.CLOSED
    elif position.quantity == ZERO:
        status = PositionStatus.CLOSED
    elif request.status is RequestStatus.COMPLETED or _gave_up_quietly(book, request):
        status, unproven = PositionStatus.OPEN, not clear
    else:
        status, unproven = PositionStatus.CLOSE_FAILED, not clear
    closed_at = position.closed_at
    if status is PositionStatus.CLOSED and closed_at is None:
        closed_at = _last_execution_at(book) or now
    return (
        _with_position(
            book, status=status, exposure_unproven=unproven, active_close_request_id=None, closed_at=closed_at
        ),
        request,
    )


def _gave_up_quietly(book: Book, request: CloseRequest) -> bool:
    """P3: the user withdrew it, or no send of it ever counted; the position is simply open again."""
    if request.reason == USER_CANCEL:
        return True
    return not any(facts.sends_that_count(order) for order in book.orders_of(request.id))


def _withdraw_oversold_plans(book: Book) -> Book:
    """O13: a planned order that the broker cannot have seen is denied once late fills leave less than it would sell."""
    for order in book.orders.values():
        request = book.requests.get(order.close_request_id)
        if request is None or order.status is not OrderStatus.PLANNED or facts.sends_that_count(order):
            continue
        if facts.oversells(book, request) or book.position.quantity == ZERO:
            denied = replace(
                order, status=OrderStatus.DENIED, reject_code=WITHDRAWN, reject_class=RejectClass.RETRYABLE
            )
            book = replace(book, orders={**book.orders, order.client_order_id: denied})
    return book


def _cancel_surplus(book: Book, request: CloseRequest, *, now: datetime) -> Book:
    """C5's note and rule Q: an order that may still fill is cancelled once the target or the position is used up."""
    if request.filled_quantity < request.target_quantity and book.position.quantity != ZERO:
        return book
    orders = dict(book.orders)
    for order in book.orders_of(request.id):
        live = not facts.is_done(order) and facts.sends_that_count(order, SendKind.SUBMIT) > 0
        if live and order.cancel_requested_at is None:
            orders[order.client_order_id] = facts.derive(replace(order, cancel_requested_at=now))
    return replace(book, orders=orders)


def _finish(request: CloseRequest, status: RequestStatus, reason: str | None, now: datetime) -> CloseRequest:
    completed_at = now if status is RequestStatus.COMPLETED else request.completed_at
    return replace(request, status=status, reason=reason, next_attempt_at=None, completed_at=completed_at)


def _newest_finished(book: Book) -> CloseRequest | None:
    return max(book.requests.values(), key=lambda request: request.created_at, default=None)


def _last_execution_at(book: Book) -> datetime | None:
    times = [one.occurred_at for order in book.orders.values() for one in order.executions]
    return max(times, default=None)


def _sign_incidents(before: Position, after: Position) -> list[Incident]:
    if before.quantity * after.quantity >= ZERO and not (before.quantity == ZERO and after.quantity != ZERO):
        return []
    return [
        Incident(
            kind="overfill",
            severity="critical",
            position_id=after.id,
            detail=f"executions took the position from {before.quantity} to {after.quantity}",
        )
    ]


def _incident(request: CloseRequest, kind: str, detail: str) -> Incident:
    return Incident(
        kind=kind,
        severity="warning",
        detail=detail,
        position_id=request.position_id,
        close_request_id=request.id,
    )


def _with_position(book: Book, **changes: object) -> Book:
    return replace(book, position=replace(book.position, **changes))  # type: ignore[arg-type]


def _fraction(request_id: UUID, attempt: int) -> float:
    """A fixed number in [0, 1) that differs between requests and attempts."""
    return float(Decimal((request_id.int ^ (attempt * 0x9E3779B97F4A7C15)) % 1_000_003) / 1_000_003)
