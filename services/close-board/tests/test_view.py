"""What one viewer is shown, and which closes are stuck."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import pytest
from records import NOW, asked, at, close_id, heard, over, position

from close_board.asked import Wait
from close_board.read_model import ReadModel, Record, Unreadable
from close_board.view import ROWS_SHOWN, Board, Sees, Stage, Stuck, look, stage_of, stuck

STILL: Final = timedelta(seconds=30)


def everyone(_: str | None) -> bool:
    return True


def only_a(account: str | None) -> bool:
    return account == "A"


def made_of(*records: Record) -> ReadModel:
    model = ReadModel()
    for record in records:
        model.apply(record)
    return model


def board(model: ReadModel, sees: Sees = everyone, *, now: datetime = NOW) -> Board:
    return look(model, sees, now=now, still_after=STILL)


def found(model: ReadModel, *waits: Wait, now: datetime, sees: Sees = everyone) -> Stuck:
    by_id = {one.close.id: one for one in waits}
    return stuck(board(model, sees, now=now), model, by_id, sees, now=now, still_after=STILL)


def a_wait(n: int, stuck_from: datetime, *, account: str = "A") -> Wait:
    close = made_of(position(1, of=n, close=n, account_id=account)).closes[close_id(n)]
    return Wait(close, "quote", "a price", at(1), stuck_from, "market", "planned again", at(40), "closectl show 1")


STAGES: Final[list[tuple[Stage, list[Record]]]] = [
    (Stage.ACCEPTED, []),
    (Stage.ASKED, [asked(1)]),
    (Stage.ASKED, [asked(1), heard("order_status", broker_order_id=None)]),
    (Stage.AT_BROKER, [asked(1), heard()]),
    (Stage.ASKED, [asked(2), heard()]),
    (Stage.FILLING, [heard(), position(2, filled_qty=Decimal(4), close_request_status="submitted")]),
    (Stage.RETRYABLE, [position(2, close_request_status="retryable", position_status="close_retryable")]),
    (Stage.COMPLETED, [over(2)]),
    (Stage.FAILED, [over(2, "failed")]),
]


@pytest.mark.parametrize(("stage", "records"), STAGES)
def test_a_close_is_at_one_stage(stage: Stage, records: list[Record]) -> None:
    model = made_of(position(1), *records)
    assert stage_of(model.closes[close_id(1)]) is stage
    assert [name for name, count in board(model).funnel if count] == [stage]


def test_a_viewer_sees_only_his_accounts() -> None:
    model = made_of(position(1), position(1, of=2, close=2, account_id="B"), over(2, of=3, close=3, account_id="B"))
    model.refuse(Unreadable("position-events", 0, 7, NOW, "bad_json", "no JSON", None))
    seen = board(model, only_a, now=at(100))
    assert (seen.open_total, seen.still_total, [one.id for one in seen.still]) == (1, 1, [close_id(1)])
    assert (seen.unreadable_total, seen.unreadable, seen.latency) == (0, (), None)
    assert dict(seen.funnel)[Stage.COMPLETED] == 0
    assert board(model, now=at(100)).unreadable_total == 1
    waits = [a_wait(2, at(1), account="B"), a_wait(9, at(1), account="B")]
    assert [row.close.id for row in found(model, *waits, now=at(100), sees=only_a).rows] == [close_id(1)]


STUCK: Final[dict[str, tuple[list[Record], list[Wait], float, list[tuple[bool, bool]]]]] = {
    "it is said to be at work": ([position(1)], [a_wait(1, at(90))], 60, []),
    "it is said to be stuck": ([position(1)], [a_wait(1, at(5))], 6, [(True, True)]),
    "nothing was told and it moves": ([position(1)], [], 20, []),
    "nothing was told and it is still": ([position(1)], [], 31, [(False, True)]),
    "it is over by now": ([position(1), over(2)], [a_wait(1, at(1))], 60, []),
    "it is not published": ([], [a_wait(1, at(5))], 6, [(True, False)]),
    "it failed and is held": ([position(1), over(2, "failed")], [], 3, [(False, True)]),
}


@pytest.mark.parametrize(("records", "waits", "seconds", "rows"), STUCK.values(), ids=STUCK.keys())
def test_what_is_stuck(records: list[Record], waits: list[Wait], seconds: float, rows: Any) -> None:
    told = found(made_of(*records), *waits, now=at(seconds))
    assert [(row.wait is not None, row.published) for row in told.rows] == rows
    assert told.total == len(rows)


def test_the_oldest_are_shown_first_and_all_are_counted() -> None:
    many = ROWS_SHOWN + 50
    records = [position(1, of=n, close=n, occurred_at=at(-n)) for n in range(1, many + 1)]
    told = found(made_of(*records), a_wait(many, at(0)), a_wait(many - 1, at(1000)), now=at(100))
    assert told.total == many - 1
    assert [row.close.position_id for row in told.rows[:3]] == [many, many - 2, many - 3]
    assert len(told.rows) == ROWS_SHOWN


def test_latency_is_of_what_was_completed_in_the_last_hour() -> None:
    model = made_of(*(one for n in range(1, 21) for one in (position(1, of=n, close=n), over(1 + n, of=n, close=n))))
    latency = board(model, now=at(100)).latency
    assert latency is not None
    assert (latency.count, latency.median_s) == (20, 10.5)
    assert latency.p95_s == pytest.approx(19.05)
    assert board(model, now=at(4000)).latency is None
