"""Events on their way out: rows of `outbox_events`, which Debezium streams into Kafka."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from closeflow.contracts.cloudevents import schema_version
from closeflow.contracts.outbox import event_value
from closeflow.contracts.topics import TOPIC_MODELS
from closeflow.domain.model import Event
from closeflow.storage.core.bulk import insert_many
from closeflow.storage.schema import tables


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
                "schema_version": schema_version(TOPIC_MODELS[event.topic]),
                "payload": event_value(event),
                "traceparent": event.traceparent,
                "close_request_id": event.close_request_id,
                "attempt": event.attempt,
                "position_id": event.position_id,
                "position_version": event.position_version,
            }
            for event in events
        ],
    )
