"""Jobs run in loops of their own, whatever the clock of their host shows, and one that stands still is told."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
import time_machine

from reconciler.schedule import Job, keep_running, until_stopped
from reconciler.stalled_jobs import Cycles


class Working:
    """A job's cycle, which fails or hangs when told to."""

    def __init__(self) -> None:
        self.cycles = 0
        self.fails = False
        self.hangs = False
        self.began = asyncio.Event()

    async def once(self) -> int:
        self.began.set()
        if self.hangs:
            await asyncio.Event().wait()
        self.cycles += 1
        if self.fails:
            raise RuntimeError("the broker says something new")
        return 1

    async def until(self, cycles: int) -> None:
        async with asyncio.timeout(5):
            while self.cycles < cycles:
                self.began.clear()
                await self.began.wait()


def started(working: Working) -> tuple[asyncio.Task[None], asyncio.Event, Cycles]:
    stop, cycles = asyncio.Event(), Cycles([("job", 0.001)], now=0.0)
    job = Job("job", working.once, 0.001)
    running = keep_running(job, cycles, stop, start_up_delay_s=0)
    return asyncio.create_task(until_stopped(stop, running, within_s=0.01)), stop, cycles


@pytest.mark.parametrize("seconds", [-3600, -300, 300, 3600])
async def test_a_clock_that_is_set_stops_no_job(seconds: float) -> None:
    with time_machine.travel(datetime.now(UTC), tick=True) as clock:
        working = Working()
        task, stop, _ = started(working)
        await working.until(2)
        clock.shift(seconds)
        await working.until(working.cycles + 5)
        stop.set()
        await task


async def test_a_cycle_that_fails_is_run_again() -> None:
    working = Working()
    working.fails = True
    task, stop, cycles = started(working)
    await working.until(3)
    assert cycles.trouble(now=29.0) is None
    assert cycles.trouble(now=31.0) == "job has not finished a cycle for 31 s"
    working.fails = False
    await working.until(working.cycles + 2)
    assert cycles.trouble(now=31.0) is None
    stop.set()
    await task


async def test_a_cycle_that_hangs_does_not_keep_the_service_from_stopping() -> None:
    working = Working()
    working.hangs = True
    task, stop, _ = started(working)
    await working.began.wait()
    stop.set()
    async with asyncio.timeout(5):
        await task


def test_a_job_is_given_five_of_its_intervals() -> None:
    cycles = Cycles([("often", 0.5), ("rarely", 60.0)], now=0.0)
    assert cycles.allowed == {"often": 30.0, "rarely": 300.0}
    cycles.finished("often", now=280.0)
    assert cycles.trouble(now=299.0) is None
    assert cycles.trouble(now=310.0) == (
        "often has not finished a cycle for 30 s, rarely has not finished a cycle for 310 s"
    )
