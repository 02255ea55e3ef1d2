"""The heartbeat of a service: its host's clock against the database's, and the reconciler's jobs as others see them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from sqlalchemy.ext.asyncio import AsyncEngine

from closeflow.clock_and_job_watch import Heartbeat
from closeflow.storage.advisory_locks import cycle_alone
from closeflow.storage.core.engine import transaction
from closeflow.storage.job_cycles import count_cycle, read_cycles, register_jobs
from tests.conftest import Database
from tests.storage.seeding import Owner, owner


def incidents(db: Owner) -> list[tuple[str, str, bool]]:
    """Kind, subject, and whether it is open."""
    found = db.execute("SELECT kind, subject, closed_at IS NULL FROM incidents ORDER BY id").fetchall()
    return [(kind, subject, is_open) for kind, subject, is_open in found]


@pytest.mark.parametrize("seconds", [-3600, -300, 300, 3600, 2])
async def test_a_host_whose_clock_is_wrong_is_told_until_it_is_right(
    database: Database, engine: AsyncEngine, seconds: float
) -> None:
    beating = Heartbeat(engine, "fill-processor", host="h1")
    with owner(database.admin_dsn) as db:
        await beating.once()
        assert incidents(db) == []
        with time_machine.travel(datetime.now(UTC) + timedelta(seconds=seconds), tick=True):
            await beating.once()
            await beating.once()
        assert incidents(db) == [("clock_skew", "fill-processor@h1", True)]
        await beating.once()
        assert incidents(db) == [("clock_skew", "fill-processor@h1", False)]


async def test_what_was_told_of_the_last_life_of_a_service_is_taken_back_by_the_next(
    database: Database, engine: AsyncEngine
) -> None:
    with owner(database.admin_dsn) as db:
        with time_machine.travel(datetime.now(UTC) + timedelta(hours=1), tick=True):
            await Heartbeat(engine, "fill-processor", host="h1").once()
        await Heartbeat(engine, "fill-processor", host="h2").once()
        assert incidents(db) == [("clock_skew", "fill-processor@h1", True)]
        await Heartbeat(engine, "fill-processor", host="h1").once()
        assert incidents(db) == [("clock_skew", "fill-processor@h1", False)]


async def test_a_job_that_stands_still_is_told_by_another_service(database: Database, engine: AsyncEngine) -> None:
    async with transaction(engine) as tx:
        await register_jobs(tx, allowed={"wake_requests": 1, "old": 1})
        await register_jobs(tx, allowed={"wake_requests": 1, "fill_gaps": 3600})
    beating = Heartbeat(engine, "close-api", host="h1")
    with owner(database.admin_dsn) as db:
        await beating.once()
        await asyncio.sleep(1.1)  # By the observer's own wait, not by the database's clock.
        await beating.once()
        assert incidents(db) == [("job_stalled", "wake_requests", True)]
        async with transaction(engine) as tx:
            await count_cycle(tx, job="wake_requests")
        await Heartbeat(engine, "close-api", host="h2").once()
        assert incidents(db) == [("job_stalled", "wake_requests", True)], "who has just begun to watch knows nothing"
        await beating.once()
        assert incidents(db) == [("job_stalled", "wake_requests", False)]


async def test_who_holds_the_lock_of_a_job_and_ends_it_well_has_finished_a_cycle(
    database: Database, engine: AsyncEngine
) -> None:
    async with transaction(engine) as tx:
        await register_jobs(tx, allowed={"fill_gaps": 30})

    async def cycles() -> int:
        async with transaction(engine) as tx:
            (row,) = await read_cycles(tx)
            return row.cycles

    async with cycle_alone(engine, "fill_gaps") as mine, cycle_alone(engine, "fill_gaps") as second:
        assert (mine, second) == (True, False)
        assert await cycles() == 0
    assert await cycles() == 1
    with pytest.raises(RuntimeError):
        async with cycle_alone(engine, "fill_gaps"):
            raise RuntimeError("the job failed")
    assert await cycles() == 1
