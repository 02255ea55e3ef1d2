"""The last check before the wire, and what is to be done next about an order that is not settled (rules R3b, R5, R6).

Nothing here is shared with the planner: what the planner got wrong has to be caught here.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from closeflow.domain import facts, pricing
from closeflow.domain.controls import LIMITS_MISSING, TRADING_HALTED, WINDOW_FULL, Controls, breach, room_at
from closeflow.domain.due import is_due
from closeflow.domain.model import (
    ZERO,
    Book,
    Incident,
    Order,
    OrderStatus,
    RejectClass,
    RequestStatus,
    Send,
    SendAnswer,
    SendKind,
    Side,
    StatementKind,
)
from closeflow.domain.settle import DEADLINE_PASSED, USER_CANCEL

CANCEL_REFUSALS: Final = 3
CANCEL_OUTCOME_WITHIN_S: Final = 60.0
REFUSAL_HEARD_WITHIN_S: Final = 60.0
NOT_FOUNDS_NEEDED: Final = 5
NOT_FOUND_WINDOW_S: Final = 60.0
BACK_OFF_CAP_S: Final = 30.0
HELD_S: Final = 1.0
"""When an order that may not go now is looked at again, unless it is known when it may."""
FENCE_CAP_S: Final = 1.0
_SENDABLE: Final = frozenset({OrderStatus.PLANNED, OrderStatus.SUBMIT_UNKNOWN})
_WITHDRAWN: Final = "withdrawn"


@dataclass(frozen=True, slots=True)
class Clear:
    """It may go on the wire now."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Not now; nothing is decided. `until` is when it may be different, where that is known."""

    reason: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Withdraw:
    """O2: it must never go, and the broker cannot have seen it. `incident` is what a person must know of it."""

    code: str
    reject_class: RejectClass
    incident: Incident | None = None


Check = Clear | Hold | Withdraw


def recheck(book: Book, order: Order, *, controls: Controls, now: datetime, may_repeat: bool = False) -> Check:
    """Whether this order may be sent, under the locks of rule R7 and in the transaction that inserts the send's row.
    `controls` are read in that transaction too.

    `may_repeat` says that rule R6 allows the same id again: a look-up, made after every unanswered send's lease, did
    not find it, and the broker de-duplicates for ever, or `absence.may_repeat` holds.
    """
    request = book.requests.get(order.close_request_id)
    if request is None:
        return Hold("request_not_loaded")
    if order.status not in _SENDABLE or facts.broker_statements(order) or order.executions:
        return Hold("not_sendable")
    seen = not facts.never_taken(order)
    if seen:
        refused = any(one.answer is SendAnswer.REJECTED for one in _submits(order))
        # After a refusal a repeat would be refused again, and prove as little.
        if not may_repeat or refused:
            return Hold("earlier_send_open")
    stopped = _stopped(book, order, now=now) or _breached(book, order, controls)
    if stopped is not None:
        return Hold(stopped.code) if seen else stopped
    if facts.is_frozen(book):
        return Hold("frozen")
    if not all(facts.is_named(one) for one in book.orders.values()):
        return Hold("fills_not_named")
    return _controlled(order, controls, now=now)


def _controlled(order: Order, controls: Controls, *, now: datetime) -> Clear | Hold:
    """The kill switch, and room in the account's window of submits."""
    if controls.halted or controls.account_id != order.account_id:
        return Hold(TRADING_HALTED)
    if controls.limits is None:
        return Hold(LIMITS_MISSING)
    free_at = room_at(controls.limits, now=now)
    return Clear() if free_at is None else Hold(WINDOW_FULL, free_at)


def _breached(book: Book, order: Order, controls: Controls) -> Withdraw | None:
    if controls.limits is None:
        return None
    price = _worth(order)
    if price is None:
        return Withdraw("order_without_price", RejectClass.RETRYABLE)  # The next plan has a quote.
    multiplier = book.position.multiplier
    found = breach(controls.limits, quantity=order.quantity, price=price, multiplier=multiplier)
    if found is None:
        return None
    return Withdraw(
        found.code, RejectClass.TERMINAL, _incident(order, "account_limit_breached", "critical", found.detail)
    )


def _worth(order: Order) -> Decimal | None:
    """The price that the order is measured at: its limit or the touch it was planned at, whichever is higher."""
    noted = pricing.noted_touch(order.side, order.quote)
    return max((one for one in (order.limit_price, noted) if one is not None), default=None)


