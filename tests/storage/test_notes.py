"""What services write down for people: parked records and incidents, whatever text they were given."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncEngine

from closeflow.domain.model import Incident
from closeflow.storage.core.engine import transaction
from closeflow.storage.incidents import report_incidents
from closeflow.storage.parked_records import ParkedRecord, park_records
from tests.conftest import Database
from tests.storage.seeding import owner


def incident(subject: str, detail: str = "") -> Incident:
    return Incident(kind="gap", severity="critical", detail=detail, subject=subject)


async def test_text_that_postgresql_cannot_hold_is_kept_readable(database: Database, engine: AsyncEngine) -> None:
    """Else the record that has it could be neither applied nor parked, and its partition would stand still."""
    record = ParkedRecord(
        topic="broker-fill",
        partition=0,
        offset=7,
        key=b"k\x00",
        headers={"source\x00": "a\x00b"},
        value=b"v\x00",
        reason="not\x00ours",
        client_order_id="somebody-else",
    )
    async with transaction(engine) as tx:
        await park_records(tx, records=[record], now=datetime.now(UTC))
        await report_incidents(tx, incidents=[incident("s", "a\x00b")])
    with owner(database.admin_dsn) as db:
        parked = db.execute("SELECT key, headers, bytes, reason FROM parked_records").fetchone()
        assert parked == (b"k\x00", {"source␀": "a␀b"}, b"v\x00", "not␀ours")
        assert db.execute("SELECT detail ->> 'text' FROM incidents").fetchone() == ("a␀b",)


async def test_two_transactions_that_report_the_same_incidents_never_deadlock(
    database: Database, engine: AsyncEngine
) -> None:
    names = [f"order-{n}" for n in range(200)]

    async def report(subjects: list[str]) -> None:
        for _ in range(10):
            async with transaction(engine) as tx:
                await report_incidents(tx, incidents=[incident(subject) for subject in subjects])

    await asyncio.gather(report(names), report(names[::-1]))
    with owner(database.admin_dsn) as db:
        assert db.execute("SELECT count(*), min(count), max(count) FROM incidents").fetchone() == (200, 20, 20)
