"""Bring requests and the position in line with their orders' facts (P2-P4, P7, P9, P11, C5-C7, C9, C11, C12, O13, Q).

`conclude` is what every service runs after it changed a fact: the fill-processor after broker updates, the
order-submitter after a denial, the reconciler when time is up. It looks only at state, so running it again changes
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from closeflow.domain import lots
from closeflow.domain.batch import BatchResult
from closeflow.domain.close.oversold_orders import cancel_oversold_orders, withdraw_oversold_plans
from closeflow.domain.close.passing_refusals import costs_a_retry, waits_since
from closeflow.domain.close.ticks import refusals_for_increment
from closeflow.domain.frozen import replace
from closeflow.domain.incidents import IncidentKind, about, about_request
from closeflow.domain.model import (
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
)
from closeflow.domain.orders import status as order_status
from closeflow.domain.outbox.events import position_event
from closeflow.domain.position import exposure, overfill
from closeflow.domain.position.cause import average_price, cause_of
from closeflow.domain.position.overfill import quantity_within_zero
from closeflow.domain.position.reopen import reopen
from closeflow.domain.reasons import (
    BELOW_MINIMUM_NOTIONAL,
    DEADLINE_PASSED,
    DUST,
    EXTERNALLY_CLOSED,
    RESIDUAL,
    RETRIES_EXHAUSTED,
    REVERSED,
    SIDE_CHANGED,
    USER_CANCEL,
)
from closeflow.domain.retry import RetryPolicy

DUST_WORTH: Final = Decimal(100)
"""No broker's minimum is above this: a rest that is worth more and refused as too small was refused for something else,
and stays for a person."""

POSITION_STATUS_OF: Final = {
    RequestStatus.PENDING: PositionStatus.CLOSING,
    RequestStatus.SUBMITTED: PositionStatus.CLOSING,
    RequestStatus.RETRYABLE: PositionStatus.CLOSE_RETRYABLE,
}


@dataclass(frozen=True, slots=True)
class Concluded:
    """The book in line with its facts, and what has to be said about that in the same transaction."""

    book: Book
    events: tuple[Event, ...] = ()
    incidents: tuple[Incident, ...] = ()


def conclude(before: Book, book: Book, *, now: datetime, policy: RetryPolicy) -> Concluded:
    """The book with requests and position brought in line, and the position event if anything of it changed.

    `before` is the book as it was before the facts changed; one event with one new version covers the difference.
    """
    book = withdraw_oversold_plans(_with_position(book, quantity=quantity_within_zero(book)))
    incidents = _position_incidents(before, book)
    for request in list(book.requests.values()):
        concluded = _conclude_request(book, request, now=now, policy=policy)
        incidents += _request_incidents(request, concluded)
        book = replace(book, requests={**book.requests, request.id: concluded})
        book, raised = cancel_oversold_orders(book, concluded, now=now)
        incidents += raised
    if book.position.status is PositionStatus.CLOSED and not _is_over(book.position):
        book, reopened = reopen(book, now=now)
        incidents.append(reopened)
    book, last = conclude_position(book, now=now)
    book, events = publish_position(before, book, last, now=now)
    return Concluded(book, events, tuple(incidents))


def conclude_all(result: BatchResult, position_ids: Iterable[int]) -> None:
    """Conclude each of these positions of a batch, from its book as it was loaded."""
    for position_id in position_ids:
        before, book = result.before[position_id], result.books[position_id]
        concluded = conclude(before, book, now=result.now, policy=result.policy)
        result.put(concluded.book)
        result.events += concluded.events
        result.incidents += concluded.incidents


def follow_overfill(book: Book, delta: Decimal, *, now: datetime, policy: RetryPolicy) -> Concluded:
    """Rule Q where a position that holds an overfill (P12) is being closed, and what it was opened with has just
    changed by `delta`: the book as it is written already, but for its version."""
    before = replace(
        book,
        base_quantity=book.base_quantity - delta,
        ledger_quantity=book.ledger_quantity - delta,
        position=replace(book.position, quantity=book.position.quantity - delta),
    )
    return conclude(before, book, now=now, policy=policy)


def publish_position(
    before: Book, book: Book, request: CloseRequest | None, *, now: datetime
) -> tuple[Book, tuple[Event, ...]]:
    """Raise the position's version and make its event, if its quantity, status or proof of exposure changed."""

    def visible(position: Position) -> tuple[object, ...]:
        return (position.quantity, position.status, position.active_close_request_id, position.exposure_unproven)

    if visible(before.position) == visible(book.position):
        return book, ()
    position = replace(book.position, version=before.position.version + 1)
    event = position_event(
        before.position,
        position,
        request,
        cause=cause_of(before, book),
        average_price=average_price(book, request.id) if request is not None else None,
        at=now,
    )
    return replace(book, position=position), (event,)


