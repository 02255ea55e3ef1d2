"""Jobs as loops on monotonic time: each runs a cycle, waits for its interval and runs again, whatever clocks show.

A cycle that ended without an error is counted in `job_cycles` by whoever did the work, for the other services to see.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import structlog

from closeflow.clock import monotonic, timeout
from closeflow.domain.frozen import replace
from closeflow.storage.core.engine import Database, transaction
from closeflow.storage.job_cycles import count_cycle
from closeflow.tasks import end_tasks
from closeflow.telemetry.metrics import counter, gauge
from reconciler.stalled_jobs import Cycles

FAILURES = counter("closeflow_reconciler_failures_total")
DONE = counter("closeflow_reconciler_repairs_total")
TOOK = gauge("closeflow_reconciler_cycle_seconds")

STOP_WITHIN_S: Final = 5.0
COUNTED_EVERY_S: Final = 5.0
"""Much less than any job may take before it counts as stalled."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """`once` is one cycle and returns how much it did; one that raises is logged and starts again from the database."""

    name: str
    once: Callable[[], Awaitable[int]]
    interval_s: float


def counted(database: Database, job: Job) -> Job:
    """The job with its cycles counted: one that does not do so by holding the lock of its name. Not each, because
    nobody looks so often."""
    counted_at = -math.inf

    async def once() -> int:
        nonlocal counted_at
        done = await job.once()
        if monotonic() - counted_at >= COUNTED_EVERY_S:
            async with transaction(database) as tx:
                await count_cycle(tx, job=job.name)
            counted_at = monotonic()
        return done

    return replace(job, once=once)


async def keep_running(job: Job, cycles: Cycles, stop: asyncio.Event, *, start_up_delay_s: float) -> None:
    """Run the job until stopped. It begins after the delay: what the last process left may still be going on."""
    await pause(stop, start_up_delay_s)
    while not stop.is_set():
        began = monotonic()
        try:
            DONE.labels(job.name).inc(await job.once())
            cycles.finished(job.name, now=monotonic())
        except Exception:
            FAILURES.labels(job.name).inc()
            log.exception("job_failed", job=job.name)
        TOOK.labels(job.name).set(monotonic() - began)
        await pause(stop, job.interval_s)


async def until_stopped(
    stop: asyncio.Event, part: Coroutine[Any, Any, None], *, within_s: float = STOP_WITHIN_S
) -> None:
    """Run a part of the service. What it is in the middle of when the service stops gets a moment; a cycle that hangs
    is cut off, and begun again from the database by whoever comes next."""
    working, stopping = asyncio.create_task(part), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({working}, timeout=within_s if not working.done() else 0)
        if working.done():
            working.result()
    finally:
        await end_tasks([working, stopping])


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Wait so long, or until stopped."""
    with suppress(TimeoutError):
        async with timeout(seconds):
            await stop.wait()
