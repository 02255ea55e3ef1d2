"""A job of the reconciler that stands still is seen by any other service, by its own wait."""

from __future__ import annotations

from closeflow.clock_and_job_watch import CycleWatch
from closeflow.storage.job_cycles import JobCycles


def rows(cycles: int) -> list[JobCycles]:
    """One job that has finished so many cycles and one that has finished none."""
    return [JobCycles("wake_requests", cycles, 30, None), JobCycles("keep_partitions", 0, 18_000, None)]


def stalled(watch: CycleWatch, cycles: int, now: float) -> list[tuple[str, float]]:
    found, _ = watch.look(rows(cycles), now=now)
    return [(one.job, for_s) for one, for_s in found]


def test_a_count_that_does_not_move_for_as_long_as_it_may_is_told_and_one_that_moves_again_is_over() -> None:
    watch = CycleWatch()
    assert [stalled(watch, 7, now) for now in (0.0, 10.0, 20.0, 29.0)] == [[]] * 4
    assert stalled(watch, 7, 30.0) == [("wake_requests", 30.0)]
    assert watch.look(rows(8), now=35.0) == ([], ["wake_requests"])
    assert stalled(watch, 8, 45.0) == []


def test_who_begins_to_watch_waits_himself_and_takes_nothing_back() -> None:
    assert CycleWatch().look(rows(7), now=1000.0) == ([], [])


def test_while_nobody_could_look_nothing_is_known() -> None:
    """The database was away: the jobs stood still with it, and begin again with it."""
    watch = CycleWatch()
    assert stalled(watch, 7, 0.0) == []
    assert stalled(watch, 7, 120.0) == []
    assert stalled(watch, 7, 130.0) == []
