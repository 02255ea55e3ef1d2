"""What this instance does next about an order that is due: send, look up, cancel, withdraw, wait, or tell a person."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from closeflow.domain.close.outcome import conclude
from closeflow.domain.model import (
    BrokerStatus,
    ExecType,
    Order,
    OrderStatus,
    RequestStatus,
    Send,
    SendAnswer,
    SendKind,
    StatementKind,
)
from closeflow.domain.sending.claim import withdrawn
from closeflow.domain.sending.next_step import GiveUp, LookUp, NothingToDo, SendCancel, SendOrder, Step, Wait, next_step
from closeflow.domain.sending.send_check import Withdraw
from closeflow.domain.transitions import illegal_moves

from .builders import (
    CONTROLS,
    NOW,
    POLICY,
    REQUEST_ID,
    a_book,
    a_send,
    a_statement,
    an_order,
    an_update,
    applied,
    at,
    canceled,
    filled,
    working,
)

UNSENT: tuple[Send, ...] = ()
LATER = at(31)
"""After the lease of the builders' sends."""


def unsent(quantity: int = 100, **changes: Any) -> Order:
    return an_order(quantity, **{"sends": UNSENT, **changes})


def unknown(*sends: Send, **changes: Any) -> Order:
    return an_order(status=OrderStatus.SUBMIT_UNKNOWN, sends=sends or (a_send(SendAnswer.UNKNOWN),), **changes)


def step_of(order: Order, *, now: datetime = LATER, watched: frozenset[int] = frozenset(), **request: Any) -> Step:
    return next_step(a_book(order, **request), order, controls=CONTROLS, now=now, watched=watched)


STEPS: dict[str, tuple[Order, Step]] = {
    "a plan without a send is sent": (unsent(), SendOrder(1)),
    "what was not taken is sent under the next number": (
        an_order(sends=(a_send(SendAnswer.NOT_ACCEPTED),)),
        SendOrder(2),
    ),
    "an unknown order that was not sent after all is sent": (unknown(a_send(SendAnswer.NOT_SENT)), SendOrder(2)),
    "an unknown outcome is looked up, and absence counts: its sender has answered": (unknown(), LookUp(True)),
    "a silent sender's order is looked up; this process has not watched it for long": (
        an_order(sends=(a_send(None),)),
        LookUp(False),
    ),
    "an accepted order that nobody confirms is looked up": (an_order(), LookUp(True)),
    "a refusal of the only send is left to the fill-processor": (
        an_order(sends=(a_send(SendAnswer.REJECTED),)),
        Wait(at(61), "refusal_published"),
    ),
    "one that the fill-processor ignored, because another send was open, is looked up in the end": (
        unknown(
            a_send(SendAnswer.NOT_SENT),
            replace(a_send(SendAnswer.REJECTED, 2), started_at=at(-31), answered_at=at(-30)),
        ),
        LookUp(True),
    ),
    "a refusal of a repeat proves nothing": (
        unknown(a_send(SendAnswer.UNKNOWN), a_send(SendAnswer.REJECTED, 2)),
        LookUp(True),
    ),
    "an unknown order is looked up even if it should be cancelled": (unknown(cancel_requested_at=NOW), LookUp(True)),
    "a working order needs nothing": (working(), NothingToDo()),
    "a filled order needs nothing": (filled(), NothingToDo()),
    "a cancelled order needs nothing": (canceled(cancel_requested_at=NOW), NothingToDo()),
}


@pytest.mark.parametrize(("order", "step"), STEPS.values(), ids=STEPS)
def test_next_step(order: Order, step: Step) -> None:
    assert step_of(order) == step


def test_a_send_in_flight_belongs_to_its_sender() -> None:
    order = an_order(sends=(a_send(SendAnswer.UNKNOWN), a_send(None, 2)))
    assert step_of(order, now=at(29)) == Wait(at(30), "send_in_flight")


def test_a_lease_of_a_clock_that_was_ahead_is_not_waited_for_and_proves_nothing() -> None:
    order = unknown(a_send(None))
    hour_back = at(-3600)
    assert step_of(order, now=hour_back, watched=frozenset({1})) == LookUp(absence_counts=False)


def test_absence_counts_only_when_every_silent_send_was_watched_for_a_whole_lease() -> None:
    order = unknown(a_send(None), a_send(None, 2))
    assert step_of(order, watched=frozenset({1})) == LookUp(absence_counts=False)
    assert step_of(order, watched=frozenset({1, 2})) == LookUp(absence_counts=True)


def test_a_held_plan_is_asked_about_again() -> None:
    assert step_of(unsent(), frozen_reason="poison") == Wait(at(32), "frozen")