def _conclude_request(book: Book, request: CloseRequest, *, now: datetime, policy: RetryPolicy) -> CloseRequest:
    orders = book.orders_of(request.id)
    filled = sum((order_status.executed(order) for order in orders), ZERO)
    late_fill = request.status is RequestStatus.FAILED and filled > request.filled_quantity
    taken_back = request.status is RequestStatus.COMPLETED and filled < request.filled_quantity
    request = replace(request, filled_quantity=filled, reason=REVERSED if taken_back else request.reason)
    if request.auto_retry and any(order_status.has_reversal(order) for order in orders):
        request = replace(request, auto_retry=False)  # What the broker took back once a person has to look at.
    if request.status is RequestStatus.COMPLETED:
        return request
    if not all(order_status.is_done(order) for order in orders):
        return _goes_on(request)
    residual = RESIDUAL if book.position.quantity != ZERO and _is_over(book.position) else None
    if filled >= request.target_quantity:
        return _finish(request, RequestStatus.COMPLETED, residual, now)
    if _is_over(book.position) and (request.unfinished or late_fill):
        return _finish(request, RequestStatus.COMPLETED, residual or EXTERNALLY_CLOSED, now)
    if request.unfinished and book.position.quantity != ZERO and exposure.closable(book, request.side) == ZERO:
        return _finish(request, RequestStatus.FAILED, SIDE_CHANGED, now)  # Rule Q.
    if request.status is not RequestStatus.SUBMITTED or not orders:
        return request
    return _conclude_submitted(book, request, orders[-1], now=now, policy=policy)


def _goes_on(request: CloseRequest) -> CloseRequest:
    """C12: what waited for its next attempt is at work again with an order that lives, so that its timeout, deadline
    and cancel reach that order. A pending one stays, because attempts have no holes: its time attends the order."""
    if request.status is not RequestStatus.RETRYABLE:
        return request
    return replace(request, status=RequestStatus.SUBMITTED, next_attempt_at=None)


def _conclude_submitted(
    book: Book, request: CloseRequest, last: Order, *, now: datetime, policy: RetryPolicy
) -> CloseRequest:
    """C5's rest, C6, C6a and C7: every order is over, the target is not reached, and it is decided whether to go on."""
    if not exposure.is_clear(book):
        return request
    if lots.is_residual(request.asset_type, request.remaining_quantity):
        return _finish(request, RequestStatus.COMPLETED, RESIDUAL, now)
    # Frozen is not failed either: a new close of the position would go round whatever froze this one.
    if request.frozen_reason is not None:
        return request
    refused = last.status in (OrderStatus.REJECTED, OrderStatus.DENIED)
    why = (last.reject_code if refused else None) or last.status.value
    if request.cancel_requested_at is not None:
        return _finish(request, RequestStatus.FAILED, USER_CANCEL, now)
    if refused and last.reject_code == BELOW_MINIMUM_NOTIONAL and _is_dust(book, request, last):
        return _finish(request, RequestStatus.COMPLETED, DUST, now)
    # A refusal for the increment is answered by one order on the coarser grid, which costs no retry.
    increments = len(refusals_for_increment(book.orders_of(request.id)))
    if refused and (last.reject_class is not RejectClass.RETRYABLE or increments > 1):
        return _finish(request, RequestStatus.FAILED, why, now)
    if request.deadline_at is not None and request.deadline_at <= now:
        return _finish(request, RequestStatus.FAILED, DEADLINE_PASSED, now)
    if request.retry_count >= request.max_retries and costs_a_retry(book, request, last):
        return _finish(request, RequestStatus.FAILED, RETRIES_EXHAUSTED, now)
    since = waits_since(book.orders_of(request.id))
    due = policy.next_attempt_at(request, now) if since is None else policy.asks_again_at(request, since, now)
    return replace(request, status=RequestStatus.RETRYABLE, reason=why, next_attempt_at=due, deferred_since=since)


