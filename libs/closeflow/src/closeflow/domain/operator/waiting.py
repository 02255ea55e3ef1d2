"""What a close that is not over waits for, since when, what happens next and when, who acts, and the command that is
safe to give now: for everything that shows closes to a desk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Final

from closeflow.domain.account_limits import LIMITS_MISSING, WINDOW_FULL
from closeflow.domain.close.deferral import BROKER_UNAVAILABLE, MARKET_CLOSED, NO_MARKET_CLOCK
from closeflow.domain.enums import OrderStatus, RequestStatus
from closeflow.domain.incidents import IncidentKind
from closeflow.domain.model import CloseRequest
from closeflow.domain.retry import DONE_FOR_DAY_WITHIN
from closeflow.domain.trading_controls import TRADING_HALTED


class WaitsFor(StrEnum):
    """What a close waits for, in one word; `says` of the wait has the sentence."""

    BROKER = "broker"
    MARKET_HOURS = "market_hours"
    QUOTE = "quote"
    OPERATOR = "operator"
    UNKNOWN_OUTCOME = "unknown_outcome"
    ACCOUNT_LIMIT = "account_limit"
    NEXT_ATTEMPT = "next_attempt"
    SERVICE = "service"
    """One of ours, which needs a moment where it runs."""


class Owner(StrEnum):
    """Who acts next."""

    BROKER = "broker"
    MARKET = "market"
    OPERATOR = "operator"
    ORDER_SUBMITTER = "order-submitter"
    FILL_PROCESSOR = "fill-processor"
    RECONCILER = "reconciler"


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderSeen:
    """An order of the close that may still change; the times are of sends that the broker may have seen."""

    client_order_id: str
    status: OrderStatus
    created_at: datetime
    first_sent_at: datetime | None = None
    last_sent_at: datetime | None = None
    next_send_at: datetime | None = None
    cancel_requested_at: datetime | None = None
    cancel_sent_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class OpenIncident:
    """One that is about the close, its order or its position."""

    number: int
    kind: str
    opened_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseSeen:
    """A close that is not over, and what of its surroundings holds it, at one moment by the database's clock."""

    request: CloseRequest
    order: OrderSeen | None = None
    """The newest of its orders that is not over."""
    unnamed: Decimal = Decimal(0)
    """How much of its position the broker states as filled that no execution names."""
    frozen_reason: str | None = None
    """What froze the position: this close, or another one of it."""
    halted: bool = False
    sends_resume_at: datetime | None = None
    """Set while the account's circuit breaker is not closed: when it lets the next order through."""
    incidents: Sequence[OpenIncident] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """`next_step` is what happens without a person, at `next_at` where that is known; None where nothing does.

    From `stuck_from` on the close belongs on a list of what does not close: before, it is only at work.
    """

    waits_for: WaitsFor
    says: str
    since: datetime
    stuck_from: datetime
    owner: Owner
    next_step: str | None
    next_at: datetime | None
    command: str
    """It changes nothing, or is the verb that this wait is ended by; what is in capitals is for the operator to say."""


RESEND_AFTER: Final = timedelta(seconds=30)
UNKNOWN_AFTER: Final = timedelta(minutes=15)
AT_WORK: Final = timedelta(seconds=10)
"""As long may a step of ours take before somebody should look."""
CANCEL_TAKES: Final = timedelta(seconds=60)
NEEDS_A_PERSON: Final = (
    IncidentKind.ORDER_NOT_FOUND,
    IncidentKind.ACKNOWLEDGED_ORDER_NOT_FOUND,
    IncidentKind.CANCEL_REFUSED,
    IncidentKind.CANCEL_OUTCOME_MISSING,
    IncidentKind.EXECUTION_WITHHELD,
    IncidentKind.GAP,
    IncidentKind.ORDER_NOT_ATTENDED,
    IncidentKind.REQUEST_NOT_WOKEN,
    IncidentKind.NOT_REPAIRED,
)
"""Kinds under which a close goes on only after a person has looked, or the broker has changed its mind."""
_HOURS: Final = frozenset({MARKET_CLOSED, "extended_hours", "symbol_halted", "price_band"})
_QUOTE: Final = frozenset({"no_fresh_quote", "no_bid", "no_ask", "wide_quote", "quote_off_last_trade", "crossed_quote"})
_BROKER: Final = {
    BROKER_UNAVAILABLE: "the broker to take orders again: the account's circuit breaker is open",
    NO_MARKET_CLOCK: "the broker to answer whether its market is open",
    "opposite_side_open": "another order of the symbol to end at the broker",
    "held_for_orders": "other orders of the symbol, which hold its quantity at the broker",
    "earlier_order_not_done": "an earlier order of this close to end at the broker",
}