def test_a_withdrawn_plan_lets_its_request_end() -> None:
    book = a_book(unsent(), cancel_requested_at=NOW)
    order = next(iter(book.orders.values()))
    step = next_step(book, order, controls=CONTROLS, now=NOW, watched=frozenset())
    assert isinstance(step, Withdraw)
    denied = replace(book, orders={order.client_order_id: withdrawn(order, step)})
    after = conclude(book, denied, now=NOW, policy=POLICY).book
    assert after.orders[order.client_order_id].status is OrderStatus.DENIED
    assert (after.requests[REQUEST_ID].status, after.requests[REQUEST_ID].reason) == (
        RequestStatus.FAILED,
        "canceled_by_user",
    )
    assert after.position.status.value == "open"


@pytest.mark.parametrize("order", [unsent(), unknown(a_send(SendAnswer.NOT_SENT))], ids=["planned", "thought unknown"])
def test_what_the_broker_cannot_have_seen_is_withdrawn(order: Order) -> None:
    book = a_book(order, cancel_requested_at=NOW)
    step = next_step(book, order, controls=CONTROLS, now=LATER, watched=frozenset())
    assert isinstance(step, Withdraw)
    denied = replace(book, orders={order.client_order_id: withdrawn(order, step)})
    assert list(illegal_moves(book, conclude(book, denied, now=LATER, policy=POLICY).book)) == []


def to_cancel(*answers: SendAnswer | None, **changes: Any) -> Order:
    cancels = tuple(a_send(answer, n, SendKind.CANCEL) for n, answer in enumerate(answers, 1))
    changes = {"broker_order_id": "b-1", "cancel_requested_at": NOW, **changes}
    return working(sends=(a_send(), *cancels), **changes)


REFUSED_LATER = {
    "statements": (a_statement(StatementKind.NEW, 1, 0), a_statement(StatementKind.CANCEL_REJECTED, 2, t=5))
}
CANCELS: dict[str, tuple[Order, datetime, Step]] = {
    "the first": (to_cancel(), NOW, SendCancel(1)),
    "an order that the broker has not named is looked up": (
        to_cancel(broker_order_id=None),
        NOW,
        LookUp(False),
    ),
    "one is in flight": (to_cancel(None), at(29), Wait(at(30), "cancel_in_flight")),
    "its sender is silent": (to_cancel(None), at(30), SendCancel(2)),
    "it was taken": (to_cancel(SendAnswer.ACCEPTED), at(5), Wait(at(35), "cancel_accepted")),
    "it was not taken: a second later": (
        to_cancel(SendAnswer.NOT_ACCEPTED),
        at(1.5),
        Wait(at(2), "cancel_backing_off"),
    ),
    "it was not taken": (to_cancel(SendAnswer.NOT_ACCEPTED), at(2), SendCancel(2)),
    "it was refused": (to_cancel(SendAnswer.REJECTED), at(2), SendCancel(2)),
    "it was refused twice": (to_cancel(*[SendAnswer.REJECTED] * 2), at(3), SendCancel(3)),
    "it was taken, and refused by the stream": (
        to_cancel(SendAnswer.ACCEPTED, **REFUSED_LATER),
        at(6),
        SendCancel(2),
    ),
}


@pytest.mark.parametrize(("order", "now", "step"), CANCELS.values(), ids=CANCELS)
def test_cancel(order: Order, now: datetime, step: Step) -> None:
    assert step_of(order, now=now) == step


@pytest.mark.parametrize("slow_s", [-3600, -2, 0, 3600], ids=lambda one: f"the broker's clock {one} s off")
def test_whether_a_cancel_was_refused_does_not_depend_on_the_brokers_clock(slow_s: float) -> None:
    taken = to_cancel(SendAnswer.ACCEPTED, broker_update_seq=1)
    refusal = an_update(
        ExecType.CANCEL_REJECTED, BrokerStatus.NEW, cum=0, seq=2, transact_time=at(0.3 + slow_s), received_at=at(0.4)
    )
    assert step_of(applied(taken, refusal), now=at(6)) == SendCancel(2)
    asked_again = applied(to_cancel(cancel_requested_at=at(1)), refusal)
    assert asked_again.status is OrderStatus.PENDING_CANCEL, "it was refused before it was asked for again"


def test_a_cancel_that_was_refused_three_times_is_for_a_person() -> None:
    step = step_of(to_cancel(*[SendAnswer.REJECTED] * 3), now=at(60))
    assert isinstance(step, GiveUp)
    assert (step.incident.kind, step.until) == ("cancel_refused", at(120))


def test_a_cancel_that_was_taken_and_comes_to_nothing_is_for_a_person() -> None:
    order = to_cancel(SendAnswer.ACCEPTED)
    assert step_of(order, now=at(60)) == Wait(at(90), "cancel_accepted")
    step = step_of(order, now=at(61))
    assert isinstance(step, GiveUp)
    assert (step.incident.kind, step.until) == ("cancel_outcome_missing", at(91))
