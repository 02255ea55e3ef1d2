"""What is over and old is dropped; what is not stays, and verify asks nothing of what it cannot know any more."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
import yaml
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from closectl.verifying.report import Looked
from closectl.verifying.run import check_database
from closeflow.domain.model import BrokerStatus, ExecType
from closeflow.storage.core.engine import transaction
from closeflow.storage.verify.snapshot import snapshot
from reconciler.jobs.drop_expired import DropExpired
from reconciler.settings import ReconcilerSettings
from tests.closectl.seeding import Closes
from tests.conftest import Database
from tests.storage.seeding import Owner, owner

KEEP: Final = {
    "inbox": timedelta(days=180),
    "status_history": timedelta(days=400),
    "parked_records": timedelta(days=180),
    "incidents": timedelta(days=400),
}
COUNTS: Final = {table: f"SELECT count(*) FROM {table}" for table in KEEP}  # noqa: S608
YEARS_LATER: Final = "1000 days"


@pytest.fixture
def db(database: Database) -> Iterator[Owner]:
    with owner(database.admin_dsn) as connection:
        yield connection


def count(db: Owner) -> dict[str, int]:
    return {table: int(db.execute(query.encode()).fetchall()[0][0]) for table, query in COUNTS.items()}


async def shift(engine: AsyncEngine, database: Database, interval: str) -> None:
    """The database's clock, for every connection made from now on."""
    with owner(database.admin_dsn) as connection:
        connection.execute(f"ALTER DATABASE {database.name} SET closeflow.clock_shift = '{interval}'".encode())
    await engine.dispose()


async def violations(engine: AsyncEngine) -> list[tuple[int, str, str]]:
    async with snapshot(engine) as tx:
        _, findings = await check_database(tx)
    found = [one for part in findings if isinstance(part, Looked) for one in part.violations]
    return [(one.invariant, one.subject, one.detail) for one in found]


async def long_over(engine: AsyncEngine) -> Closes:
    """Position 1 was closed and overfilled by an order, 2 closed by two, 3 by one, 5 failed; and all of it is over."""
    closes = Closes(engine)
    await closes.make_all(accepted=(1, 2, 3, 5))
    said: dict[str, Any] = {"exec_type": ExecType.TRADE, "order_status": BrokerStatus.FILLED}
    await closes.tell(
        1, **said, cum_quantity=Decimal(13), exec_id="over", last_quantity=Decimal(3), last_price=Decimal(1)
    )
    await closes.fill(3, "3", cum="5")
    async with transaction(engine) as tx:
        await tx.execute(text("UPDATE incidents SET closed_at = closeflow_now()"))
        await tx.execute(
            text(
                'INSERT INTO parked_records (topic, partition, "offset", reason, released_at) VALUES'
                " ('broker-fill', 0, 1, 'unknown_order', now()), ('broker-fill', 0, 2, 'foreign_order', NULL),"
                " ('broker-fill', 0, 3, 'unknown_order', NULL),"
                " ('broker-fill', 0, 4, 'unknown_value: side: ''x'' is not known', NULL),"
                " ('broker-fill', 0, 5, 'unknown_value: side: ''x'' is not known', now())"
            )
        )
    return closes


async def test_what_is_over_and_old_is_dropped_in_batches_and_verify_holds_nobody_to_it(
    engine: AsyncEngine, database: Database, db: Owner
) -> None:
    closes = await long_over(engine)
    assert await violations(engine) == []
    before = count(db)
    assert await DropExpired(engine, KEEP, batch=3, batches=100).once() == 0
    await shift(engine, database, YEARS_LATER)

    job = DropExpired(engine, KEEP, batch=3, batches=100)
    assert await job.once() == sum(before.values()) - 2, "a record that waits for its order, or a newer reader, stays"
    assert count(db) == {"inbox": 0, "status_history": 0, "parked_records": 2, "incidents": 0}
    assert await violations(engine) == []

    async with engine.connect() as tx:
        await tx.execute(text("DELETE FROM retention_horizons"))
        _, findings = await check_database(tx)
        await tx.rollback()
    missed = {one.invariant for one in findings if isinstance(one, Looked) and one.violations}
    assert missed >= {1, 8, 9, 10}, "without its horizon verify would miss what was dropped"

    # What is new is kept, and held to everything.
    await closes.accept(4)
    assert await job.once() == 0
    assert await violations(engine) == []
    async with transaction(engine) as tx:
        await tx.execute(text("DELETE FROM status_history WHERE entity = 'close_request'"))
    assert [one[0] for one in await violations(engine)] == [9]


async def test_a_budget_bounds_what_one_cycle_drops(engine: AsyncEngine, database: Database, db: Owner) -> None:
    await long_over(engine)
    before = count(db)
    await shift(engine, database, YEARS_LATER)
    assert await DropExpired(engine, {"status_history": timedelta(days=400)}, batch=2, batches=3).once() == 6
    assert count(db)["status_history"] == before["status_history"] - 6
    assert await violations(engine) == []


def test_the_database_keeps_what_is_young_whoever_asks(db: Owner) -> None:
    for table, days in (("inbox", 120), *((one, 30) for one in ("status_history", "parked_records", "incidents"))):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="keeps its rows for at least"):
            db.execute("SELECT closeflow_drop_expired(%s, now() - make_interval(days => %s), 1)", (table, days))
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="nothing of positions expires"):
        db.execute("SELECT closeflow_drop_expired('positions', '2001-01-01', 1)")


def test_receipts_outlive_the_records_and_their_longest_replay() -> None:
    """As the topics are made: a dead letter may be replayed until its topic drops it."""
    days = 0.0
    for name in ("broker-fill", "broker-fill.dlq"):
        topic = yaml.safe_load((Path(__file__).parents[2] / "schemas" / "topics" / f"{name}.yaml").read_text())
        days += int(topic["config"]["retention.ms"]) / 86_400_000
    rules = ReconcilerSettings.model_fields["inbox_retention_days"].metadata
    assert [one.ge > days for one in rules if hasattr(one, "ge")] == [True]
