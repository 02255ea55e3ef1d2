"""Move on a request that time has to move: due retries, deferrals and zombies, deadlines, long unknowns.

Moves C8 with P5, C4 and C10 with P3, P6 and P10, C7 with P7, O9; a re-emission of a pending request is no move, and
neither is a retry that is put off until the market, the circuit breaker and the kill switch allow one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, assert_never
from uuid import UUID

from closeflow.domain import lots, trading_controls
from closeflow.domain.batch import BatchResult
from closeflow.domain.close import deferral, pricing
from closeflow.domain.close.outcome import conclude_position, publish_position
from closeflow.domain.close.passing_refusals import costs_a_retry, waits_since
from closeflow.domain.incidents import IncidentKind, about_order, about_request
from closeflow.domain.market_data import MarketClock
from closeflow.domain.model import (
    ZERO,
    Book,
    CloseRequest,
    Event,
    Incident,
    Order,
    OrderStatus,
    RequestStatus,
    SendKind,
)
from closeflow.domain.orders import status as order_status
from closeflow.domain.outbox.events import submit_event
from closeflow.domain.position import exposure, freeze
from closeflow.domain.reasons import DEADLINE_PASSED, EXTERNALLY_CLOSED, RESIDUAL, USER_CANCEL
from closeflow.domain.retry import DONE_FOR_DAY_WITHIN, FARTHEST, is_due, look_again_by

SUBMIT_UNKNOWN: Final = "submit_unknown"
_LOOK_AGAIN: Final = timedelta(seconds=1)
_WORKING: Final = frozenset(
    {OrderStatus.NEW, OrderStatus.PARTIALLY_FILLED, OrderStatus.SUSPENDED, OrderStatus.PENDING_CANCEL}
)
"""Also what the broker suspended, or began to cancel unasked: a request is not held up for ever by either."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What P5 asks of the world before a retry, fetched before the transaction."""

    clock: MarketClock | None
    """Absent when it could not be had: what keeps market hours then waits."""
    sends_resume_at: datetime | None = None
    """Set while the account's circuit breaker is open: when it lets the next order through."""
    halted: bool = False


_NOT_KNOWN: Final = Conditions(clock=None, halted=True)


@dataclass(frozen=True, slots=True)
class Moved:
    """The request moved, or its event is sent again."""

    book: Book
    events: tuple[Event, ...]
    what: str
    incidents: tuple[Incident, ...] = ()


@dataclass(frozen=True, slots=True)
class Waits:
    """Time asks nothing of the request now, or not yet."""

    reason: str


@dataclass(frozen=True, slots=True)
class PutOff:
    """A due retry that the world does not allow before `until`: the request stays as it is, and nothing is used up."""

    book: Book
    until: datetime
    reason: str


@dataclass(slots=True, kw_only=True)
class WakeResult(BatchResult):
    """What time asks of many requests: what is to be written, and the verdict about each."""

    verdicts: dict[UUID, Moved | PutOff | Waits] = field(default_factory=dict)


def wake_batch(
    before: Mapping[int, Book],
    due: Mapping[UUID, int],
    *,
    now: datetime,
    resend_after: timedelta,
    unknown_after: timedelta,
    conditions: Mapping[str, Conditions],
) -> WakeResult:
    """Decide about each due request, given with its position. `conditions` are by account id; what is said of no
    account holds its retries back."""
    result = WakeResult(before=before, now=now)
    for request_id, position_id in due.items():
        book = result.books[position_id]
        request = book.requests[request_id]
        verdict = result.verdicts[request_id] = wake(
            book,
            request,
            now=now,
            resend_after=resend_after,
            unknown_after=unknown_after,
            conditions=conditions.get(request.account_id, _NOT_KNOWN),
        )
        match verdict:
            case Moved(after, events, _, incidents):
                result.put(after)
                result.events += events
                result.incidents += incidents
            case PutOff(after):
                result.put(after)
            case Waits():
                pass
            case _:
                assert_never(verdict)
    return result