def waiting(
    seen: CloseSeen, *, resend_after: timedelta = RESEND_AFTER, unknown_after: timedelta = UNKNOWN_AFTER
) -> Wait:
    """Decide it for one close that is not over. `resend_after` and `unknown_after` are the reconciler's settings."""
    request, order = seen.request, seen.order
    person = _for_a_person(seen)
    if person is not None:
        return person
    if order is not None:
        return _for_order(seen, order, unknown_after)
    if seen.unnamed > 0:
        return _for_names(seen)
    if request.cancel_requested_at is not None:
        return _ends(request, "its cancel was asked for", request.cancel_requested_at)
    if request.status is RequestStatus.SUBMITTED:
        return _for_service(request, Owner.FILL_PROCESSOR, "decides what became of its order", request.submitted_at)
    if seen.halted:
        return _for_release(request)
    if request.status is RequestStatus.RETRYABLE:
        return _for_retry(seen)
    return _for_plan(seen, resend_after)


def _for_a_person(seen: CloseSeen) -> Wait | None:
    request, frozen = seen.request, seen.frozen_reason
    if frozen is not None:
        told = _told(seen, frozen) or next(iter(seen.incidents), None)
        said = f"an operator to look at {_words(frozen)}, which froze it, and to close that incident"
        return _for_operator(request, said, told)
    told = _told(seen, *NEEDS_A_PERSON)
    if told is not None and told.kind == IncidentKind.ORDER_NOT_FOUND:
        said = "proof that the broker does not have its order, which an operator gathers"
        return _for_operator(request, said, told, WaitsFor.UNKNOWN_OUTCOME)
    if told is not None:
        return _for_operator(request, f"an operator to attend to the incident {_words(told.kind)}", told)
    if request.status is RequestStatus.RETRYABLE and not request.auto_retry:
        said = "an operator to retry or abandon it: the broker took back an execution of it"
        told = _told(seen, IncidentKind.RETRY_BY_HAND)
        since = request.created_at if told is None else told.opened_at
        command = f"closectl requests retry {request.id} --reason REASON"
        return _wait(WaitsFor.OPERATOR, said, since, Owner.OPERATOR, command)
    return None


def _told(seen: CloseSeen, *kinds: str) -> OpenIncident | None:
    return next((one for one in seen.incidents if one.kind in kinds), None)


def _for_operator(
    request: CloseRequest, said: str, told: OpenIncident | None, waits_for: WaitsFor = WaitsFor.OPERATOR
) -> Wait:
    if told is None:
        return _wait(waits_for, said, request.submitted_at or request.created_at, Owner.OPERATOR, _show(request))
    return _wait(waits_for, said, told.opened_at, Owner.OPERATOR, f"closectl incidents show {told.number}")


