"""An outbox whose records are published by hand, and whose slot, which nobody reads from, is moved by hand.

So it is the test that says what Debezium has published and what it has passed over.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid4

import psycopg
from psycopg.rows import DictRow

from closeflow.kafka import KafkaConnection, Producer
from closeflow.kafka.read_to_end import Offsets, Tail, open_tail
from closeflow.storage.core.engine import Database as Engine
from reconciler.jobs.audit_publication import TOPICS, AuditPublication

if TYPE_CHECKING:
    from tests.conftest import Database

WITHIN: Final = timedelta(seconds=0.2)
JUDGED_WITHIN_S: Final = 60.0
"""Rows are judged once every older transaction of the whole server is over, also those of tests beside this one."""
PAST: Final = "2020-01-01"


@dataclass
class Outbox:
    """The outbox of one database, its slot, and the topics."""

    database: Database
    kafka: KafkaConnection
    producer: Producer
    engine: Engine
    """The reconciler's own role, so that what it may not do fails here."""
    owner: psycopg.Connection[DictRow]
    since: dict[tuple[str, int], int] = field(default_factory=dict)

    @property
    def slot(self) -> str:
        return f"{self.database.name}_slot"

    def query(self, statement: str, *values: object) -> list[DictRow]:
        return self.owner.execute(statement.encode(), values).fetchall()

    def add(
        self, *, position: int | None = None, version: int | None = None, day: str = "", payload: str = "{}"
    ) -> UUID:
        event_id = uuid4()
        self.owner.execute(
            "INSERT INTO outbox_events (id, topic, key, event_type, schema_version, payload, occurred_at, position_id,"
            " position_version, created_on) VALUES (%s, 'position-events', '1', 'POSITION_OPEN', 'position-event.v1',"
            " %s, now() - interval '1 minute', %s, %s, COALESCE(%s, (now() AT TIME ZONE 'UTC')::date))",
            (event_id, payload, position, version, day or None),
        )
        return event_id

    async def publish(self, event_id: UUID, emission: int = 1) -> None:
        headers = (("ce_id", str(event_id).encode()), ("emission", str(emission).encode()))
        await self.producer.publish("position-events", key=b"1", value=b"{}", headers=headers)

    def pass_over(self) -> None:
        """The slot moves behind everything that is committed, as if somebody had advanced it."""
        self.owner.execute("SELECT pg_logical_emit_message(true, 'test', 'x')")
        self.query("SELECT pg_replication_slot_advance(%s, pg_current_wal_lsn())", self.slot)

    def audit(self, *, within: timedelta = WITHIN) -> AuditPublication:
        return AuditPublication(self.engine, self.kafka, self.slot, within, interval_s=1, budget=100, emit_budget=100)

    def tail(self, since: Offsets | None = None) -> Any:
        """The topics from where they were when this test began: others have published there too."""
        return open_tail(self.kafka, TOPICS, self.since if since is None else since)

    def emissions(self) -> list[tuple[UUID, int]]:
        rows = self.query("SELECT id, emission FROM outbox_events WHERE emission > 1 ORDER BY xact_id, ctid")
        return [(row["id"], row["emission"]) for row in rows]

    def open_incidents(self) -> set[str]:
        return {row["subject"] for row in self.query("SELECT subject FROM incidents WHERE closed_at IS NULL")}

    async def older_ones_are_over(self) -> None:
        """Every look from now on has every row that was added so far."""
        deadline = time.monotonic() + JUDGED_WITHIN_S
        while self.query("SELECT FROM outbox_events WHERE xact_id >= pg_snapshot_xmin(pg_current_snapshot())"):
            assert time.monotonic() < deadline, "an older transaction of the server is not over"
            await asyncio.sleep(0.05)

    def is_judged(self) -> bool:
        return not self.query(
            "SELECT FROM outbox_events LEFT JOIN outbox_audit ON created_on = day"
            " WHERE day IS NULL OR xact_id >= audited_through"
        )


async def audit_until(audit: AuditPublication, tail: Tail, missing: int) -> None:
    deadline = time.monotonic() + JUDGED_WITHIN_S
    while (found := await audit.once(tail)) != missing:
        assert time.monotonic() < deadline, f"{found} missing, not {missing}"
        await asyncio.sleep(0.05)


async def audit_until_judged(outbox: Outbox, audit: AuditPublication, tail: Tail) -> None:
    deadline = time.monotonic() + JUDGED_WITHIN_S
    while not outbox.is_judged():
        assert time.monotonic() < deadline, "not judged"
        await audit.once(tail)
        await asyncio.sleep(0.05)


async def audit_until_emitted(outbox: Outbox, audit: AuditPublication, tail: Tail, count: int) -> None:
    deadline = time.monotonic() + JUDGED_WITHIN_S
    while len(outbox.emissions()) < count:
        assert time.monotonic() < deadline, f"{len(outbox.emissions())} emitted again, not {count}"
        outbox.pass_over()  # Again, because what is lost may have been looked for only after the last time.
        await audit.once(tail)
        await asyncio.sleep(0.05)
