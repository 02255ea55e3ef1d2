"""How often each of the reconciler's jobs has finished a cycle, whichever replica did it: what others watch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import text

from closeflow.storage.core.engine import Transaction

_REGISTER: Final = text("""
    INSERT INTO job_cycles (job, allowed_s) SELECT * FROM unnest(CAST(:jobs AS text[]), CAST(:allowed AS integer[]))
    ON CONFLICT (job) DO UPDATE SET allowed_s = EXCLUDED.allowed_s
""")
_FORGET: Final = text("UPDATE job_cycles SET allowed_s = NULL WHERE job <> ALL(CAST(:jobs AS text[]))")
_COUNT: Final = text("UPDATE job_cycles SET cycles = cycles + 1, finished_at = closeflow_now() WHERE job = :job")
_READ: Final = text(
    "SELECT job, cycles, allowed_s, finished_at FROM job_cycles WHERE allowed_s IS NOT NULL ORDER BY job"
)


@dataclass(frozen=True, slots=True)
class JobCycles:
    """`allowed_s` is how long the count may stand still; `finished_at` is for show."""

    job: str
    cycles: int
    allowed_s: int
    finished_at: datetime | None


async def register_jobs(tx: Transaction, *, allowed: Mapping[str, float]) -> None:
    """These are all the jobs there are; counts go on."""
    await tx.execute(_REGISTER, {"jobs": list(allowed), "allowed": [round(seconds) for seconds in allowed.values()]})
    await tx.execute(_FORGET, {"jobs": list(allowed)})


async def count_cycle(tx: Transaction, *, job: str) -> None:
    """Of a job that is registered; of any other nothing is kept."""
    await tx.execute(_COUNT, {"job": job})


async def read_cycles(tx: Transaction) -> list[JobCycles]:
    """The jobs that somebody should run, by name."""
    return [JobCycles(row.job, row.cycles, row.allowed_s, row.finished_at) for row in await tx.execute(_READ)]
