"""What an operator adds to a position's ledger: adjustments with rule Q (P13), and fills that nobody named (R4)."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from closeflow.domain.model import (
    ZERO,
    AssetType,
    Book,
    Order,
    OrderStatus,
    PositionStatus,
    RequestStatus,
    StatementKind,
    UpdateSource,
)
from closeflow.domain.operator.adjust import Adjustment, Fill, adjust, name_fill
from closeflow.domain.operator.requests import Already, Done, Outcome, Refused
from closeflow.domain.orders.judge_update import judge_update
from closeflow.domain.orders.verdicts import Applied
from closeflow.domain.outbox.events import EXECUTION_RECORDED, POSITION_CLOSED
from closeflow.domain.transitions import illegal_moves

from .builders import (
    BROKER,
    NOW,
    REQUEST_ID,
    a_book,
    a_position,
    a_statement,
    a_trade,
    an_execution,
    an_order,
    at,
    canceled,
    working,
)

GAP = an_order(
    statements=(a_statement(StatementKind.CANCELED, 9, 100),),
    executions=(an_execution("e1", 40, 40),),
    broker_order_id="b-1",
)


def adjusted(book: Book, delta: object, expected: object = None, last: Adjustment | None = None) -> Outcome:
    change = Adjustment(delta=Decimal(str(delta)), reason="transfer", by="ann")
    wanted = None if expected is None else Decimal(str(expected))
    outcome = adjust(book, change, expected=wanted, last=last, now=NOW)
    if isinstance(outcome, Done):
        assert list(illegal_moves(book, outcome.book)) == []
        assert outcome.book.ledger_quantity - outcome.book.base_quantity == book.ledger_quantity - book.base_quantity
    return outcome


def standing(*orders: Order, **changes: Any) -> Book:
    book = a_book(*orders, **changes)
    return replace(book, position=replace(book.position, quantity=book.ledger_quantity))


def test_an_adjustment_rounds_nothing() -> None:
    """A fee in kind leaves 18 digits after the point; with Python's own 28 in all, the ledger would not add up."""
    held = Decimal("333333333333333.333333333333333333")
    book = still(asset_type=AssetType.CRYPTO)
    position = replace(book.position, quantity=held, opening_quantity=held)
    outcome = adjusted(replace(book, position=position, base_quantity=held, ledger_quantity=held), "0.5")
    assert isinstance(outcome, Done)
    assert outcome.book.position.quantity == Decimal("333333333333333.833333333333333333")


def still(quantity: int = 100, **changes: Any) -> Book:
    position = a_position(quantity, **{"status": PositionStatus.OPEN, "active_close_request_id": None, **changes})
    return a_book(position=position, requests=[])


@pytest.mark.parametrize(
    ("delta", "quantity", "canceling", "kinds"),
    [
        pytest.param(20, 80, False, ["position_changed_outside"], id="it grew: finish the target"),
        pytest.param(-10, 50, True, ["position_changed_outside", "exposure_above_owed"], id="shrank below exposure"),
        pytest.param(-60, 0, True, ["position_changed_outside", "exposure_above_owed"], id="zero: cancel, then C9"),
        pytest.param(
            -200, -140, True, ["position_changed_outside", "side_changed", "exposure_above_owed"], id="sign changed"
        ),
    ],
)
def test_a_close_under_way_follows_an_adjustment(delta: int, quantity: int, canceling: bool, kinds: list[str]) -> None:
    book = standing(working(100, 40))
    outcome = adjusted(book, delta)
    assert isinstance(outcome, Done)
    (order,) = outcome.book.orders.values()
    assert (outcome.book.position.quantity, outcome.book.position.version) == (Decimal(quantity), 6)
    assert (order.cancel_requested_at is not None, order.status is OrderStatus.PENDING_CANCEL) == (canceling, canceling)
    assert [one.kind for one in outcome.incidents] == kinds
    assert [one.position_version for one in outcome.events] == [6]


def test_an_adjustment_to_zero_closes_a_position_that_nothing_works_on() -> None:
    outcome = adjusted(still(), -100)
    assert isinstance(outcome, Done)
    assert (outcome.book.position.status, outcome.book.position.quantity) == (PositionStatus.CLOSED, ZERO)
    assert [one.event_type for one in outcome.events] == [POSITION_CLOSED]
    pending = adjusted(a_book(status=RequestStatus.PENDING), -100)
    assert isinstance(pending, Done)
    request = pending.book.requests[REQUEST_ID]
    assert (request.status, request.reason) == (RequestStatus.COMPLETED, "externally_closed")


def test_a_side_that_changed_with_nothing_at_work_fails_the_close() -> None:
    outcome = adjusted(a_book(status=RequestStatus.PENDING), -150)
    assert isinstance(outcome, Done)
    request = outcome.book.requests[REQUEST_ID]
    assert (request.status, request.reason) == (RequestStatus.FAILED, "side_changed")