def _for_order(seen: CloseSeen, order: OrderSeen, unknown_after: timedelta) -> Wait:
    request = seen.request
    if order.status is OrderStatus.SUBMIT_UNKNOWN:
        since = order.first_sent_at or order.created_at
        return _wait(
            WaitsFor.UNKNOWN_OUTCOME,
            "the broker to say whether it has the order: a send of it was never answered",
            since,
            Owner.ORDER_SUBMITTER,
            _show(request),
            step=f"it is looked up by its id; without an answer the close fails {_at(since + unknown_after)}",
            at=order.next_send_at,
        )
    if order.status is OrderStatus.PLANNED:
        return _for_send(seen, order)
    cancel = order.cancel_requested_at
    if cancel is not None and order.cancel_sent_at is None:
        said = "order-submitter to send the cancel of its order"
        step = "the cancel is sent"
        return _wait(
            WaitsFor.SERVICE, said, cancel, Owner.ORDER_SUBMITTER, _show(request), step=step, at=None, after=AT_WORK
        )
    if cancel is not None:
        return _wait(
            WaitsFor.BROKER,
            "the broker to confirm the cancel of its order",
            cancel,
            Owner.BROKER,
            _show(request),
            step="the cancel is repeated where it was refused, three times; then a person is told",
            at=order.next_send_at,
            after=CANCEL_TAKES,
        )
    return _for_fill(request, order)


def _for_send(seen: CloseSeen, order: OrderSeen) -> Wait:
    request = seen.request
    if seen.halted:
        return _for_release(request, order.created_at)
    if seen.sends_resume_at is not None:
        return _for_breaker(request, order.created_at, seen.sends_resume_at)
    return _wait(
        WaitsFor.SERVICE,
        "order-submitter to send its order",
        order.created_at,
        Owner.ORDER_SUBMITTER,
        _show(request),
        step="its order is sent",
        at=order.next_send_at,
        after=AT_WORK,
    )


def _for_fill(request: CloseRequest, order: OrderSeen) -> Wait:
    since = order.last_sent_at or order.created_at
    done_for_day = order.status is OrderStatus.DONE_FOR_DAY
    allowed = DONE_FOR_DAY_WITHIN if done_for_day else timedelta(seconds=request.working_timeout_s)
    ends_at = since + allowed
    if request.deadline_at is not None:
        ends_at = min(ends_at, request.deadline_at)
    says = {
        OrderStatus.DONE_FOR_DAY: "the broker to end an order that is done for its day",
        OrderStatus.SUSPENDED: "the broker, which has suspended its order",
        OrderStatus.PARTIALLY_FILLED: "the broker to fill the rest of its order",
        OrderStatus.PENDING_CANCEL: "the broker to end an order that it cancels by itself",
    }.get(order.status, "the broker to fill its order")
    at_once = order.status in (OrderStatus.SUSPENDED, OrderStatus.DONE_FOR_DAY)
    return _wait(
        WaitsFor.BROKER,
        says,
        since,
        Owner.BROKER,
        f"closectl requests cancel {request.id} --reason REASON" if at_once else _show(request),
        step="its order is cancelled, and what is left is tried again",
        at=ends_at,
        after=timedelta(0) if at_once else allowed,
    )


def _for_names(seen: CloseSeen) -> Wait:
    request = seen.request
    since = request.submitted_at or request.created_at
    said = "the broker to name a fill that it has stated"
    step = "the broker's list of executions is read for it"
    return _wait(WaitsFor.BROKER, said, since, Owner.RECONCILER, _show(request), step=step)


def _for_retry(seen: CloseSeen) -> Wait:
    request = seen.request
    since = request.deferred_since or request.submitted_at or request.created_at
    step, at = "the next attempt", request.next_attempt_at
    if request.reason in _HOURS:
        return _for_hours(request, since, step)
    if seen.sends_resume_at is not None:
        return _for_breaker(request, since, seen.sends_resume_at)
    if request.reason in _BROKER:
        said = _BROKER[request.reason]
        return _wait(WaitsFor.BROKER, said, since, Owner.BROKER, _show(request), step=step, at=at)
    tries = f"{request.retry_count} of {request.max_retries} retries used"
    why = "" if request.reason is None else f" after {_words(request.reason)}"
    return _wait(
        WaitsFor.NEXT_ATTEMPT,
        f"the time of its next attempt{why}; {tries}",
        since,
        Owner.RECONCILER,
        _show(request),
        step=step,
        at=at,
        stuck_from=(at or since) + AT_WORK,
    )


