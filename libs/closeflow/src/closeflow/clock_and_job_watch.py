"""What every service does besides its work: hold the clock of its host against the database's, and see that the
reconciler's jobs go on. Both end in incidents, and nothing is decided by either."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import structlog

from closeflow.domain.incidents import IncidentKind, about
from closeflow.domain.model import Incident
from closeflow.storage.core.engine import Database, Transaction, database_now, retrying
from closeflow.storage.incidents import close_incidents_about, report_incidents
from closeflow.storage.job_cycles import JobCycles, read_cycles
from closeflow.tasks import end_tasks
from closeflow.telemetry.metrics import gauge

log = structlog.get_logger(__name__)

SKEW_S: Final = gauge("closeflow_clock_skew_seconds")
STILL: Final = gauge("closeflow_job_still_ratio")
INTERVAL_S: Final = 5.0
SKEW_ALLOWED_S: Final = 1.0
LATE_S: Final = 3 * INTERVAL_S
"""After a longer pause between two looks it is not known what the jobs did meanwhile: watching begins anew."""


class CycleWatch:
    """Which jobs have not finished a cycle for as long as they may, by the observer's own monotonic wait."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, float]] = {}
        self._looked_at: float | None = None
        self.still: dict[str, float] = {}
        """By job, how long it was not seen to finish a cycle, as a share of what it may take."""

    def look(self, rows: Sequence[JobCycles], *, now: float) -> tuple[list[tuple[JobCycles, float]], list[str]]:
        """The jobs that stand still, with for how long; and those that were seen to go on."""
        known = {} if self._looked_at is None or now - self._looked_at > LATE_S else self._seen
        self._looked_at = now
        going = [one.job for one in rows if one.job in known and known[one.job][0] != one.cycles]
        self._seen = {
            one.job: known[one.job] if one.job in known and one.job not in going else (one.cycles, now) for one in rows
        }
        silent = [(one, now - self._seen[one.job][1]) for one in rows]
        self.still = {one.job: for_s / one.allowed_s for one, for_s in silent}
        return [(one, for_s) for one, for_s in silent if for_s >= one.allowed_s], going


@dataclass(slots=True)
class Heartbeat:
    """One service on one host. The incidents `clock_skew` and `job_stalled` are opened and closed by it."""

    database: Database
    service: str
    host: str = field(default_factory=socket.gethostname)
    watch: CycleWatch = field(default_factory=CycleWatch)
    _skewed: bool | None = None

    async def run(self) -> None:
        """Look at once, then again and again until cancelled; what cannot be looked at now is looked at later."""
        while True:
            try:
                await self.once()
            except Exception as error:
                log.warning("heartbeat_missed", error=f"{type(error).__name__}: {error}".partition("\n")[0])
            await asyncio.sleep(INTERVAL_S)

    async def once(self) -> None:
        """One look, in a transaction of its own; raises what the database raises."""
        await retrying(self.database, self._measure)

    async def _measure(self, tx: Transaction) -> None:
        subject = f"{self.service}@{self.host}"
        asked_at, host = time.monotonic(), datetime.now(UTC)
        theirs = await database_now(tx)
        took_s = time.monotonic() - asked_at
        # The database read its clock somewhere between the question and the answer.
        skew_s = (host - theirs).total_seconds() + took_s / 2
        SKEW_S.set(skew_s)
        skewed = abs(skew_s) - took_s / 2 > SKEW_ALLOWED_S
        stalled, going = self.watch.look(await read_cycles(tx), now=time.monotonic())
        STILL.clear()
        for job, share in self.watch.still.items():
            STILL.labels(job).set(share)
        await report_incidents(
            tx,
            incidents=[
                *([_skew(subject, skew_s)] if skewed else []),
                *(_stalled(one, for_s) for one, for_s in stalled),
            ],
        )
        if not skewed and self._skewed is not False:
            told = "the clocks agree"
            await close_incidents_about(tx, kind=IncidentKind.CLOCK_SKEW, subjects=[subject], resolution=told)
        if going:
            await close_incidents_about(
                tx, kind=IncidentKind.JOB_STALLED, subjects=going, resolution="it finished a cycle"
            )
        if skewed != (self._skewed or False):
            log.warning("clock_skew", skew_s=round(skew_s, 3), skewed=skewed)
        self._skewed = skewed


@asynccontextmanager
async def beating(database: Database, service: str) -> AsyncIterator[None]:
    """The service's heart beats while the context is open."""
    heart = asyncio.create_task(Heartbeat(database, service).run())
    try:
        yield
    finally:
        await end_tasks([heart])


def _skew(subject: str, skew_s: float) -> Incident:
    where = "ahead of" if skew_s > 0 else "behind"
    detail = f"the clock of {subject} is {abs(skew_s):.1f} s {where} the database's"
    return about(IncidentKind.CLOCK_SKEW, detail, subject=subject)


def _stalled(job: JobCycles, for_s: float) -> Incident:
    detail = f"the reconciler's job {job.job} has not finished a cycle for {for_s:.0f} s"
    return about(IncidentKind.JOB_STALLED, detail, subject=job.job)