def wake(
    book: Book,
    request: CloseRequest,
    *,
    now: datetime,
    resend_after: timedelta,
    unknown_after: timedelta,
    conditions: Conditions | None = None,
) -> Moved | PutOff | Waits:
    """Decide what time asks of one unfinished request. Without `conditions` a retry is an operator's, which they do not
    hold back: the planner looks at them then.

    `resend_after` is how long a pending request may be without an order before its event is sent again the first time;
    `unknown_after` (T_unknown) how long an order may stay unknown before the request is given up as failed.
    """
    if not request.unfinished:
        return Waits("finished")
    if request.status is RequestStatus.SUBMITTED:
        return _attend_order(book, request, now=now, unknown_after=unknown_after)
    if request.frozen_reason is not None:
        return Waits("frozen")  # Its end would let a new close go round what froze it.
    if request.cancel_requested_at is not None:
        return _fail(book, request, USER_CANCEL, now=now)
    if request.deadline_at is not None and request.deadline_at <= now:
        return _fail(book, request, DEADLINE_PASSED, now=now)
    if freeze.is_frozen(book):
        return Waits("another close of the position is frozen")
    if _living(book, request):  # One that lives again, before the next attempt is planned (ADR 0024).
        return _attend_order(book, request, now=now, unknown_after=unknown_after)
    if not exposure.is_clear(book):
        return Waits("not clear")
    if lots.is_residual(request.asset_type, book.position.quantity):
        why = EXTERNALLY_CLOSED if book.position.quantity == ZERO else RESIDUAL
        return _finish(book, request, RequestStatus.COMPLETED, why, now=now)
    if request.status is RequestStatus.PENDING:
        return _send_again(book, request, now=now, resend_after=resend_after, conditions=conditions)
    return _retry(book, request, now=now, resend_after=resend_after, conditions=conditions)


def _send_again(
    book: Book, request: CloseRequest, *, now: datetime, resend_after: timedelta, conditions: Conditions | None
) -> Moved | PutOff | Waits:
    """A deferral that is due (C3), or a zombie: nobody planned it although its event should long be there."""
    if not is_due(request.next_attempt_at or request.created_at + resend_after, now):
        return Waits("not due")
    lasts = _deferral_lasts(book, request, conditions, now=now) if conditions is not None else None
    if lasts is not None:
        return lasts
    emission = request.emission + 1
    again = replace(request, emission=emission, next_attempt_at=now + _pause_after(emission, resend_after))
    event = submit_event(again, exposure.owed(book, again), at=now)
    return Moved(_with_request(book, again), (event,), "emitted_again")


def _deferral_lasts(
    book: Book, request: CloseRequest, conditions: Conditions, *, now: datetime
) -> PutOff | Waits | None:
    """A reason that can be seen from here to last needs no event to be looked at."""
    resumes_at = conditions.sends_resume_at
    match request.reason:
        case trading_controls.TRADING_HALTED if conditions.halted:
            return Waits("halted")
        case deferral.NO_MARKET_CLOCK if conditions.clock is None:
            return Waits("market clock unknown")
        case deferral.BROKER_UNAVAILABLE if resumes_at is not None and not is_due(resumes_at, now):
            return _put_off(book, request, resumes_at, "circuit breaker open", now=now)
        case deferral.MARKET_CLOSED:
            until = _opens_at(request, conditions.clock, now=now)
            return None if until is None else _put_off(book, request, until, "market closed", now=now)
        case _:
            return None


def _pause_after(emission: int, resend_after: timedelta) -> timedelta:
    """Twice as long after each emission, so that an outage in which none of them leaves does not fill the outbox.

    The planner's answer to an emission sets its own time, so what is deferred or halted is asked for again when that
    says. Only after many such answers is an emission that nobody answers repeated later than it need be.
    """
    return min(FARTHEST, resend_after * (1 << min(emission - 1, 16)))


def _retry(
    book: Book, request: CloseRequest, *, now: datetime, resend_after: timedelta, conditions: Conditions | None
) -> Moved | PutOff | Waits:
    """C8 with P5: the next attempt, for what is owed."""
    if not request.auto_retry:
        return Waits("an operator has to retry it")
    if request.next_attempt_at is not None and not is_due(request.next_attempt_at, now):
        return Waits("not due")
    quantity = exposure.owed(book, request)
    if quantity <= ZERO:
        return Waits("nothing is owed")
    held = _held_back(book, request, conditions, now=now) if conditions is not None else None
    if held is not None:
        return held
    orders = book.orders_of(request.id)
    spent = bool(orders) and costs_a_retry(book, request, orders[-1])
    again = replace(
        request,
        status=RequestStatus.PENDING,
        attempt=request.attempt + 1,
        retry_count=request.retry_count + spent,
        emission=1,
        next_attempt_at=now + resend_after,
        deferred_since=waits_since(orders),
        reason=None,
    )
    concluded, _ = conclude_position(_with_request(book, again), now=now)
    concluded, events = publish_position(book, concluded, again, now=now)
    return Moved(concluded, (submit_event(again, quantity, at=now), *events), "retried")


def _held_back(book: Book, request: CloseRequest, conditions: Conditions, *, now: datetime) -> PutOff | Waits | None:
    if conditions.halted:
        return Waits("halted")
    if pricing.market_hours(request.asset_type) and conditions.clock is None:
        return Waits("market clock unknown")
    opens_at = _opens_at(request, conditions.clock, now=now)
    if opens_at is not None:
        return _put_off(book, request, opens_at, "market closed", now=now)
    resumes_at = conditions.sends_resume_at
    if resumes_at is not None and not is_due(resumes_at, now):
        return _put_off(book, request, resumes_at, "circuit breaker open", now=now)
    return None


