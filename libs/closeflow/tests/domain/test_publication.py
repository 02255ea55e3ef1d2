"""The publication audit's decision (invariant 14)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import pytest

from closeflow.domain.publication import Judged, OutboxRow, judge_publication

from .builders import at

WITHIN = timedelta(seconds=30)


def row(number: int, *, xact: int, seconds: float = 0) -> OutboxRow:
    return OutboxRow((UUID(int=number), 1), 41, xact, at(seconds))


def judged(rows: Sequence[OutboxRow], seen: set[int], *, now: float, complete: bool = True) -> Judged:
    keys = {(UUID(int=number), 1) for number in seen}
    return judge_publication(rows, keys, through=10, below=20, complete=complete, now=at(now), publish_within=WITHIN)


A, B, C = row(1, xact=10), row(2, xact=10), row(3, xact=12)


@pytest.mark.parametrize(
    ("rows", "seen", "now", "complete", "expected"),
    [
        pytest.param([], set(), 0, True, Judged(20, ()), id="nothing written: the mark goes to the snapshot's xmin"),
        pytest.param([A, B, C], {1, 2, 3}, 1, True, Judged(20, ()), id="everything is published"),
        pytest.param([A, B, C], {1, 2}, 1, True, Judged(12, ()), id="the mark waits for a young row"),
        pytest.param([A, B, C], {1, 3}, 31, True, Judged(20, (B,)), id="an old row that is not there is missing"),
        pytest.param(
            [A, row(2, xact=10, seconds=29)], set(), 31, True, Judged(10, ()), id="a transaction is judged as a whole"
        ),
        pytest.param([A, B, C], {1, 2, 3}, 1, False, Judged(12, ()), id="more rows may follow: the last is kept back"),
        pytest.param([A, C], {3}, 31, False, Judged(12, (A,)), id="missing below the mark is reported once"),
        pytest.param([A, B], set(), 31, False, Judged(10, ()), id="a transaction larger than the budget is not judged"),
    ],
)
def test_judging_rows(rows: Sequence[OutboxRow], seen: set[int], now: float, complete: bool, expected: Judged) -> None:
    assert judged(rows, seen, now=now, complete=complete) == expected


def test_another_emission_of_the_event_does_not_count() -> None:
    again = OutboxRow((UUID(int=1), 2), 41, 10, at(0))

    assert judged([again], {1}, now=31).missing == (again,)
