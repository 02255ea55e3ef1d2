"""One fill under two names: known as one where the figures allow it, and never booked twice in silence (rule R3a)."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from closeflow.domain.close.apply_update import apply_update
from closeflow.domain.model import BrokerStatus, BrokerUpdate, ExecType, Order, UpdateSource
from closeflow.domain.operator.adjust import Fill, name_fill
from closeflow.domain.operator.requests import Done
from closeflow.domain.orders import status as order_status
from closeflow.domain.orders.judge_update import judge_update
from closeflow.domain.orders.verdicts import Applied, Quarantined

from .builders import BROKER, REQUEST_ID, a_book, a_trade, an_update, at, working

B, E = BrokerStatus, ExecType
ABOVE = "executed_above_stated"
NEW = an_update(E.NEW, B.NEW, cum=0, seq=1, transact_time=at(0))
STREAMED = a_trade("s1", 40, 40, order_status=B.PARTIALLY_FILLED, seq=2)
CANCELED = an_update(E.CANCELED, B.CANCELED, cum=40, seq=3, transact_time=at(9))
FILLED = a_trade("s2", 60, 100, order_status=B.FILLED, seq=3, transact_time=at(9))
BUST = an_update(E.TRADE_CANCEL, B.NEW, cum=0, seq=5, exec_id="x1", exec_ref_id="s1", transact_time=at(20))


def listed(exec_id: str = "a1", quantity: int = 40, cum: int | None = None, **changes: object) -> BrokerUpdate:
    return a_trade(exec_id, quantity, cum, source=UpdateSource.BACKFILL, **changes)


def told(order: Order, *updates: BrokerUpdate) -> tuple[Order, list[str]]:
    """The order after these updates, and the kinds of incidents that they raised."""
    kinds: list[str] = []
    for update in updates:
        verdict = judge_update(order, update)
        if isinstance(verdict, Applied):
            order = verdict.order
            kinds += [one.kind for one in verdict.incidents]
    return order, kinds


ONE_FILL: dict[str, tuple[BrokerUpdate, ...]] = {
    "an activity without a cumulative quantity": (STREAMED, listed()),
    "the same, before the stream's report": (listed(), STREAMED),
    "the price with more zeros": (STREAMED, listed(cum=40, last_price=Decimal("10.000"))),
    "the quantity with more zeros": (STREAMED, listed(cum=40, last_quantity=Decimal("40.0"))),
    "of two alike at nearly one time, each has its own": (
        STREAMED,
        a_trade("s2", 40, 80, seq=3, order_status=B.PARTIALLY_FILLED, transact_time=at(2.5)),
        listed("a2", transact_time=at(2.5)),
        listed("a1"),
    ),
    "of two alike, the one of that time": (
        STREAMED,
        a_trade("s2", 40, 80, seq=3, order_status=B.PARTIALLY_FILLED, transact_time=at(9)),
        listed("a2", transact_time=at(9)),
        listed("a1"),
    ),
}


@pytest.mark.parametrize("updates", ONE_FILL.values(), ids=ONE_FILL.keys())
def test_what_two_feeds_say_of_one_fill_is_one_execution(updates: tuple[BrokerUpdate, ...]) -> None:
    order, kinds = told(working(), *updates)
    assert (order_status.executed(order), kinds) == (order.stated_cum_quantity, [])
    assert len(order.executions) == len(updates) - len(order.aliases)
    assert {("a2", "s2"), ("a1", "s1"), ("s1", "a1")}.issuperset(order.aliases.items())


TOLD_BEFORE: dict[str, tuple[BrokerUpdate, ...]] = {
    "another price, then the end": (STREAMED, listed(cum=40, last_price=Decimal("10.01")), CANCELED),
    "the end, then another price": (STREAMED, CANCELED, listed(cum=40, last_price=Decimal("10.01"))),
    "no cumulative quantity, at another time": (STREAMED, CANCELED, listed(transact_time=at(5))),
    "the same of a filled order": (STREAMED, FILLED, listed(transact_time=at(5))),
    "the same of a living order of which something newer was said": (
        STREAMED,
        an_update(E.ORDER_STATUS, B.PARTIALLY_FILLED, cum=40, seq=3, transact_time=at(9)),
        listed(transact_time=at(5)),
    ),
    "another quantity": (STREAMED, listed(quantity=39, cum=40)),
    "after its bust, at another time": (STREAMED, BUST, listed(cum=40, transact_time=at(3.2))),
    "after its bust, at a time after that": (STREAMED, BUST, listed(cum=40, transact_time=at(99))),
    "after the bust of the second": (
        a_trade("s1", 50, 50, order_status=B.PARTIALLY_FILLED, seq=2),
        a_trade("s2", 50, 100, order_status=B.FILLED, seq=3, transact_time=at(9)),
        an_update(E.TRADE_CANCEL, B.CANCELED, cum=50, seq=5, exec_id="x1", exec_ref_id="s2", transact_time=at(20)),
        listed("a2", 50, 100, transact_time=at(15)),
        listed("a1", 50, 50, transact_time=at(12)),
    ),
    "a snapshot ahead of its fill": (
        a_trade("s1", 4, 10, order_status=B.PARTIALLY_FILLED, seq=2),
        a_trade("s2", 6, 10, order_status=B.PARTIALLY_FILLED, seq=2),
        listed("a1", 4, 4),
        listed("a2", 6, 10),
    ),
}


@pytest.mark.parametrize("updates", TOLD_BEFORE.values(), ids=TOLD_BEFORE.keys())
def test_what_another_feed_may_have_told_is_not_booked_beyond_what_the_broker_states(
    updates: tuple[BrokerUpdate, ...],
) -> None:
    order, kinds = told(working(), *updates)
    assert order_status.executed(order) == order.stated_cum_quantity
    assert order_status.unattributed(order) == 0
    assert ABOVE not in kinds


TWICE: dict[str, tuple[BrokerUpdate, ...]] = {
    "one feed names it twice": (STREAMED, CANCELED, a_trade("s2", 40, 40, seq=2)),
    "a statement after it says less": (
        STREAMED,
        an_update(E.ORDER_STATUS, B.PARTIALLY_FILLED, cum=10, seq=3, transact_time=at(9)),
        a_trade("s2", 20, 40, seq=2, order_status=B.PARTIALLY_FILLED),
        CANCELED,
    ),
    "a statement newer than the last bust says less": (
        STREAMED,
        a_trade("s2", 60, 100, order_status=B.FILLED, seq=3, transact_time=at(9)),
        an_update(E.TRADE_CANCEL, B.CANCELED, cum=40, seq=5, exec_id="x1", exec_ref_id="nobody", transact_time=at(20)),
        an_update(E.ORDER_STATUS, B.CANCELED, cum=40, seq=6, transact_time=at(21)),
    ),
}


@pytest.mark.parametrize("updates", TWICE.values(), ids=TWICE.keys())
def test_a_fill_that_is_booked_twice_opens_one_incident_and_freezes(updates: tuple[BrokerUpdate, ...]) -> None:
    order, kinds = told(working(), *updates)
    assert order_status.executed(order) > order.stated_cum_quantity
    assert kinds.count(ABOVE) == 1
    before, _ = told(working(), *updates[:-1])
    verdict = judge_update(before, updates[-1])
    assert isinstance(verdict, Applied)
    frozen = apply_update(a_book(before), before, verdict).requests[REQUEST_ID]
    assert frozen.frozen_reason == ABOVE or ABOVE not in [one.kind for one in verdict.incidents]


def test_a_fill_that_may_be_told_already_is_booked_once_the_broker_states_both() -> None:
    second = listed("a2", transact_time=at(9))
    order, _ = told(working(), STREAMED, an_update(E.ORDER_STATUS, B.PARTIALLY_FILLED, cum=80, seq=3), second)
    assert (order_status.executed(order), order_status.unattributed(order)) == (Decimal(40), Decimal(40))
    order, kinds = told(order, listed("a1"))
    assert (order_status.executed(order), order_status.unattributed(order), kinds) == (Decimal(80), Decimal(0), [])
    assert order.withheld == ()


def test_of_an_order_that_a_split_multiplied_no_more_is_booked_than_was_ours() -> None:
    resting = told(working(15), NEW)[0]
    order, _ = told(resting, listed("a1", 15, 15), listed("a2", 45, 60))
    assert (order_status.executed(order), order_status.unattributed(order)) == (Decimal(15), Decimal(45))
    more = an_update(E.ORDER_STATUS, B.FILLED, cum=60, seq=3, order_quantity=Decimal(60))
    assert isinstance(judge_update(order, more), Quarantined)
    # An order of our quantity that is said to be filled by more is an overfill (P12), and never dropped.
    order, _ = told(order, replace(more, order_quantity=Decimal(15)))
    assert (order_status.executed(order), order_status.unattributed(order)) == (Decimal(60), Decimal(0))


HONEST: dict[str, tuple[BrokerUpdate, ...]] = {
    "a fill newer than every statement": (NEW, STREAMED),
    "one that states nothing and is newer": (NEW, listed(transact_time=at(5))),
    "the same, though that a cancel was refused was heard later": (
        an_update(E.CANCEL_REJECTED, B.NEW, cum=0, seq=2, transact_time=at(1), received_at=at(99)),
        listed(transact_time=at(5)),
    ),
    "nothing states a quantity": (an_update(E.NEW, B.NEW), listed()),
    "an end that overtook the last fill": (CANCELED, STREAMED),
    "a fill after the end": (
        an_update(E.CANCELED, B.CANCELED, cum=0, seq=9),
        a_trade("late", 40, 40, seq=8, order_status=B.PARTIALLY_FILLED),
    ),
    "the second fill before the first": (
        a_trade("s2", 20, 60, seq=3, order_status=B.PARTIALLY_FILLED, transact_time=at(4)),
        STREAMED,
    ),
    "a bust before its trade": (BUST, STREAMED),
    "a bust of a name that comes later": (listed(cum=40), BUST, STREAMED),
    "a fill after the bust": (
        STREAMED,
        BUST,
        a_trade("s2", 40, 40, seq=6, order_status=B.PARTIALLY_FILLED, transact_time=at(30)),
    ),
    "two busts of fills that one feed each told, the second before the first": (
        STREAMED,
        listed("a2", 20, 60, transact_time=at(4)),
        an_update(
            E.TRADE_CANCEL,
            None,
            cum=0,
            exec_id="y2",
            exec_ref_id="a2",
            transact_time=at(21),
            source=UpdateSource.BACKFILL,
        ),
        an_update(E.TRADE_CANCEL, B.NEW, cum=20, seq=5, exec_id="x1", exec_ref_id="s1", transact_time=at(20)),
    ),
    "two busts, the second before the first": (
        STREAMED,
        a_trade("s2", 20, 60, seq=3, order_status=B.PARTIALLY_FILLED, transact_time=at(4)),
        an_update(E.TRADE_CANCEL, B.NEW, cum=0, seq=6, exec_id="x2", exec_ref_id="s2", transact_time=at(21)),
        an_update(E.TRADE_CANCEL, B.NEW, cum=20, seq=5, exec_id="x1", exec_ref_id="s1", transact_time=at(20)),
    ),
}


@pytest.mark.parametrize("updates", HONEST.values(), ids=HONEST.keys())
def test_what_a_broker_says_late_or_early_is_not_too_much(updates: tuple[BrokerUpdate, ...]) -> None:
    _, kinds = told(working(statements=()), *updates)
    assert ABOVE not in kinds


def by_hand(order: Order, exec_id: str, quantity: int, cum: int | None = None) -> Order:
    fill = Fill(
        broker=BROKER,
        exec_id=exec_id,
        quantity=Decimal(quantity),
        price=Decimal(10),
        occurred_at=None,
        cum_quantity=None if cum is None else Decimal(cum),
    )
    outcome = name_fill(a_book(order), order, fill, taken_by=None, now=at(50))
    assert isinstance(outcome, Done), outcome
    return outcome.book.orders[order.client_order_id]


@pytest.mark.parametrize("cum", [None, 40], ids=["without --cum", "with --cum"])
@pytest.mark.parametrize(
    "later",
    [(STREAMED,), (listed("a1", 40, 40),), (STREAMED, listed("a1", 40, 40)), (listed("a1"), STREAMED)],
    ids=["the stream", "the activities", "both", "the activities without a cumulative quantity, and the stream"],
)
def test_a_fill_that_an_operator_named_is_not_booked_again_when_a_feed_names_it(
    later: tuple[BrokerUpdate, ...], cum: int | None
) -> None:
    order, _ = told(working(), CANCELED)
    order, kinds = told(by_hand(order, "op-1", 40, cum), *later)
    assert (order_status.executed(order), kinds) == (Decimal(40), [])


def test_another_fill_of_the_same_figures_is_not_the_one_that_an_operator_named() -> None:
    order, _ = told(working(), an_update(E.ORDER_STATUS, B.PARTIALLY_FILLED, cum=40, seq=3))
    second = a_trade("s2", 40, 80, seq=4, order_status=B.PARTIALLY_FILLED, transact_time=at(9))
    order, kinds = told(by_hand(order, "op-1", 40), second, STREAMED)
    assert (order_status.executed(order), order_status.unattributed(order), kinds) == (Decimal(80), Decimal(0), [])
