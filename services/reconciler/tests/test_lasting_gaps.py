"""A gap is told once it is old, by the database's clock or by the own wait, whatever comes in between."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from uuid import UUID

from closeflow.storage.due_work import GapOrder
from reconciler.jobs.fill_gaps import Seen, lasting_gaps

NOW = datetime(2026, 3, 20, 15, tzinfo=UTC)
PATIENCE = timedelta(seconds=30)


def a_gap(*, missing: str = "3", heard_s: float = 0) -> GapOrder:
    return GapOrder("cf-1-1", 1, UUID(int=1), NOW, missing, NOW - timedelta(seconds=heard_s))


def told(gap: GapOrder, seen: Mapping[str, Seen], *, clock: float) -> tuple[bool, dict[str, Seen]]:
    incidents, seen_now = lasting_gaps([gap], seen, now=NOW, patience=PATIENCE, clock=clock)
    return bool(incidents), seen_now


def test_one_that_the_broker_was_long_silent_about_is_told_at_once() -> None:
    assert told(a_gap(heard_s=30), {}, clock=0)[0]
    assert not told(a_gap(heard_s=29), {}, clock=0)[0]


def test_updates_that_do_not_close_it_do_not_make_it_younger() -> None:
    found, seen = told(a_gap(), {}, clock=0)
    assert not found
    found, seen = told(a_gap(), seen, clock=20)
    assert not found
    assert told(a_gap(), seen, clock=30)[0]
    assert not told(a_gap(missing="2"), seen, clock=30)[0], "the broker has said something new"
    assert not told(a_gap(), seen, clock=51)[0], "it was not seen for as long as it has to last"
