"""Events on their way out: rows of `outbox_events`, which Debezium streams into Kafka."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from closeflow.domain.model import Event
from closeflow.storage.core.bulk import insert_many
from closeflow.storage.schema import tables

SCHEMA_VERSION: Final = {
    "submit-order": "submit-order.v1",
    "position-events": "position-event.v1",
    "execution-events": "execution-event.v1",
}


async def insert_events(tx: AsyncConnection, *, events: Sequence[Event]) -> None:
    """Add outbox rows; Debezium publishes them once the transaction has committed."""
    await insert_many(
        tx,
        tables.outbox_events,
        [
            {
                "id": event.event_id,
                "emission": event.emission,
                "topic": event.topic,
                "key": event.key,
                "event_type": event.event_type,
                "schema_version": SCHEMA_VERSION[event.topic],
                "payload": event.payload,
                "traceparent": event.traceparent,
                "close_request_id": event.close_request_id,
                "attempt": event.attempt,
                "position_id": event.position_id,
                "position_version": event.position_version,
            }
            for event in events
        ],
    )
