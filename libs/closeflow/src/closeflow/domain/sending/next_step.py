"""What is to be done next about an order that is not over (rules R3b, R5, R6)."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from closeflow.domain.enums import SENDABLE
from closeflow.domain.incidents import IncidentKind, about_order
from closeflow.domain.model import Book, Incident, Order, Send, SendAnswer, SendKind, StatementKind
from closeflow.domain.orders import status as order_status
from closeflow.domain.retry import BACK_OFF_CAP_S, is_due
from closeflow.domain.sending.claim import next_number
from closeflow.domain.sending.send_check import HELD_S, Clear, Hold, Withdraw, recheck
from closeflow.domain.trading_controls import Controls

CANCEL_REFUSALS: Final = 3
CANCEL_OUTCOME_WITHIN_S: Final = 60.0
REFUSAL_HEARD_WITHIN_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class SendOrder:
    """A send whose check has passed; the row with this number claims it."""

    n: int


@dataclass(frozen=True, slots=True)
class SendCancel:
    """Ask the broker to cancel, as the n-th send of that kind."""

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
class NothingToDo:
    """It is over, or with the broker: nothing to send and nothing to ask here."""


Step = SendOrder | SendCancel | LookUp | Withdraw | Wait | GiveUp | NothingToDo


def next_step(book: Book, order: Order, *, controls: Controls, now: datetime, watched: Set[int]) -> Step:
    """What this instance has to do about an order that is due. `now` is the database's time, `controls` are those of
    the order's account, read in the same transaction.

    `watched` are the numbers of the unanswered submit sends that this process has itself, by its own monotonic clock,
    seen unanswered for a whole lease: only with both clocks agreeing is a sender taken to be silent for good.
    """
    if order_status.is_done(order):
        return NothingToDo()
    if order.status not in SENDABLE:
        return _cancel_step(order, now=now) if order.cancel_requested_at is not None else NothingToDo()
    if order_status.never_taken(order):
        return _first_send(book, order, controls=controls, now=now)
    counting = [one for one in order_status.submits(order) if one.counts]
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
        return GiveUp(until, about_order(order, IncidentKind.CANCEL_OUTCOME_MISSING, detail))
    if last in answered and len(answered) >= CANCEL_REFUSALS:
        detail = f"the broker refused to cancel {len(answered)} times and the order still lives"
        return GiveUp(now + timedelta(seconds=60), about_order(order, IncidentKind.CANCEL_REFUSED, detail))
    due = last.answered_at + timedelta(seconds=min(BACK_OFF_CAP_S, 2.0 ** min(last.n - 1, 10)))
    return SendCancel(last.n + 1) if due <= now else Wait(due, "cancel_backing_off")


def _refused_since(order: Order, cancel: Send) -> bool:
    refusal = order_status.statement(order, StatementKind.CANCEL_REJECTED)
    return refusal is not None and refusal.known_since > cancel.started_at