def _opens_at(request: CloseRequest, clock: MarketClock | None, *, now: datetime) -> datetime | None:
    """When the market opens that the request waits for; None if it is open, unknown, or never closes."""
    if clock is None or clock.is_open or not pricing.market_hours(request.asset_type):
        return None
    return now + max(clock.next_open - clock.at, _LOOK_AGAIN)


def _put_off(book: Book, request: CloseRequest, until: datetime, reason: str, *, now: datetime) -> PutOff:
    until = look_again_by(until, now)
    return PutOff(_with_request(book, replace(request, next_attempt_at=until)), until, reason)


def _attend_order(book: Book, request: CloseRequest, *, now: datetime, unknown_after: timedelta) -> Moved | Waits:
    """C7 for an order that stays unknown; a cancel (O9) for one that works longer than the request allows, or at all
    once the user gave up or the deadline passed. What was never sent is withdrawn by the cancel, else the request fails
    when its outcome is known (C7)."""
    living = _living(book, request)
    if not living:
        return Waits("in progress")
    order = next((one for one in living if one.cancel_requested_at is None), living[-1])
    unknown = order.status is OrderStatus.SUBMIT_UNKNOWN
    if unknown and _unknown_since(order, now) + unknown_after <= now:
        detail = "the broker never said whether it has the order; the position may still be reduced by it"
        told = about_request(request, IncidentKind.SUBMIT_UNKNOWN, detail)
        return replace(_fail(book, request, SUBMIT_UNKNOWN, now=now), incidents=(told,))
    if order.cancel_requested_at is None:
        if request.cancel_requested_at is not None:
            return _cancel(book, order, USER_CANCEL, now=now)
        if request.deadline_at is not None and request.deadline_at <= now:
            return _cancel(book, order, DEADLINE_PASSED, now=now)
    if unknown:
        return Waits("not unknown for long")
    done_for_day = order.status is OrderStatus.DONE_FOR_DAY
    if not (order.status in _WORKING or done_for_day) or order.cancel_requested_at is not None:
        return Waits("in progress")
    allowed = DONE_FOR_DAY_WITHIN if done_for_day else timedelta(seconds=request.working_timeout_s)
    if _working_since(order) + allowed > now:
        return Waits("working")
    if not done_for_day:
        return _cancel(book, order, "working_timed_out", now=now)
    return replace(_cancel(book, order, "done_for_day", now=now), incidents=(_not_over(order),))


def _living(book: Book, request: CloseRequest) -> list[Order]:
    """Mostly the newest alone; an older one where it lives again."""
    return [order for order in book.orders_of(request.id) if not order_status.is_done(order)]


def _not_over(order: Order) -> Incident:
    detail = "the broker called it done for the day and has not ended it a day later; its cancel is asked for"
    return about_order(order, IncidentKind.ORDER_DONE_FOR_DAY, detail)


def _working_since(order: Order) -> datetime:
    """From the last send that may have reached the broker: what waited for a free sender did not work meanwhile."""
    sends = [one.started_at for one in order.sends if one.kind is SendKind.SUBMIT and one.counts]
    return max(sends, default=order.created_at)


def _unknown_since(order: Order, now: datetime) -> datetime:
    """From the first send, because repeats of an id that never get an answer would put it off for ever."""
    sends = [one.started_at for one in order.sends if one.kind is SendKind.SUBMIT and one.counts]
    return min(sends, default=now)


def _cancel(book: Book, order: Order, why: str, *, now: datetime) -> Moved:
    canceling = order_status.derive(replace(order, cancel_requested_at=now))
    return Moved(replace(book, orders={**book.orders, order.client_order_id: canceling}), (), f"cancel:{why}")


def _fail(book: Book, request: CloseRequest, reason: str, *, now: datetime) -> Moved:
    return _finish(book, request, RequestStatus.FAILED, reason, now=now)


def _finish(book: Book, request: CloseRequest, status: RequestStatus, reason: str, *, now: datetime) -> Moved:
    completed_at = now if status is RequestStatus.COMPLETED else None
    ended = replace(request, status=status, reason=reason, next_attempt_at=None, completed_at=completed_at)
    concluded, _ = conclude_position(_with_request(book, ended), now=now)
    concluded, events = publish_position(book, concluded, ended, now=now)
    return Moved(concluded, events, f"{status}:{reason}")


def _with_request(book: Book, request: CloseRequest) -> Book:
    return replace(book, requests={**book.requests, request.id: request})
