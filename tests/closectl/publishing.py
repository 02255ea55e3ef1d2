"""The outbox as Debezium publishes it, without Debezium."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

from sqlalchemy import text

from closectl.verifying.reading import Published
from closeflow.domain.model import Topic
from closeflow.storage.core.engine import Database
from closeflow.storage.verify.compared_state import State, load_state
from closeflow.storage.verify.snapshot import snapshot

PARTITIONS: Final = 6
Records = list[Published]


async def published(closes: Database) -> tuple[State, Records]:
    """The state, looked at a minute later, and every outbox row as a record."""
    async with snapshot(closes) as tx:
        state = await load_state(tx)
        rows = (await tx.execute(text("SELECT * FROM outbox_events ORDER BY xact_id, occurred_at, id"))).all()
    records = [
        Published(
            topic=Topic(row.topic),
            partition=row.position_id % PARTITIONS,
            key=row.key,
            event_key=(row.id, row.emission),
            time=row.occurred_at,
            value=row.payload,
        )
        for row in rows
    ]
    return replace(state, at=state.at + timedelta(minutes=1)), records