def _is_dust(book: Book, request: CloseRequest, last: Order) -> bool:
    """By the highest price that is known of it."""
    sold = (order.average_price for order in book.orders_of(request.id))
    quoted = (Decimal(text) for side in ("ask", "bid") if (text := (last.quote or {}).get(side)) is not None)
    price = max((one for one in (last.limit_price, *quoted, *sold) if one is not None), default=None)
    return price is not None and request.remaining_quantity * price * book.position.multiplier <= DUST_WORTH


def conclude_position(book: Book, *, now: datetime) -> tuple[Book, CloseRequest | None]:
    """Derive the position's status from its active request; also returns the request that the change is about."""
    position, request = book.position, book.active
    unproven = not exposure.is_clear(book)
    if request is not None and request.unfinished:
        unproven = unproven and position.exposure_unproven
        return _with_position(book, status=POSITION_STATUS_OF[request.status], exposure_unproven=unproven), request
    closed_at = position.closed_at
    if _is_over(position):
        status = PositionStatus.CLOSED
        closed_at = closed_at or _last_execution_at(book) or now
    elif request is None:
        status = position.status
    elif request.status is RequestStatus.COMPLETED or _never_sent_or_withdrawn(book, request):
        status = PositionStatus.OPEN
    else:
        status = PositionStatus.CLOSE_FAILED
    book = _with_position(
        book, status=status, exposure_unproven=unproven, active_close_request_id=None, closed_at=closed_at
    )
    return book, request or _newest_finished(book)


def _is_over(position: Position) -> bool:
    """Whether nothing is left of it that could be traded."""
    return lots.is_residual(position.asset_type, position.quantity)


def _never_sent_or_withdrawn(book: Book, request: CloseRequest) -> bool:
    """P3: the user withdrew it, or no send of it ever counted; the position is simply open again."""
    if request.reason == USER_CANCEL:
        return True
    return not any(order_status.sends_that_count(order) for order in book.orders_of(request.id))


def _finish(request: CloseRequest, status: RequestStatus, reason: str | None, now: datetime) -> CloseRequest:
    completed_at = now if status is RequestStatus.COMPLETED else request.completed_at
    return replace(request, status=status, reason=reason, next_attempt_at=None, completed_at=completed_at)


def _newest_finished(book: Book) -> CloseRequest | None:
    return max(book.requests.values(), key=lambda request: request.created_at, default=None)


def _last_execution_at(book: Book) -> datetime | None:
    times = [one.occurred_at for order in book.orders.values() for one in order.executions]
    return max(times, default=None)


def _position_incidents(before: Book, book: Book) -> list[Incident]:
    was, now = before.position.quantity, book.position.quantity
    found: list[tuple[IncidentKind, str]] = []
    outside = before.base_quantity != book.base_quantity or was != quantity_within_zero(before)
    if outside and book.position.active_close_request_id is not None:
        found.append(
            (IncidentKind.POSITION_CHANGED_OUTSIDE, f"rule Q: it went from {was} to {now} while it was being closed")
        )
    if was * now < ZERO:
        found.append((IncidentKind.SIDE_CHANGED, f"rule Q: the position went from {was} to {now}"))
    rest = overfill.beyond_zero(book)
    if rest != ZERO and rest != before.ledger_quantity - quantity_within_zero(before):
        found.append(
            (IncidentKind.OVERFILL, f"P12: executions exceed the position by {rest}, which a tagged position holds")
        )
    return [about(kind, detail, position_id=book.position.id) for kind, detail in found]


def _request_incidents(before: CloseRequest, after: CloseRequest) -> list[Incident]:
    found: list[Incident] = []
    if after.filled_quantity > max(after.target_quantity, before.filled_quantity):
        detail = f"{after.filled_quantity} filled of a target of {after.target_quantity}"
        found.append(about_request(after, IncidentKind.OVERFILL, detail))
    doubted = after.status is RequestStatus.FAILED and after.reason == BELOW_MINIMUM_NOTIONAL
    if doubted and before.unfinished:
        detail = f"the broker calls {after.remaining_quantity} too small an order, and it is worth more than a rest is"
        found.append(about_request(after, IncidentKind.MINIMUM_DOUBTED, detail))
    if _waits_for_a_person(after) and not _waits_for_a_person(before):
        detail = "the broker took back an execution of it; only an operator retries it"
        found.append(about_request(after, IncidentKind.RETRY_BY_HAND, detail))
    return found


def _waits_for_a_person(request: CloseRequest) -> bool:
    return request.status is RequestStatus.RETRYABLE and not request.auto_retry


def _with_position(book: Book, **changes: object) -> Book:
    return replace(book, position=replace(book.position, **changes))  # type: ignore[arg-type]
