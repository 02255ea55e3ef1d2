"""The publication audit's decisions (invariant 14)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from uuid import UUID

import pytest

from closeflow.domain.outbox.publication_audit import (
    AuditedDay,
    Emission,
    EventKey,
    Judged,
    Look,
    OutboxRow,
    audit_days,
    emit_again,
    first_lost,
    judge_publication,
    losses,
    lost,
    superseded,
)

from .builders import at

WITHIN = timedelta(seconds=30)


def event(number: int, emission: int = 1) -> EventKey:
    return UUID(int=number), emission


def row(number: int, *, xact: int, seconds: float = 0, emission: int = 1) -> OutboxRow:
    return OutboxRow(event(number, emission), 41, xact, at(seconds))


def judged(
    rows: Sequence[OutboxRow],
    seen: set[int] | Mapping[UUID, int],
    *,
    now: float,
    complete: bool = True,
    waited: float | None = None,
) -> Judged:
    keys = seen if isinstance(seen, Mapping) else {UUID(int=number): 1 for number in seen}
    known = {one.key: timedelta(seconds=now if waited is None else waited) for one in rows}
    return judge_publication(
        rows, keys, through=10, below=20, complete=complete, now=at(now), waited=known, publish_within=WITHIN
    )


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
        pytest.param([A, B, C], {1, 2, 3}, 1, False, Judged(13, ()), id="more may follow the last transaction"),
        pytest.param([A, C], {3}, 31, False, Judged(13, (A,)), id="missing below the mark is reported once"),
        pytest.param(
            [A, B], set(), 31, False, Judged(11, (A, B)), id="one that is larger than the budget is judged too"
        ),
    ],
)
def test_judging_rows(rows: Sequence[OutboxRow], seen: set[int], now: float, complete: bool, expected: Judged) -> None:
    assert judged(rows, seen, now=now, complete=complete) == expected


@pytest.mark.parametrize(
    ("emission", "seen", "is_missing"),
    [(1, 1, False), (1, 2, False), (2, 1, True), (2, 2, False), (2, 3, False)],
    ids=[
        "the emission itself is there",
        "a later emission stands for an earlier one",
        "an earlier emission does not stand for a later one",
        "the second emission is there",
        "the third stands for the second",
    ],
)
def test_which_emissions_count(emission: int, seen: int, is_missing: bool) -> None:
    again = row(1, xact=10, emission=emission)

    assert judged([again], {UUID(int=1): seen}, now=31).missing == ((again,) if is_missing else ())


@pytest.mark.parametrize(
    ("now", "waited", "is_missing"),
    [(31, 31, True), (3600, 5, False), (-3600, 31, False)],
    ids=[
        "old by both clocks",
        "the database's clock jumped ahead: the auditor has known the row for 5 s",
        "the database's clock jumped back: the row is not old by it",
    ],
)
def test_no_clock_alone_makes_a_row_missing(now: float, waited: float, is_missing: bool) -> None:
    assert judged([A], set(), now=now, waited=waited).missing == ((A,) if is_missing else ())


def test_a_row_that_the_auditor_meets_for_the_first_time_is_young() -> None:
    verdict = judge_publication(
        [A], {}, through=10, below=20, complete=True, now=at(3600), waited={}, publish_within=WITHIN
    )
    assert verdict == Judged(10, ())


def emission(
    number: int,
    emission: int = 1,
    *,
    position: int | None = 41,
    topic: str = "position-events",
    version: int | None = None,
    xact: int = 10,
    judged: bool = True,
) -> Emission:
    return Emission(event(number, emission), position, topic, version, xact, judged)


FIRST, SECOND = emission(1), emission(1, 2, xact=90)
IN_FLIGHT = emission(1, 2, xact=90, judged=False)


@pytest.mark.parametrize(
    ("missing", "emissions", "still_lost", "made_good"),
    [
        pytest.param({event(1)}, [FIRST], {event(1)}, set(), id="one emission, and it is missing"),
        pytest.param({event(1)}, [FIRST, IN_FLIGHT], set(), set(), id="a later emission in time is waited for"),
        pytest.param({event(1)}, [FIRST, SECOND], set(), {event(1)}, id="a later emission that was found makes good"),
        pytest.param(
            {event(1), event(1, 2)}, [FIRST, SECOND], {event(1, 2)}, set(), id="the later one went missing too"
        ),
        pytest.param({event(1)}, [], set(), set(), id="a row that was dropped cannot be emitted again"),
    ],
)
def test_what_is_lost_and_what_is_made_good(
    missing: set[EventKey], emissions: list[Emission], still_lost: set[EventKey], made_good: set[EventKey]
) -> None:
    assert lost(missing, emissions) == still_lost
    assert superseded(missing, emissions) == made_good


CLOSING, REDUCED, CLOSED = (emission(number, version=number, xact=100 - number) for number in (2, 3, 4))
SUBMIT = emission(9, topic="submit-order", xact=98)


@pytest.mark.parametrize(
    ("emissions", "missing", "expected"),
    [
        pytest.param([CLOSING, REDUCED, CLOSED], set(), (), id="nothing missing, nothing emitted"),
        pytest.param(
            [CLOSED, CLOSING, REDUCED], {3}, (event(3), event(4)), id="from the first missing one on, by their version"
        ),
        pytest.param(
            [CLOSING, SUBMIT, REDUCED, CLOSED],
            {2},
            (event(2), event(3), event(4), event(9)),
            id="of every topic, what is not of an older transaction",
        ),
        pytest.param([SUBMIT, emission(8, xact=97)], {9}, (event(9),), id="an older event of another topic stays"),
        pytest.param(
            [emission(1, position=None), emission(2, position=None)],
            {1},
            (event(1),),
            id="an event of no position is emitted alone",
        ),
        pytest.param(
            [emission(1, position=7), emission(2, position=8), emission(3, position=8, xact=11)],
            {1},
            (event(1),),
            id="another position's events stay",
        ),
    ],
)
def test_emitting_again(emissions: Sequence[Emission], missing: set[int], expected: tuple[EventKey, ...]) -> None:
    assert emit_again(emissions, {event(number) for number in missing}, budget=100) == expected


def test_each_event_is_copied_from_its_highest_emission_in_the_order_of_its_first() -> None:
    emissions = [emission(1, xact=10), emission(2, xact=11), emission(1, 2, xact=50), emission(1, 3, xact=60)]

    assert emit_again(emissions, {event(1), event(1, 2), event(1, 3)}, budget=100) == (event(1, 3), event(2))


def test_a_missing_event_whose_later_emission_is_under_way_starts_nothing() -> None:
    assert emit_again([FIRST, emission(2, xact=11), IN_FLIGHT], {event(1)}, budget=100) == ()


@pytest.mark.parametrize(
    ("budget", "expected"),
    [(1, [1, 2]), (3, [1, 2, 3]), (4, [1, 2, 3, 4]), (100, [1, 2, 3, 4])],
    ids=["the first position, whole", "and the second", "and the third", "no more than there is"],
)
def test_positions_are_taken_whole_in_the_order_of_their_loss(budget: int, expected: list[int]) -> None:
    emissions = [
        emission(4, position=9, xact=30),
        emission(3, position=8, xact=20),
        emission(1, position=7, xact=10),
        emission(2, position=7, xact=40),
    ]
    again = emit_again(emissions, {event(1), event(3), event(4)}, budget=budget)

    assert again == tuple(event(number) for number in expected)


@pytest.mark.parametrize(
    ("budget", "positions"),
    [(1, (3,)), (2, (3,)), (3, (3, 1)), (4, (3, 1, 2)), (9, (3, 1, 2))],
)
def test_positions_are_chosen_by_what_they_lost_first(budget: int, positions: tuple[int, ...]) -> None:
    starts = [
        emission(1, position=1, xact=12),
        emission(2, position=2, xact=13),
        emission(3, position=3, xact=14),
        emission(4, position=3, xact=11),
        emission(5, position=None, xact=10),
    ]
    assert first_lost(starts, budget=budget) == positions


def test_a_look_comes_to_marks_incidents_and_what_need_not_be_remembered() -> None:
    """Of one day a row is missing since before, of the next one another is found to be, and one is young."""
    today, yesterday = at(0).date(), at(-86_400).date()
    gone, young = row(2, xact=12), row(3, xact=14, seconds=25)
    look = Look(
        at=5.0,
        now=at(31),
        below=20,
        days=[AuditedDay(yesterday, 20, frozenset({event(9), event(8)})), AuditedDay(today, 10, frozenset())],
        rows={today: [A, gone, young]},
        written=1,
        confirmed=None,
    )
    seen = {UUID(int=1): 1, UUID(int=8): 1}
    assert look.unseen(seen) == [event(2), event(3), event(9)]
    waited = dict.fromkeys(look.unseen(seen), timedelta(seconds=31))
    found = audit_days(look, seen, waited=waited, publish_within=WITHIN, budget=10)
    assert found.missing == {event(2), event(9)}
    assert found.days == [
        AuditedDay(yesterday, 20, frozenset({event(9)})),
        AuditedDay(today, 14, frozenset({event(2)})),
    ]
    assert (found.used, [one.subject for one in found.incidents]) == ({A.key, gone.key}, [str(UUID(int=2))])
    good = found.without({event(2)})
    assert good.missing == {event(9)}
    assert good.still == {str(UUID(int=9))}
    assert good.days[1].missing == frozenset()


def test_a_loss_is_what_nothing_stands_in_for() -> None:
    emissions = [emission(1, xact=10), emission(1, 2, xact=50, judged=True), emission(2, xact=11), emission(3, xact=12)]
    good, first = losses({event(1), event(2), event(3)}, {event(1), event(2)}, emissions)
    assert good == {event(1)}
    assert [one.key for one in first] == [event(2)]