def _for_plan(seen: CloseSeen, resend_after: timedelta) -> Wait:
    request, reason = seen.request, seen.request.reason
    since = request.deferred_since or request.created_at
    step, at = "its order is planned again", request.next_attempt_at
    if reason is None:
        due = at or request.created_at + resend_after
        said, again, owner = "order-submitter to plan its order", "its event is sent again", Owner.ORDER_SUBMITTER
        return _wait(WaitsFor.SERVICE, said, since, owner, _show(request), step=again, at=due, after=AT_WORK)
    if reason in _HOURS:
        return _for_hours(request, since, step)
    if reason in _QUOTE:
        said = f"a price to go by: {_words(reason)}"
        return _wait(WaitsFor.QUOTE, said, since, Owner.MARKET, _show(request), step=step, at=at)
    if reason in _BROKER:
        at = seen.sends_resume_at or at
        return _wait(WaitsFor.BROKER, _BROKER[reason], since, Owner.BROKER, _show(request), step=step, at=at)
    if reason == WINDOW_FULL:
        said = "room in the account's submits per minute"
        owner, command = Owner.ORDER_SUBMITTER, "closectl limits show"
        return _wait(WaitsFor.ACCOUNT_LIMIT, said, since, owner, command, step=step, at=at)
    if reason == LIMITS_MISSING:
        said = "an operator to give the account its limits"
        return _wait(WaitsFor.OPERATOR, said, since, Owner.OPERATOR, "closectl limits show", step=step, at=at)
    if reason == TRADING_HALTED:  # Released since: it is asked for again soon.
        said = "order-submitter to plan it after a halt"
        return _wait(WaitsFor.SERVICE, said, since, Owner.ORDER_SUBMITTER, _show(request), step=step, at=at)
    said = f"what is called {_words(reason)} to pass"
    return _wait(WaitsFor.SERVICE, said, since, Owner.ORDER_SUBMITTER, _show(request), step=step, at=at)


def _for_hours(request: CloseRequest, since: datetime, step: str) -> Wait:
    said = "the market to open" if request.reason == MARKET_CLOSED else f"trading hours: {_words(request.reason or '')}"
    at = request.next_attempt_at
    return _wait(WaitsFor.MARKET_HOURS, said, since, Owner.MARKET, _show(request), step=step, at=at)


def _for_breaker(request: CloseRequest, since: datetime, resumes_at: datetime) -> Wait:
    said, step = _BROKER[BROKER_UNAVAILABLE], "one order is let through to see whether the broker takes it"
    return _wait(WaitsFor.BROKER, said, since, Owner.BROKER, _show(request), step=step, at=resumes_at)


def _for_release(request: CloseRequest, since: datetime | None = None) -> Wait:
    said = "an operator to release trading, which is halted"
    since = since or request.deferred_since or request.created_at
    return _wait(WaitsFor.OPERATOR, said, since, Owner.OPERATOR, "closectl controls show")


def _ends(request: CloseRequest, why: str, since: datetime) -> Wait:
    said, step = f"the reconciler to end it: {why}", "it ends with what is filled"
    owner = Owner.RECONCILER
    return _wait(WaitsFor.SERVICE, said, since, owner, _show(request), step=step, after=AT_WORK)


def _for_service(request: CloseRequest, owner: Owner, does: str, since: datetime | None) -> Wait:
    since = since or request.created_at
    said, step = f"{owner} to take the broker's last word", f"{owner} {does}"
    return _wait(WaitsFor.SERVICE, said, since, owner, _show(request), step=step, after=AT_WORK)


def _wait(
    waits_for: WaitsFor,
    says: str,
    since: datetime,
    owner: Owner,
    command: str,
    *,
    step: str | None = None,
    at: datetime | None = None,
    after: timedelta = timedelta(0),
    stuck_from: datetime | None = None,
) -> Wait:
    return Wait(
        waits_for=waits_for,
        says=says,
        since=since,
        stuck_from=stuck_from or since + after,
        owner=owner,
        next_step=step,
        next_at=at,
        command=command,
    )


def _show(request: CloseRequest) -> str:
    return f"closectl show {request.id}"


def _words(code: str) -> str:
    return code.replace("_", " ")


def _at(moment: datetime) -> str:
    return f"at {moment:%H:%M:%S} UTC"