def test_a_repeated_adjustment_changes_nothing() -> None:
    last = Adjustment(delta=Decimal(-20), reason="transfer", by="ann")
    assert isinstance(adjusted(still(), -20, expected=100), Done)
    assert isinstance(adjusted(still(80), -20, expected=100, last=last), Already)
    assert isinstance(adjusted(still(80), -20, expected=100, last=replace(last, by="bob")), Refused)
    assert isinstance(adjusted(still(90), -20, expected=100), Refused)


@pytest.mark.parametrize(
    ("book", "delta", "told"),
    [
        pytest.param(still(), 0, "other than 0", id="nothing"),
        pytest.param(still(), "NaN", "other than 0", id="no number"),
        pytest.param(still(), "0.0000000001", "at most 9 digits", id="less than a billionth"),
        pytest.param(still(asset_type=AssetType.OPTION), "0.5", "at most 0 digits", id="half a contract"),
        pytest.param(still(overfill_of=3), 1, "adjust that one", id="a derived position"),
        (still(100), 10**15 - 100, "none can be told of that large"),
        (still(-100), 100 - 10**15, "none can be told of that large"),
    ],
)
def test_what_is_no_adjustment(book: Book, delta: object, told: str) -> None:
    outcome = adjusted(book, delta)
    assert isinstance(outcome, Refused)
    assert told in outcome.reasons[0]


def a_fill(exec_id: str = "op-1", quantity: int = 60, **changes: Any) -> Fill:
    fill = Fill(
        broker=BROKER,
        exec_id=exec_id,
        quantity=Decimal(quantity),
        price=Decimal(10),
        occurred_at=at(9),
        cum_quantity=Decimal(100),
    )
    return replace(fill, **changes)


def named(book: Book, fill: Fill, taken_by: str | None = None) -> Outcome:
    (order,) = book.orders.values()
    return name_fill(book, order, fill, taken_by=taken_by, now=at(10))


def test_an_operators_execution_closes_a_gap_and_is_booked_as_any_other() -> None:
    book = standing(GAP)
    outcome = named(book, a_fill())
    assert isinstance(outcome, Done)
    assert list(illegal_moves(book, outcome.book)) == []
    (order,) = outcome.book.orders.values()
    assert (order.status, order.executed_quantity, order.executions[-1].source) == (
        OrderStatus.FILLED,
        Decimal(100),
        UpdateSource.OPERATOR,
    )
    assert outcome.book.requests[REQUEST_ID].status is RequestStatus.COMPLETED
    assert outcome.book.position.status is PositionStatus.CLOSED
    assert [one.event_type for one in outcome.events] == [EXECUTION_RECORDED, POSITION_CLOSED]
    assert isinstance(named(outcome.book, a_fill()), Already)


def test_what_has_not_passed_by_the_databases_clock_is_no_execution() -> None:
    """Whatever the clock of the operator's host shows."""
    outcome = named(standing(GAP), a_fill(occurred_at=at(10 + 301)))
    assert isinstance(outcome, Refused)
    assert "has not passed by the database's clock" in outcome.reasons[0]
    assert isinstance(named(standing(GAP), a_fill(occurred_at=at(10 + 299))), Done)


def test_an_operators_execution_may_be_for_nothing() -> None:
    outcome = named(standing(GAP), a_fill(price=Decimal(0)))
    assert isinstance(outcome, Done)
    (order,) = outcome.book.orders.values()
    assert (order.status, order.executions[-1].price) == (OrderStatus.FILLED, Decimal(0))


@pytest.mark.parametrize(
    ("order", "fill", "told"),
    [
        pytest.param(GAP, a_fill(quantity=61), "60 of it filled without a name", id="more than the gap"),
        pytest.param(canceled(100, 40), a_fill(), "every fill that is known has its name", id="no gap"),
        pytest.param(GAP, a_fill("e1"), "is booked: 40 @ 10", id="an id that is booked with other content"),
        pytest.param(GAP, a_fill(price=Decimal("-0.01")), "not be below 0", id="less than nothing"),
        pytest.param(GAP, a_fill(cum_quantity=Decimal(101)), "--cum 101", id="more than the broker states"),
    ],
)
def test_what_is_not_booked_by_hand(order: Order, fill: Fill, told: str) -> None:
    outcome = named(standing(order), fill)
    assert isinstance(outcome, Refused)
    assert told in outcome.reasons[0]


def test_an_execution_of_another_order_is_not_booked_here() -> None:
    outcome = named(standing(GAP), a_fill(), taken_by="cf-other-1")
    assert isinstance(outcome, Refused)
    assert "cf-other-1" in outcome.reasons[0]


@pytest.mark.parametrize("source", [UpdateSource.STREAM, UpdateSource.BACKFILL])
def test_the_same_fill_that_a_feed_brings_later_is_not_booked_again(source: UpdateSource) -> None:
    outcome = named(standing(GAP), a_fill())
    assert isinstance(outcome, Done)
    (order,) = outcome.book.orders.values()
    verdict = judge_update(order, a_trade("theirs", 60, 100, source=source))
    assert isinstance(verdict, Applied)
    assert (verdict.execution, verdict.order.aliases) == (None, {"theirs": "op-1"})
