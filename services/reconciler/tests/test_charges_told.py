"""A charge that is not booked is told again, ever rarer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from reconciler.charges import ChargesTold

START = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def told_in(told: ChargesTold, minutes: int) -> list[int]:
    """The minutes in which the charge is due, of a job that looks every minute."""
    found = []
    for minute in range(minutes):
        now = START + minute * MINUTE
        due = ["fee"] if told.is_due("fee", now) else []
        told.told(due, now)
        found += [minute] * len(due)
    return found


def test_one_that_cannot_be_booked_is_told_a_dozen_times_in_a_day() -> None:
    assert told_in(ChargesTold(), 24 * 60) == [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]


def test_one_that_is_booked_is_forgotten_and_one_that_is_on_another_page_is_not() -> None:
    told = ChargesTold()
    told.told(["booked", "fee"], START)
    told.booked(["booked", "never told"])
    told.told(["fee"], START + MINUTE)
    assert told.is_due("booked", START + MINUTE)
    assert not told.is_due("fee", START + MINUTE + MINUTE / 2)
    assert told.is_due("fee", START + 2 * MINUTE)


def test_one_whose_execution_is_not_booked_yet_is_due_in_every_cycle() -> None:
    told = ChargesTold()
    for minute in range(3):
        assert told.is_due("early", START + minute * MINUTE)
        told.told([], START + minute * MINUTE)
