"""What the broker did without a trade ends a position only where everything agrees; else it is told, or waits."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any, Final

import pytest

from closeflow.domain.model import Book, PositionStatus
from closeflow.domain.operator.adjust import Ending
from closeflow.domain.operator.non_trade_activity import (
    Ends,
    NonTrade,
    Passed,
    Told,
    Waits,
    apply_activity,
    concerns,
    judge,
    spellings,
)

from .builders import NOW, a_book, a_position, working

DAY: Final = date(2026, 3, 20)
OPTION: Final = "AAPL260320C00200000"


def an_activity(**changes: Any) -> NonTrade:
    said = NonTrade(
        activity_id="20260321::a", kind="OPEXP", symbol=OPTION, quantity=Decimal(-100), day=DAY, ending=Ending.EXPIRED
    )
    return replace(said, **changes)


def holding(**position: Any) -> Book:
    """A position of 100 that nobody closes."""
    idle = replace(a_position(), status=PositionStatus.OPEN, active_close_request_id=None, **position)
    return a_book(position=idle, requests=[])


def judged(activity: NonTrade, *books: Book, at_broker: int | None = 0) -> object:
    return judge(activity, books, at_broker=None if at_broker is None else Decimal(at_broker))


@pytest.mark.parametrize("ending", [Ending.EXPIRED, Ending.ASSIGNED, Ending.EXERCISED])
@pytest.mark.parametrize("status", [None, "executed"])
def test_what_took_away_all_that_we_hold_ends_it(ending: Ending, status: str | None) -> None:
    assert judged(an_activity(ending=ending, status=status), holding()) == Ends(ending)


@pytest.mark.parametrize(
    ("changes", "at_broker"),
    [
        ({"quantity": Decimal(-40)}, 60),
        ({"quantity": Decimal(-40)}, 0),
        ({"quantity": Decimal(-140)}, 0),
        ({"quantity": Decimal(100)}, 0),
        ({"quantity": None}, 0),
        ({"status": "correct"}, 0),
        ({"status": "canceled"}, 0),
        ({}, 30),
        ({}, -100),
        ({"ending": Ending.REORGANIZED, "quantity": Decimal(300)}, 400),
        ({"ending": Ending.REORGANIZED}, 0),
        ({"ending": None}, 0),
    ],
)
def test_anything_else_that_leaves_a_difference_is_for_a_person(changes: dict[str, Any], at_broker: int) -> None:
    verdict = judged(an_activity(**changes), holding(), at_broker=at_broker)
    assert isinstance(verdict, Told)
    assert f"position {holding().position.id} has 100, the broker holds {at_broker}" in verdict.why
    assert "`closectl positions " in verdict.why


def test_a_split_of_what_we_hold_is_told_although_it_is_being_closed() -> None:
    activity = an_activity(ending=Ending.REORGANIZED, quantity=Decimal(300))
    assert isinstance(judged(activity, a_book(working()), at_broker=400), Told)


@pytest.mark.parametrize("ending", [Ending.EXPIRED, Ending.REORGANIZED, None])
def test_nothing_is_done_while_the_broker_holds_what_we_do(ending: Ending | None) -> None:
    """What was imported holds it already, or the broker books it in a moment."""
    assert judged(an_activity(ending=ending), holding(), at_broker=100) == Passed()


@pytest.mark.parametrize(
    "book",
    [
        pytest.param(a_book(status="pending"), id="a close is pending"),
        pytest.param(a_book(working()), id="an order works"),
        pytest.param(holding(exposure_unproven=True), id="exposure is unproven"),
        pytest.param(holding(overfill_of=7), id="it holds an overfill"),
        pytest.param(replace(holding(), orders=a_book(working()).orders), id="an order outlives its close"),
        pytest.param(replace(holding(), requests=a_book(frozen_reason="gap", status="failed").requests), id="frozen"),
    ],
)
def test_a_position_never_ends_while_something_of_it_is_under_way(book: Book) -> None:
    assert isinstance(judged(an_activity(), book), Waits)


def test_it_waits_while_the_brokers_holding_cannot_be_read() -> None:
    assert isinstance(judged(an_activity(), holding(), at_broker=None), Waits)


def test_what_we_hold_none_of_is_passed_over() -> None:
    assert judged(an_activity()) == Passed()


@pytest.mark.parametrize(
    ("changes", "opened", "answer"),
    [
        ({}, [], False),
        ({}, [DAY], True),
        ({}, [date(2026, 3, 21)], False),
        ({}, [date(2026, 3, 21), date(2026, 3, 19)], True),
        ({"day": None}, [DAY], True),
        ({"money_only": True}, [DAY], False),
        ({"money_only": True, "symbol": None}, [], False),
        ({"kind": "JNLS", "symbol": None, "quantity": None}, [], False),
        ({"kind": "JNLS", "symbol": None}, [], True),
        ({"kind": "", "symbol": None, "quantity": None}, [], True),
    ],
)
def test_what_concerns_us(changes: dict[str, Any], opened: list[date], answer: bool) -> None:
    assert concerns(an_activity(**changes), opened) is answer


def test_one_that_does_not_say_of_what_it_is_is_told() -> None:
    assert isinstance(judged(an_activity(symbol=None)), Told)


def test_a_crypto_pair_is_found_without_its_slash() -> None:
    assert spellings("ETHUSDT") == {"ETHUSDT", "ETH/USDT"}
    assert spellings("AAPL") == {"AAPL"}


@pytest.mark.parametrize(
    ("changes", "at_broker", "verdict", "told"),
    [
        pytest.param({}, 0, Ends, [], id="it ends all of them, with an adjustment each"),
        pytest.param({"ending": None}, 0, Told, [("non_trade_activity", "critical")], id="a person is told"),
        pytest.param({}, None, Waits, [("non_trade_activity_waits", "warning")], id="it waits"),
        pytest.param({}, 100, Passed, [], id="nothing differs"),
    ],
)
def test_an_activity_becomes_what_is_written(
    changes: dict[str, Any], at_broker: int | None, verdict: type, told: list[tuple[str, str]]
) -> None:
    book = holding()
    there = None if at_broker is None else Decimal(at_broker)
    activity = an_activity(**changes)
    result = apply_activity(activity, {book.position.id: book}, subject="a/1", at_broker=there, by="x", now=NOW)
    assert isinstance(result.verdict, verdict)
    assert [(one.kind, one.severity) for one in result.incidents] == told
    assert {one.subject for one in result.incidents} <= {"a/1"}
    ends = verdict is Ends
    assert [one.delta for one in result.adjustments.values()] == [Decimal(-100)] * ends
    assert [after.position.status for _, after in result.changes] == [PositionStatus.CLOSED] * ends
