"""Commission and fees: with their execution, later, or by themselves; whatever comes first, each is booked once."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from decimal import Decimal
from itertools import permutations
from typing import Any

import pytest

from closeflow.contracts import ExecutionEvent, decode
from closeflow.contracts.outbox import event_value
from closeflow.domain.incidents import IncidentKind
from closeflow.domain.model import BrokerUpdate, ExecType, Order, UpdateSource
from closeflow.domain.orders import execution_ledger
from closeflow.domain.orders.charges import in_currency_of
from closeflow.domain.orders.judge_update import judge_update
from closeflow.domain.orders.verdicts import Applied, Repeated
from closeflow.domain.outbox.events import ledger_event

from .builders import a_position, a_request, a_trade, an_update, at, working


def a_charge(charge_id: str, of: str, **amounts: str) -> BrokerUpdate:
    stated: dict[str, Any] = {name: Decimal(amount) for name, amount in amounts.items()}
    return an_update(ExecType.CHARGE, exec_id=charge_id, exec_ref_id=of, **stated)


def a_bust(exec_id: str, of: str) -> BrokerUpdate:
    return an_update(ExecType.TRADE_CANCEL, exec_id=exec_id, exec_ref_id=of)


def a_correction(exec_id: str, of: str, last: int, price: str, **stated: Any) -> BrokerUpdate:
    return an_update(
        ExecType.TRADE_CORRECT, exec_id=exec_id, exec_ref_id=of, last=last, last_price=Decimal(price), **stated
    )


def booked(order: Order, updates: Sequence[BrokerUpdate]) -> list[ExecutionEvent]:
    """The entries of all updates, each its own batch, read as accounting reads them and each id once."""
    entries: dict[object, ExecutionEvent] = {}
    for update in updates:
        verdict = judge_update(order, update)
        if not isinstance(verdict, Applied):
            continue
        for entry in execution_ledger.entries(order, verdict.order):
            event = ledger_event(a_position(), a_request(), order, entry)
            read = decode(ExecutionEvent, json.dumps(event_value(event)).encode())
            assert read.event_id not in entries, "an event is published once"
            entries[read.event_id] = read
        order = verdict.order
    return list(entries.values())


def told(events: Sequence[ExecutionEvent]) -> list[tuple[str, str, str | None, str | None, str]]:
    def text(amount: Decimal | None) -> str | None:
        return None if amount is None else f"{amount.normalize():f}"

    return [
        (
            one.event_type.removeprefix("EXECUTION_"),
            one.exec_id,
            text(one.commission),
            text(one.fees),
            text(one.net_amount) or "",
        )
        for one in events
    ]


def sums(events: Sequence[ExecutionEvent]) -> tuple[object, object, object]:
    return (
        sum((one.commission or Decimal(0) for one in events), Decimal(0)),
        sum((one.fees or Decimal(0) for one in events), Decimal(0)),
        sum((one.net_amount or Decimal(0) for one in events), Decimal(0)),
    )


def test_a_commission_that_comes_with_its_trade_is_in_the_entry_of_the_trade() -> None:
    events = booked(working(), [a_trade("e-1", 40, 40, commission=Decimal("1.25"), fees=Decimal("0.02"))])
    assert told(events) == [("RECORDED", "e-1", "1.25", "0.02", "398.73")]


def test_a_trade_without_one_says_nothing_of_commission() -> None:
    assert told(booked(working(), [a_trade("e-1", 40, 40)])) == [("RECORDED", "e-1", None, None, "400")]


def test_one_that_a_later_report_of_the_trade_states_is_an_entry_of_its_own() -> None:
    again = a_trade("e-1", 40, 40, commission=Decimal("1.25"), source=UpdateSource.BACKFILL)
    events = booked(working(), [a_trade("e-1", 40, 40), again, again])
    assert told(events) == [("RECORDED", "e-1", None, None, "400"), ("CHARGED", "e-1", "1.25", "0", "-1.25")]
    assert (events[1].charge_id, events[1].cash_amount) == ("e-1", Decimal(0))


def test_a_bust_takes_back_what_went_with_the_trade_and_leaves_a_charge_of_its_own() -> None:
    trade = a_trade("e-1", 40, 40, commission=Decimal("1.25"))
    updates = [trade, a_charge("f-1", "e-1", fees="0.07"), a_bust("b-1", "e-1"), a_charge("f-2", "e-1", fees="-0.07")]
    assert told(booked(working(), updates)) == [
        ("RECORDED", "e-1", "1.25", "0", "398.75"),
        ("CHARGED", "e-1", "0", "0.07", "-0.07"),
        ("REVERSED", "b-1", "-1.25", "0", "-398.75"),
        ("CHARGED", "e-1", "0", "-0.07", "0.07"),
    ]


def test_a_bust_takes_back_a_commission_that_was_stated_later_too() -> None:
    again = a_trade("e-1", 40, 40, commission=Decimal("1.25"), transact_time=at(5))
    assert sums(booked(working(), [a_trade("e-1", 40, 40), again, a_bust("b-1", "e-1")])) == (0, 0, 0)


@pytest.mark.parametrize(("stated", "commission"), [({}, "1.25"), ({"commission": Decimal("0.9")}, "0.9")])
def test_a_correction_has_the_commission_it_states_else_that_of_the_trade(
    stated: dict[str, Decimal], commission: str
) -> None:
    trade = a_trade("e-1", 40, 40, commission=Decimal("1.25"))
    events = booked(working(), [trade, a_correction("c-1", "e-1", 40, "9", **stated)])
    assert [one[:3] for one in told(events)] == [
        ("RECORDED", "e-1", "1.25"),
        ("REVERSED", "c-1", "-1.25"),
        ("CORRECTED", "c-1", commission),
    ]
    assert sums(events) == (Decimal(commission), 0, 360 - Decimal(commission))


def test_whatever_comes_first_the_books_end_the_same() -> None:
    updates = [
        a_trade("e-1", 40, 40, commission=Decimal("1.25")),
        a_trade("e-2", 20, 60),
        a_correction("c-1", "e-2", 20, "11", commission=Decimal("0.5")),
        a_charge("f-1", "e-1", fees="0.07"),
        a_charge("f-2", "e-2", commission="0.30"),
        a_bust("b-1", "e-1"),
    ]
    orders = list(permutations(updates))
    random.Random(8).shuffle(orders)
    found = {sums(booked(working(), order)) for order in orders[:120]}
    assert found == {(Decimal("0.80"), Decimal("0.07"), Decimal(220) - Decimal("0.87"))}


def test_a_charge_waits_for_its_execution() -> None:
    events = booked(working(), [a_charge("f-1", "e-1", fees="0.07"), a_trade("e-1", 40, 40)])
    assert told(events) == [("RECORDED", "e-1", None, None, "400"), ("CHARGED", "e-1", "0", "0.07", "-0.07")]


def test_a_refund_of_a_bust_is_of_what_it_took_back() -> None:
    trade, bust = a_trade("e-1", 40, 40), a_bust("b-1", "e-1")
    events = booked(working(), [trade, bust, a_charge("f-1", "b-1", fees="-0.07")])
    assert told(events)[-1] == ("CHARGED", "e-1", "0", "-0.07", "0.07")


def test_one_charge_that_comes_twice_is_booked_once_and_with_another_amount_a_person_is_told() -> None:
    order = working(done=40)
    first = judge_update(order, a_charge("f-1", "e1", fees="0.07"))
    assert isinstance(first, Applied)
    assert isinstance(judge_update(first.order, a_charge("f-1", "e1", fees="0.07")), Repeated)
    other = judge_update(first.order, a_charge("f-1", "e1", fees="0.08"))
    assert isinstance(other, Applied)
    assert [one.kind for one in other.incidents] == [IncidentKind.CHARGE_NOT_BOOKED]
    assert other.order.charges == first.order.charges


def test_a_charge_in_another_currency_than_the_position_s_does_not_go_with_the_trade() -> None:
    stated = a_trade("e-1", 40, 40, commission=Decimal(1), currency="EUR")
    update, incidents = in_currency_of(a_position(), working(), stated)
    assert [one.kind for one in incidents] == [IncidentKind.CHARGE_NOT_BOOKED]
    assert told(booked(working(), [update])) == [("RECORDED", "e-1", None, None, "400")]
    alone = an_update(ExecType.CHARGE, exec_id="f-1", exec_ref_id="e-1", fees=Decimal(1), currency="EUR")
    assert in_currency_of(a_position(), working(), alone) == (alone, ())
    assert booked(working(), [update, alone])[-1].currency == "EUR"
