"""Jobs and when they run: each at its interval, none joined by a second cycle of itself, a failed one tried again."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from prometheus_client import Counter, Gauge

FAILURES = Counter("closeflow_reconciler_failures_total", "Cycles that failed and will be tried again", ["job"])
DONE = Counter("closeflow_reconciler_repairs_total", "What the jobs did", ["job"])
TOOK = Gauge("closeflow_reconciler_cycle_seconds", "How long the last cycle took", ["job"])

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """`once` is one cycle and returns how much it did; one that raises is logged and starts again from the database."""

    name: str
    once: Callable[[], Awaitable[int]]
    interval_s: float


def schedule(jobs: Iterable[Job], *, start_up_delay_s: float) -> AsyncIOScheduler:
    """A scheduler, not started, whose jobs all begin after the delay: what the last process left may still be going
    on."""
    scheduler = AsyncIOScheduler()
    first = datetime.now().astimezone() + timedelta(seconds=start_up_delay_s)
    for job in jobs:
        scheduler.add_job(
            _guarded(job),
            "interval",
            seconds=job.interval_s,
            id=job.name,
            next_run_time=first,
            coalesce=True,
            max_instances=1,
            misfire_grace_time=None,
        )
    return scheduler


def _guarded(job: Job) -> Callable[[], Awaitable[None]]:
    async def cycle() -> None:
        began = time.monotonic()
        try:
            DONE.labels(job.name).inc(await job.once())
        except Exception:
            FAILURES.labels(job.name).inc()
            log.exception("job_failed", job=job.name)
        TOOK.labels(job.name).set(time.monotonic() - began)

    return cycle
