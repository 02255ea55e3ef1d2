"""What an operator may do to a close by hand: retry, abandon, cancel, release (P5, P10, C4, C7, C8, C10, O9, R11).

Every verb looks only at state, so a repeated one finds its work done and says so. A refusal names everything that
stands in the way, and what to do about it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from closeflow.domain.close.due_requests import wake
from closeflow.domain.close.moves import Moved
from closeflow.domain.close.outcome import conclude, conclude_position, publish_position
from closeflow.domain.frozen import replace
from closeflow.domain.model import Book, CloseRequest, Event, Incident, Order, PositionStatus, RequestStatus
from closeflow.domain.orders import status as order_status
from closeflow.domain.position import exposure
from closeflow.domain.position.freeze import FREEZING_KINDS
from closeflow.domain.reasons import ABANDONED, USER_CANCEL
from closeflow.domain.retry import RetryPolicy
from closeflow.domain.text import decimal_text

_UNASKED: Final = timedelta()
"""A time that `wake` asks for only where it is not called from here."""
POLICY: Final = RetryPolicy()
"""What an operator frees waits the shortest time there is for a first retry, whatever the services are set to."""


@dataclass(frozen=True, slots=True)
class Done:
    """The book as it is to be; the events and incidents belong in the same transaction."""

    book: Book
    what: str
    events: tuple[Event, ...] = ()
    incidents: tuple[Incident, ...] = ()


@dataclass(frozen=True, slots=True)
class Already:
    """It is so already; nothing is to be written."""

    what: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Everything that stands in the way."""

    reasons: tuple[str, ...]


Outcome = Done | Already | Refused


def retry_now(book: Book, request: CloseRequest, *, now: datetime, resend_after: timedelta) -> Outcome:
    """C8 with P5 by an operator: at once, and also where `auto_retry` is off. The market's hours and the circuit
    breaker are looked at when the attempt is planned, which defers it then without using up a retry."""
    match request.status:
        case RequestStatus.RETRYABLE:
            pass
        case RequestStatus.PENDING:
            return Already(f"attempt {request.attempt} is pending already")
        case RequestStatus.SUBMITTED:
            return Refused(
                (f"attempt {request.attempt} is submitted; `closectl show {request.id}` tells how far it is",)
            )
        case _:
            return Refused((_over(request), f"`closectl close {request.position_id}` closes it under a new key (P8)"))
    obstacles = list(_retry_obstacles(book, request, now))
    if obstacles:
        return Refused(tuple(obstacles))
    due = replace(request, auto_retry=True, next_attempt_at=now)
    verdict = wake(book, due, now=now, resend_after=resend_after, unknown_after=_UNASKED)
    if not isinstance(verdict, Moved):
        return Refused((verdict.reason,))
    again = replace(verdict.book.requests[request.id], auto_retry=request.auto_retry)
    return Done(_with_request(verdict.book, again), f"{again.status}: attempt {again.attempt}", verdict.events)


def _retry_obstacles(book: Book, request: CloseRequest, now: datetime) -> Iterator[str]:
    if request.cancel_requested_at is not None:
        yield "its user cancelled it"
    if request.deadline_at is not None and request.deadline_at <= now:
        yield f"its deadline passed at {request.deadline_at.isoformat()}"
    for one in book.requests.values():
        if one.frozen_reason is not None:
            told = "it" if one is request else f"request {one.id} of the position"
            yield f"{told} is frozen by {one.frozen_reason}: `closectl incidents close` when that is cleared up"
    yield from unclear(book)


def unclear(book: Book) -> Iterator[str]:
    """What keeps the position from being clear, order by order."""
    for order in sorted(book.orders.values(), key=lambda one: one.client_order_id):
        if not order_status.is_done(order):
            rest = decimal_text(exposure.exposure(order))
            yield f"order {order.client_order_id} is {order.status} and may still fill {rest}"
        if order_status.unattributed(order):
            gap = decimal_text(order_status.unattributed(order))
            yield f"order {order.client_order_id} has {gap} filled that no execution names"
        for trade in order_status.unclear_trades(order):
            told = f"{trade.exec_id}, {decimal_text(trade.quantity)} @ {decimal_text(trade.price)}"
            yield (
                f"order {order.client_order_id}: the broker lists {told}, which may be told already: book it"
                " (`closectl orders execution`), or say that it is no other fill (`closectl orders end`)"
            )


