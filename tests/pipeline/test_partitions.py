"""The job that keeps the outbox's partitions, where one of them cannot be had."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import psycopg
import pytest

from closeflow.storage.core.engine import Database as Engine
from closeflow.storage.core.engine import StatementError
from reconciler.jobs.keep_partitions import KeepPartitions
from tests.storage.seeding import add_event, owner

if TYPE_CHECKING:
    from tests.conftest import Database

DAYS: Final = ("2001-02-03", "2001-02-04")


async def test_rows_without_a_partition_are_told_although_they_cannot_be_moved(
    database: Database, engine: Engine
) -> None:
    with owner(database.admin_dsn) as db, psycopg.connect(database.admin_dsn) as reader:
        add_event(db, day=DAYS[0])
        reader.execute("SELECT FROM outbox_events_default")
        with pytest.raises(StatementError):
            await KeepPartitions(engine, days_ahead=7, retention_days=7).once()
        found = db.execute("SELECT kind FROM incidents WHERE closed_at IS NULL").fetchall()
    assert found == [("outbox_default_partition_used",)]


async def test_a_day_that_cannot_be_dropped_holds_up_no_other(database: Database, engine: Engine) -> None:
    keep = KeepPartitions(engine, days_ahead=7, retention_days=7)
    with owner(database.admin_dsn) as db:
        for day in DAYS:
            add_event(db, day=day)
        db.execute("SELECT closeflow_ensure_outbox_partitions(7)")
        for day in DAYS:
            db.execute("INSERT INTO outbox_audit VALUES (%s, '999999999', '[]')", (day,))
        with psycopg.connect(database.admin_dsn) as reader:
            reader.execute("SELECT FROM outbox_events_p20010203")
            assert await keep.once() == 1
        assert db.execute("SELECT count(*) FROM outbox_events").fetchall() == [(1,)]
    assert await keep.once() == 1


async def test_whoever_reads_the_outbox_for_long_stalls_no_writer_while_days_are_dropped(
    database: Database, engine: Engine
) -> None:
    keep = KeepPartitions(engine, days_ahead=7, retention_days=7, tries=3)
    with owner(database.admin_dsn) as db:
        add_event(db, day=DAYS[0])
        db.execute("SELECT closeflow_ensure_outbox_partitions(7)")
        db.execute("INSERT INTO outbox_audit VALUES (%s, '999999999', '[]')", (DAYS[0],))
        db.execute("SET lock_timeout = '1s'")
        with psycopg.connect(database.admin_dsn) as reader:
            reader.execute("SELECT FROM outbox_events")
            keeping = asyncio.create_task(keep.once())
            while not keeping.done():
                await asyncio.to_thread(add_event, db)
            assert await keeping == 0
        assert await keep.once() == 1


async def test_writers_that_are_always_there_do_not_keep_a_day(database: Database, engine: Engine) -> None:
    """Each is done in a moment, and there is always another."""
    stop = asyncio.Event()

    def write() -> None:
        with owner(database.admin_dsn) as db:
            while not stop.is_set():
                add_event(db)

    with owner(database.admin_dsn) as db:
        add_event(db, day=DAYS[0])
        db.execute("SELECT closeflow_ensure_outbox_partitions(7)")
        db.execute("INSERT INTO outbox_audit VALUES (%s, '999999999', '[]')", (DAYS[0],))
    writers = [asyncio.create_task(asyncio.to_thread(write)) for _ in range(3)]
    try:
        assert await KeepPartitions(engine, days_ahead=7, retention_days=7).once() == 1
    finally:
        stop.set()
        await asyncio.gather(*writers)
