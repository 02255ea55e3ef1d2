"""Another clock drives whatever was started under it."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta

import pytest

from closeflow import clock

START = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)


class ByHand:
    """It goes by what is slept, and only then."""

    def __init__(self) -> None:
        self.elapsed = 0.0

    def monotonic(self) -> float:
        return self.elapsed

    def utc_now(self) -> datetime:
        return START + timedelta(seconds=self.elapsed)

    async def sleep(self, seconds: float) -> None:
        self.elapsed += seconds
        await asyncio.sleep(0)

    def timeout(self, seconds: float | None) -> nullcontext[None]:
        return nullcontext()


async def test_what_runs_under_a_clock_goes_by_it_and_so_do_its_tasks() -> None:
    async def an_hour() -> tuple[float, datetime]:
        await clock.sleep(3600)
        return clock.monotonic(), clock.utc_now()

    with clock.driven_by(ByHand()):
        assert await asyncio.create_task(an_hour()) == (3600.0, START + timedelta(hours=1))
    assert abs(clock.utc_now() - datetime.now(UTC)) < timedelta(minutes=1)


async def test_the_clock_of_the_host_ends_what_takes_too_long() -> None:
    before = clock.monotonic()
    with pytest.raises(TimeoutError):
        async with clock.timeout(0.01):
            await clock.sleep(60)
    assert clock.monotonic() - before >= 0.01
