"""The rows that records make, in whatever order and however often they come."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from records import NOW, asked, at, close_id, executed, heard, over, position

from close_board.read_model import FINISHED_KEPT, ReadModel, Record, Unreadable
from closeflow.domain.enums import RequestStatus


def made_of(*records: Record) -> ReadModel:
    model = ReadModel()
    for record in records:
        model.apply(record)
    return model


def told(model: ReadModel) -> dict[str, Any]:
    """All that is shown."""
    return {
        "closes": {key: asdict(one) for key, one in model.closes.items()},
        "open": set(model.open),
        "left": {key: one.id for key, one in model.left.items()},
        "counts": {key: n for key, n in model.counts.items() if n},
        "latencies": sorted(model.latencies),
    }


def test_a_close_is_as_the_newest_version_of_its_position_says() -> None:
    model = made_of(position(1), position(2, filled_qty=Decimal(4)), position(1))
    close = model.open[close_id(1)]
    assert (close.filled, close.accepted_at, close.changed_at) == (Decimal(4), at(1), at(2))
    assert model.counts == {("A", RequestStatus.PENDING): 1}


def test_a_close_that_is_over_is_counted_and_timed() -> None:
    model = made_of(position(1), over(5))
    assert (model.open, model.left) == ({}, {})
    assert model.latencies == [(at(5), "A", 4.0)]
    assert +model.counts == {("A", RequestStatus.COMPLETED): 1}


def test_a_failed_close_whose_position_is_held_is_left_until_somebody_decides() -> None:
    model = made_of(position(1), over(2, "failed"))
    assert [one.id for one in model.left.values()] == [close_id(1)]
    model.apply(position(3, close=None, position_status="open"))
    assert model.left == {}


def test_what_other_topics_say_is_kept_until_the_close_is_there() -> None:
    close = made_of(heard(seconds=2), executed(seconds=3), asked(1), position(1)).closes[close_id(1)]
    assert close.heard is not None
    assert (close.heard.acknowledged, close.attempt, close.last_fill_at) == (True, 1, at(3))
    assert close.moved_at == at(3)


def test_the_broker_is_heard_about_the_newest_order() -> None:
    old, new = heard("canceled", seconds=9), heard(attempt=2, seconds=4)
    for records in ((old, new), (new, old)):
        word = made_of(position(1), *records).closes[close_id(1)].heard
        assert word is not None
        assert (word.attempt, word.at) == (2, at(4))


def test_an_order_stays_acknowledged_when_another_word_lacks_its_id() -> None:
    named, nameless = heard(seconds=2), heard("order_status", seconds=3, broker_order_id=None)
    for records in ((named, nameless), (nameless, named)):
        word = made_of(position(1), *records).closes[close_id(1)].heard
        assert word is not None
        assert (word.acknowledged, word.at) == (True, at(3))


def test_a_new_close_ends_the_one_before_whose_end_was_not_read() -> None:
    model = made_of(position(1), position(3, close=2))
    assert set(model.open) == {close_id(2)}
    assert +model.counts == {("A", RequestStatus.PENDING): 1}


def test_a_position_that_is_open_again_has_no_close_at_work() -> None:
    assert made_of(position(1), position(2, close=None, position_status="open")).open == {}


def test_a_late_fill_of_an_earlier_close_leaves_the_one_at_work() -> None:
    model = made_of(position(1), over(2, "failed"), position(3, close=2), over(4, position_status="closing"))
    assert set(model.open) == {close_id(2)}
    assert model.closes[close_id(1)].status is RequestStatus.COMPLETED


@pytest.mark.parametrize("seed", range(20))
def test_order_and_repetition_between_topics_change_nothing(seed: int) -> None:
    """Of one position the versions come in order, each for the first time after all lower ones; the rest is free."""
    drawn = random.Random(seed)
    of_positions: list[Sequence[Record]] = [
        [position(1), position(2, filled_qty=Decimal(4)), over(3)],
        [position(1, of=2, close=2), position(2, of=2, close=2, position_status="close_retryable")],
        [position(1, of=3, close=3), over(2, "failed", of=3, close=3)],
    ]
    free: list[Record] = [heard(), heard("trade", seconds=4, exec_id="x", last_qty=Decimal(1), last_px=Decimal(1))]
    free += [asked(1), asked(2, close=2), heard(close=2, attempt=2), executed(), executed(seconds=5)]
    expected = told(made_of(*[one for some in of_positions for one in some], *free))
    left, come = [list(some) for some in of_positions], []
    while any(left):
        some = drawn.choice([one for one in left if one])
        come.append(some.pop(0))
        if drawn.random() < 0.5:
            come.append(drawn.choice(come))
    for one in [*free, *free]:
        come.insert(drawn.randrange(len(come) + 1), one)
    assert told(made_of(*come)) == expected


def unreadable(position_id: int | None = 1) -> Unreadable:
    return Unreadable("position-events", 0, 7, NOW, "bad_json", "no JSON", position_id)


def test_a_record_that_cannot_be_read_is_counted_until_the_next_version_agrees_again() -> None:
    model = made_of(position(1))
    before = told(model)
    model.refuse(unreadable())
    assert told(model) == before
    assert (model.unreadable.total(), set(model.doubted)) == (1, {1})
    model.apply(over(3))  # Version 2 was the one that could not be read.
    assert (model.unreadable.total(), model.doubted) == (1, {})
    assert told(model) == told(made_of(position(1), over(3)))


def test_what_is_over_is_forgotten_after_a_day_and_what_is_open_never() -> None:
    model = made_of(position(1), over(2), asked(1), position(1, of=2, close=2), heard(close=9))
    model.forget(at(2) + FINISHED_KEPT)
    assert set(model.closes) == {close_id(1), close_id(2)}
    model.forget(at(3) + FINISHED_KEPT + timedelta(seconds=1))
    assert set(model.closes) == {close_id(2)}
    assert model.latencies == []
    assert +model.counts == {("A", RequestStatus.PENDING): 1}