def abandon(book: Book, request: CloseRequest, *, now: datetime) -> Outcome:
    """C10 with P10: nobody tries this close any more, and the position is simply open again."""
    position = book.position
    if request.status in (RequestStatus.PENDING, RequestStatus.SUBMITTED):
        return Refused((f"it is {request.status}; `closectl requests cancel {request.id}` ends it",))
    if request.status is RequestStatus.COMPLETED:
        return Refused((_over(request),))
    if request.status is RequestStatus.FAILED and position.status is not PositionStatus.CLOSE_FAILED:
        return Already(f"{_over(request)}, and position {position.id} is {position.status}")
    obstacles = list(unclear(book))
    if request.frozen_reason is not None and request.unfinished:
        obstacles.append(f"it is frozen by {request.frozen_reason}: `closectl incidents close` when that is cleared up")
    if obstacles:
        return Refused(tuple(obstacles))
    about: CloseRequest | None = None
    after = book
    if request.status is RequestStatus.RETRYABLE:
        about = replace(request, status=RequestStatus.FAILED, reason=ABANDONED, next_attempt_at=None)
        after = _with_request(book, about)
    after, _ = conclude_position(after, now=now)
    if after.position.status is PositionStatus.CLOSE_FAILED:
        after = replace(after, position=replace(after.position, status=PositionStatus.OPEN))
    after, events = publish_position(book, after, about, now=now)
    return Done(after, f"abandoned; position {position.id} is {after.position.status}", events)


def cancel(book: Book, request: CloseRequest, *, now: datetime) -> Outcome:
    """The user's cancel: at once where nothing is at work (C4, C10), else through the order's own (O9, then C7)."""
    if not request.unfinished:
        over = _over(request)
        return Already(over) if request.reason == USER_CANCEL else Refused((over,))
    asked = replace(request, cancel_requested_at=request.cancel_requested_at or now)
    after = _with_request(book, asked)
    if request.status is not RequestStatus.SUBMITTED:
        if request.frozen_reason is not None:
            told = f"it ends once what froze it ({request.frozen_reason}) is cleared up: `closectl incidents close`"
            if asked == request:
                return Already(f"its cancel was asked for at {asked.cancel_requested_at}; {told}")
            return Done(after, f"the cancel is asked for; {told}")
        verdict = wake(after, asked, now=now, resend_after=_UNASKED, unknown_after=_UNASKED)
        if not isinstance(verdict, Moved):
            return Refused((verdict.reason,))
        return Done(
            verdict.book,
            f"{verdict.what}; position {request.position_id} is {verdict.book.position.status}",
            verdict.events,
        )
    live = [order for order in book.orders_of(request.id) if not order_status.is_done(order)]
    if request.cancel_requested_at is not None and all(order.cancel_requested_at is not None for order in live):
        return Already(f"its cancel was asked for at {request.cancel_requested_at.isoformat()}; {_names(live)}")
    canceling = {order.client_order_id: _canceling(order, now) for order in live}
    concluded = conclude(book, replace(after, orders={**book.orders, **canceling}), now=now, policy=POLICY)
    what = f"the cancel is asked for; {_names(canceling.values())}"
    return Done(concluded.book, what, concluded.events, concluded.incidents)


def _canceling(order: Order, now: datetime) -> Order:
    return order_status.derive(replace(order, cancel_requested_at=order.cancel_requested_at or now))


def _names(orders: Collection[Order]) -> str:
    return ", ".join(f"order {one.client_order_id} is {one.status}" for one in orders) or "no order of it lives"


def release(book: Book, request: CloseRequest, *, closed: str, still_open: Collection[str], now: datetime) -> Outcome:
    """R11: the incident of kind `closed` that froze the request is closed. Of the kinds that are `still_open` for it,
    one that freezes keeps it frozen; else it goes on from where it stands."""
    if request.frozen_reason != closed:
        return Already(f"request {request.id} is not frozen by {closed}")
    others = sorted(FREEZING_KINDS.intersection(still_open))
    if others:
        kept = replace(request, frozen_reason=others[0])
        if kept == request:
            return Already(f"request {request.id} stays frozen by another {closed}")
        return Done(_with_request(book, kept), f"request {request.id} stays frozen by {others[0]}")
    freed = _with_request(book, replace(request, frozen_reason=None))
    concluded = conclude(book, freed, now=now, policy=POLICY)
    status = concluded.book.requests[request.id].status
    what = f"request {request.id} is no longer frozen; it is {status}"
    return Done(concluded.book, what, concluded.events, concluded.incidents)


def _over(request: CloseRequest) -> str:
    return f"request {request.id} is {request.status}" + (f" ({request.reason})" if request.reason else "")


def _with_request(book: Book, request: CloseRequest) -> Book:
    return replace(book, requests={**book.requests, request.id: request})