def _stopped(book: Book, order: Order, *, now: datetime) -> Withdraw | None:
    request = book.requests[order.close_request_id]
    if request.cancel_requested_at is not None:
        return Withdraw(USER_CANCEL, RejectClass.TERMINAL)
    if order.cancel_requested_at is not None:
        return Withdraw(_WITHDRAWN, RejectClass.RETRYABLE)
    current = request.attempt == order.attempt and book.position.active_close_request_id == request.id
    if request.status is not RequestStatus.SUBMITTED or not current:
        return Withdraw("not_the_current_attempt", RejectClass.TERMINAL)
    if (order.symbol, order.account_id) != (book.position.symbol, book.position.account_id):
        return Withdraw("not_the_positions_order", RejectClass.TERMINAL)
    if request.deadline_at is not None and request.deadline_at <= now:
        return Withdraw(DEADLINE_PASSED, RejectClass.TERMINAL)
    if book.position.quantity != ZERO and (order.side is Side.SELL) != (book.position.quantity > ZERO):
        return Withdraw("side_changed", RejectClass.TERMINAL)
    if facts.oversells(book, request):
        return Withdraw("more_than_owed", RejectClass.RETRYABLE)
    return None


@dataclass(frozen=True, slots=True)
class SendOrder:
    """A send whose check has passed; the row with this number claims it."""

    n: int


@dataclass(frozen=True, slots=True)
class SendCancel:
    n: int


@dataclass(frozen=True, slots=True)
class LookUp:
    """Ask the broker by client order id. An explicit not-found is evidence of absence only if `absence_counts`."""

    absence_counts: bool


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before `until`."""

    until: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """A person has to look; it is asked again at `until`."""

    until: datetime
    incident: Incident


@dataclass(frozen=True, slots=True)
class Settled:
    """It is over, or with the broker: nothing to send and nothing to ask here."""


Step = SendOrder | SendCancel | LookUp | Withdraw | Wait | GiveUp | Settled


def next_step(book: Book, order: Order, *, controls: Controls, now: datetime, watched: Set[int]) -> Step:
    """What this instance has to do about an order that is due. `now` is the database's time, `controls` are those of
    the order's account, read in the same transaction.

    `watched` are the numbers of the unanswered submit sends that this process has itself, by its own monotonic clock,
    seen unanswered for a whole lease: only with both clocks agreeing is a sender taken to be silent for good.
    """
    if facts.is_done(order):
        return Settled()
    if order.status not in _SENDABLE:
        return _cancel_step(order, now=now) if order.cancel_requested_at is not None else Settled()
    if facts.never_taken(order):
        return _first_send(book, order, controls=controls, now=now)
    counting = [one for one in _submits(order) if one.counts]
    open_rows = [one for one in counting if one.answer is None]
    leases = [one.lease_until for one in open_rows if one.lease_until > now]
    if leases and is_due(max(leases), now):
        return LookUp(absence_counts=False)
    if leases:
        return Wait(max(leases), "send_in_flight")
    if len(counting) == 1 and counting[0].answer is SendAnswer.REJECTED and counting[0].answered_at is not None:
        # The refusal is on its way to the fill-processor, which decides about it (rule R3b), or ignored it because an
        # earlier send had no answer then: it does not come again.
        heard_by = counting[0].answered_at + timedelta(seconds=REFUSAL_HEARD_WITHIN_S)
        if not is_due(heard_by, now):
            return Wait(min(heard_by, now + timedelta(seconds=BACK_OFF_CAP_S)), "refusal_published")
    return LookUp(absence_counts=all(one.n in watched for one in open_rows))


def _first_send(book: Book, order: Order, *, controls: Controls, now: datetime) -> Step:
    match recheck(book, order, controls=controls, now=now):
        case Clear():
            return SendOrder(next_number(order, SendKind.SUBMIT))
        case Hold(reason, until):
            return Wait(until or now + timedelta(seconds=HELD_S), reason)
        case Withdraw() as withdraw:
            return withdraw


def _cancel_step(order: Order, *, now: datetime) -> Step:
    """A cancel that was taken is waited for; one that was refused while the order lives is repeated, three times."""
    cancels = [one for one in order.sends if one.kind is SendKind.CANCEL]
    if order.broker_order_id is None:
        return LookUp(absence_counts=False)
    if not cancels:
        return SendCancel(1)
    last = max(cancels, key=lambda one: one.n)
    if last.answer is None or last.answered_at is None:
        return SendCancel(last.n + 1) if is_due(last.lease_until, now) else Wait(last.lease_until, "cancel_in_flight")
    answered = [one for one in cancels if one.answer in (SendAnswer.ACCEPTED, SendAnswer.REJECTED)]
    if last.answer is SendAnswer.ACCEPTED and not _refused_since(order, last):
        until = now + timedelta(seconds=BACK_OFF_CAP_S)
        if now < last.answered_at + timedelta(seconds=CANCEL_OUTCOME_WITHIN_S):
            return Wait(until, "cancel_accepted")
        detail = f"the broker took a cancel at {last.answered_at.isoformat()} and has not said what became of it"
        return GiveUp(until, _incident(order, "cancel_outcome_missing", "warning", detail))
    if last in answered and len(answered) >= CANCEL_REFUSALS:
        detail = f"the broker refused to cancel {len(answered)} times and the order still lives"
        return GiveUp(now + timedelta(seconds=60), _incident(order, "cancel_refused", "critical", detail))
    due = last.answered_at + timedelta(seconds=min(BACK_OFF_CAP_S, 2.0 ** min(last.n - 1, 10)))
    return SendCancel(last.n + 1) if due <= now else Wait(due, "cancel_backing_off")


def _refused_since(order: Order, cancel: Send) -> bool:
    refusal = facts.statement(order, StatementKind.CANCEL_REJECTED)
    return refusal is not None and refusal.known_since > cancel.started_at


def next_number(order: Order, kind: SendKind) -> int:
    return max((one.n for one in order.sends if one.kind is kind), default=0) + 1


def claim(
    order: Order, kind: SendKind, *, sender: str, now: datetime, lease_s: float, probe: bool = False
) -> tuple[Order, Send]:
    """The order with the next send of a kind, and that send. Somebody looks at the order again when the lease is over;
    not-founds counted before it prove nothing about it."""
    lease_until = now + timedelta(seconds=lease_s)
    n = next_number(order, kind)
    send = Send(kind=kind, n=n, sender=sender, lease_until=lease_until, started_at=now, probe=probe)
    absent = 0 if kind is SendKind.SUBMIT else order.not_found_count
    return replace(order, next_send_at=lease_until, not_found_count=absent), send


def fence_s(lease_s: float) -> float:
    """How old a check may be when its send begins."""
    return min(lease_s / 3, FENCE_CAP_S)


def with_send(order: Order, send: Send) -> Order:
    return replace(order, sends=(*order.sends, send))


def being_looked_up(order: Order, *, now: datetime) -> Order:
    """O4 for an order of which nothing is known although it was sent, whatever the answer that was not followed by the
    broker's word; and when to ask again if this look-up tells nothing."""
    unknown = facts.sends_that_count(order) > 0 and order.status is OrderStatus.PLANNED
    return replace(
        order,
        status=OrderStatus.SUBMIT_UNKNOWN if unknown else order.status,
        next_send_at=look_up_again_at(order, now=now),
    )


