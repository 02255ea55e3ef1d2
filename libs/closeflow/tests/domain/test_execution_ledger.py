"""What stands of an order's trades after busts and corrections, and what accounting is told of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import permutations
from typing import Any

import pytest

from closeflow.domain.model import (
    BrokerStatus,
    BrokerUpdate,
    ExecKind,
    ExecType,
    Execution,
    Order,
    OrderStatus,
    UpdateSource,
)
from closeflow.domain.orders import execution_ledger
from closeflow.domain.orders import status as order_status
from closeflow.domain.outbox.events import ledger_event

from .builders import a_position, a_request, a_trade, an_execution, an_order, an_update, applied, at, working

B, E = BrokerStatus, ExecType


def a_bust(exec_id: str, of: str, **changes: object) -> Execution:
    values = {"kind": ExecKind.BUST, "ref_exec_id": of, "quantity": Decimal(0), "price": Decimal(0), **changes}
    return replace(an_execution(exec_id, 1), **values)  # type: ignore[arg-type]


def a_correction(exec_id: str, of: str, quantity: int, price: int = 10, **changes: object) -> Execution:
    values = {"kind": ExecKind.CORRECT, "ref_exec_id": of, "price": Decimal(price), **changes}
    return replace(an_execution(exec_id, quantity), **values)  # type: ignore[arg-type]


T1, T2 = an_execution("t1", 40), an_execution("t2", 60)
LEDGERS: dict[str, tuple[Sequence[Execution], dict[str, str], int]] = {
    "a trade stands as it is": ([T1], {}, 40),
    "a busted trade is gone": ([T1, T2, a_bust("b", "t1")], {}, 60),
    "a corrected trade has its new quantity": ([T1, a_correction("c", "t1", 30)], {}, 30),
    "a correction of a correction counts": ([T1, a_correction("c", "t1", 30), a_correction("d", "c", 25)], {}, 25),
    "the later of two corrections of one trade counts": (
        [T1, a_correction("d", "t1", 25, occurred_at=at(9)), a_correction("c", "t1", 30)],
        {},
        25,
    ),
    "the sequence says which correction is later": (
        [T1, a_correction("d", "t1", 25, broker_seq=8), a_correction("c", "t1", 30, broker_seq=7, occurred_at=at(9))],
        {},
        25,
    ),
    "the time says which is later where only one has a sequence": (
        [T1, a_correction("c", "t1", 30, broker_seq=7), a_correction("d", "t1", 25, occurred_at=at(9))],
        {},
        25,
    ),
    "a bust of a correction takes the trade with it": ([T1, a_correction("c", "t1", 30), a_bust("b", "c")], {}, 0),
    "a bust is final": ([T1, a_bust("b", "t1"), a_correction("c", "t1", 30, occurred_at=at(9))], {}, 0),
    "a bust may name the trade by its other name": ([T1, a_bust("b", "other")], {"other": "t1"}, 0),
    "a bust of a trade that nobody knows waits": ([T1, a_bust("b", "t9")], {}, 40),
    "a correction that nobody can place adds nothing": ([T1, a_correction("c", "t9", 30)], {}, 40),
    "two busts of one trade take it once": ([T1, T2, a_bust("b", "t1"), a_bust("b2", "t1")], {}, 60),
    "rows that name each other name no trade": ([T1, a_bust("b", "c"), a_correction("c", "b", 5)], {}, 40),
}


@pytest.mark.parametrize(("rows", "aliases", "quantity"), LEDGERS.values(), ids=LEDGERS)
def test_what_stands(rows: Sequence[Execution], aliases: dict[str, str], quantity: int) -> None:
    for order in permutations(rows):
        assert order_status.executed(an_order(executions=tuple(order), aliases=aliases)) == quantity


def sums(order: Order) -> tuple[object, ...]:
    """Executed, known and stated cumulative quantity."""
    return order_status.executed(order), order_status.known_cum(order), order.stated_cum_quantity


def told(before: Order, after: Order) -> list[tuple[str, str]]:
    found = []
    for entry in execution_ledger.entries(before, after):
        match entry:
            case execution_ledger.Recorded(execution):
                found.append(("recorded", execution.exec_id))
            case execution_ledger.Reversed(execution, by):
                found.append(("reversed", f"{execution.exec_id} by {by.exec_id}"))
            case execution_ledger.Corrected(execution, replaced):
                found.append(("corrected", f"{execution.exec_id} for {replaced.exec_id}"))
    return found


def test_accounting_is_told_of_each_step_once() -> None:
    steps = [
        (T1, [("recorded", "t1")]),
        (T2, [("recorded", "t2")]),
        (a_correction("c", "t1", 30), [("reversed", "t1 by c"), ("corrected", "c for t1")]),
        (a_bust("b", "c"), [("reversed", "c by b")]),
        (a_bust("b2", "t1"), []),
        (a_correction("late", "t1", 10), []),
    ]
    order = an_order()
    for row, entries in steps:
        after = order_status.derive(replace(order, executions=(*order.executions, row)))
        assert told(order, after) == entries
        order = after


def test_a_correction_that_comes_to_stand_again_is_another_event() -> None:
    """The first in the stream's sequence turns out to be the later one, once the row between them is known."""
    first = a_correction("c1", "t1", 30, occurred_at=at(9), broker_seq=7)
    second = a_correction("c2", "t1", 25, occurred_at=at(5), broker_seq=8)
    third = a_correction("c3", "t1", 20, occurred_at=at(7))
    order, events = an_order(executions=(T1,)), []
    for row in (first, third, second):
        after = order_status.derive(replace(order, executions=(*order.executions, row)))
        events += [
            ledger_event(a_position(), a_request(), order, entry) for entry in execution_ledger.entries(order, after)
        ]
        order = after
    again = execution_ledger.Corrected(first, second)
    events.append(ledger_event(a_position(), a_request(), order, again))
    assert len({one.event_id for one in events}) == len(events)


def test_a_trade_that_was_busted_before_it_came_is_recorded_and_reversed() -> None:
    before = an_order(executions=(a_bust("b", "t1"),))
    after = an_order(executions=(a_bust("b", "t1"), T1))
    assert told(before, after) == [("recorded", "t1"), ("reversed", "t1 by b")]


@pytest.mark.parametrize("rows", [rows for rows, aliases, _ in LEDGERS.values() if not aliases])
def test_what_accounting_was_told_sums_up_to_what_stands(rows: Sequence[Execution]) -> None:
    for order in permutations(rows):
        state, balance = an_order(), Decimal(0)
        for row in order:
            after = order_status.derive(replace(state, executions=(*state.executions, row)))
            for entry in execution_ledger.entries(state, after):
                sign = -1 if isinstance(entry, execution_ledger.Reversed) else 1
                balance += sign * entry.execution.quantity * entry.execution.price
            state = after
        stands = sum((one.quantity * one.price for one in execution_ledger.effective_executions(state)), Decimal(0))
        assert balance == stands


def bust(of: str, status: BrokerStatus | None, cum: int | None, seq: int | None = 7, **changes: object) -> BrokerUpdate:
    return an_update(E.TRADE_CANCEL, status, exec_id=f"bust-{of}", exec_ref_id=of, cum=cum, seq=seq, **changes)


FILLED_ORDER = applied(working(), a_trade("t1", 100, 100, order_status=B.FILLED, seq=5))


@pytest.mark.parametrize(
    ("status", "cum", "label", "done"),
    [
        (B.NEW, 0, OrderStatus.NEW, False),
        (B.PARTIALLY_FILLED, 0, OrderStatus.NEW, False),
        (B.CANCELED, 0, OrderStatus.CANCELED, True),
        (B.FILLED, 0, OrderStatus.FILLED, True),
        (None, None, OrderStatus.NEW, False),
    ],
    ids=[
        "it is new again",
        "it is partly filled, with nothing",
        "it was canceled",
        "it stays filled",
        "the broker does not say",
    ],
)
def test_after_a_bust_the_brokers_statement_says_whether_the_order_lives(
    status: BrokerStatus | None, cum: int | None, label: OrderStatus, done: bool
) -> None:
    order = applied(FILLED_ORDER, bust("t1", status, cum))
    assert sums(order) == (0, 0, 0)
    assert (order.status, order_status.is_done(order)) == (label, done)


def test_what_the_broker_stated_before_a_bust_is_no_gap_after_it() -> None:
    order = applied(FILLED_ORDER, bust("t1", None, None))
    assert sums(order) == (0, 0, 0)
    again = applied(order, a_trade("t2", 30, 30, order_status=B.PARTIALLY_FILLED, seq=8))
    assert sums(again) == (30, 30, 30)
    assert again.status is OrderStatus.PARTIALLY_FILLED


CORRECTED = an_update(
    E.TRADE_CORRECT,
    B.FILLED,
    exec_id="x0",
    exec_ref_id="t1",
    cum=100,
    last=100,
    last_price=Decimal(9),
    seq=7,
    transact_time=at(10),
)
LISTED: dict[str, Any] = {"order_status": None, "broker_seq": None, "source": UpdateSource.BACKFILL}


@pytest.mark.parametrize("name", ["x1", "y1"])
def test_a_bust_that_the_activities_tell_before_the_stream_leaves_no_gap(name: str) -> None:
    busted = bust("x0", B.NEW, 0, seq=8, transact_time=at(20))
    streamed, listed = replace(busted, exec_id="x1"), replace(busted, exec_id=name, **LISTED)
    assert sums(applied(FILLED_ORDER, CORRECTED, streamed)) == (0, 0, 0)
    assert sums(applied(FILLED_ORDER, CORRECTED, listed)) == (0, 0, 0)
    assert sums(applied(FILLED_ORDER, CORRECTED, listed, streamed)) == (0, 0, 0)


def test_after_a_bust_a_statement_without_a_sequence_is_newer_though_it_says_less() -> None:
    filled = a_trade("t1", 40, 40, order_status=B.PARTIALLY_FILLED, transact_time=at(10))
    busted = bust("t1", B.NEW, 0, seq=None, transact_time=at(20))
    again = a_trade("t2", 5, 5, order_status=B.PARTIALLY_FILLED, transact_time=at(30))
    paused = an_update(E.DONE_FOR_DAY, B.DONE_FOR_DAY, cum=5, transact_time=at(40))
    resumed = an_update(E.ORDER_STATUS, B.PARTIALLY_FILLED, cum=5, source=UpdateSource.QUERY, transact_time=at(50))
    order = applied(working(statements=()), filled, busted, again, paused)
    assert order.status is OrderStatus.DONE_FOR_DAY
    assert applied(order, resumed).status is OrderStatus.PARTIALLY_FILLED


def test_after_a_bust_an_equal_fill_of_the_other_feed_is_another_one() -> None:
    busted = applied(FILLED_ORDER, bust("t1", B.NEW, 0))
    second = a_trade("a2", 100, 100, source=UpdateSource.BACKFILL, transact_time=at(60))
    assert order_status.executed(applied(busted, second)) == 0
    stated = an_update(ExecType.ORDER_STATUS, B.FILLED, cum=100, seq=9, transact_time=at(60))
    assert order_status.executed(applied(busted, second, stated)) == 100
    same_one = a_trade("a1", 100, 100, source=UpdateSource.BACKFILL)
    assert order_status.executed(applied(busted, same_one)) == 0