def withdrawn(order: Order, why: Withdraw) -> Order:
    return replace(
        order, status=OrderStatus.DENIED, reject_code=why.code, reject_class=why.reject_class, next_send_at=None
    )


def look_up_again_at(order: Order, *, now: datetime) -> datetime:
    """Half as long again as it has been silent: at first quickly, later at most every 30 seconds."""
    times = [one.answered_at or one.started_at for one in _submits(order)]
    silent = (now - max(times)).total_seconds() if times else 0.0
    return now + timedelta(seconds=min(BACK_OFF_CAP_S, max(0.5, silent / 2)))


def retry_in_s(order: Order, *, jitter: float, asked_s: float | None = None) -> float:
    """In how many seconds a send that the broker did not take is due again: when the broker asked for, else, or if it
    asked for no pause, within 2ⁿ seconds, n being such answers in a row, with full jitter (`jitter` in [0, 1))."""
    if asked_s:
        return min(asked_s, 10 * BACK_OFF_CAP_S)
    in_a_row = 0
    for one in reversed(_submits(order)):
        if one.counts and one.answer is not None:
            break
        in_a_row += 1
    ceiling = min(BACK_OFF_CAP_S, 2.0 ** min(in_a_row, 10))
    return max(0.1, jitter * ceiling)


def not_found(order: Order, *, now: datetime) -> Order:
    """After an explicit not-found: counted as evidence of absence once the lease of every send that counts is over."""
    over = all(one.lease_until <= now for one in _submits(order) if one.counts)
    return replace(
        order,
        not_found_count=order.not_found_count + over,
        next_send_at=look_up_again_at(order, now=now),
    )


def absence_incident(order: Order, *, now: datetime, watched_s: float, within: timedelta) -> Incident | None:
    """Rule R6: five explicit not-founds over the window of absence (`within`), counted from the last lease by the
    database's clock, and by the observer's own since the first of them (`watched_s`): a clock that jumped proves
    nothing. Only an operator may conclude from it that the order is lost."""
    leases = [one.lease_until for one in _submits(order) if one.counts]
    if order.not_found_count < NOT_FOUNDS_NEEDED or not leases:
        return None
    silent = min((now - max(leases)).total_seconds(), watched_s)
    if silent < within.total_seconds():
        return None
    senders = ", ".join(sorted({one.sender for one in _submits(order) if one.answer is None})) or "none"
    detail = (
        f"the broker did not find it {order.not_found_count} times for {silent:.0f} s after the last lease; "
        f"{len(leases)} sends may have reached it; senders without an answer: {senders}"
    )
    return _incident(order, "order_not_found", "critical", detail)


def _submits(order: Order) -> list[Send]:
    return sorted((one for one in order.sends if one.kind is SendKind.SUBMIT), key=lambda one: one.n)


def _incident(order: Order, kind: str, severity: str, detail: str) -> Incident:
    return Incident(
        kind=kind,
        severity=severity,
        detail=detail,
        position_id=order.position_id,
        close_request_id=order.close_request_id,
        client_order_id=order.client_order_id,
    )
