"""The producer: idempotent, acknowledged by all in-sync replicas, nothing held back to make batches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiokafka import AIOKafkaProducer

from closeflow.kafka.connection import KafkaConnection
from closeflow.kafka.records import Headers
from closeflow.telemetry.metrics import KAFKA_PUBLISHED


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers | Sequence[tuple[str, bytes]] = ()


class Producer:
    """Publishes and waits for the acknowledgement. Two records of one key keep the order they were given in."""

    def __init__(self, client: AIOKafkaProducer) -> None:
        self._client = client

    async def publish(
        self, topic: str, *, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]] = ()
    ) -> None:
        """Returns when Kafka has the record. Any KafkaError means that it may or may not have it: publish again."""
        await self.publish_many([Outgoing(topic=topic, key=key, value=value, headers=tuple(headers))])

    async def publish_many(self, records: Sequence[Outgoing]) -> None:
        """Returns when Kafka has all of them, having put them on the wire together; raises the first error there is,
        after every record has its outcome."""
        acknowledgements = [
            await self._client.send(record.topic, value=record.value, key=record.key, headers=list(record.headers))
            for record in records
        ]
        outcomes = await asyncio.gather(*acknowledgements, return_exceptions=True)
        for record, outcome in zip(records, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                raise outcome
            KAFKA_PUBLISHED.labels(record.topic).inc()


@asynccontextmanager
async def open_producer(
    connection: KafkaConnection, *, max_request_bytes: int = 1024 * 1024, compress: bool = False
) -> AsyncIterator[Producer]:
    """A started producer, closed at the end (what was sent is flushed first)."""
    client = AIOKafkaProducer(
        **connection.options(),
        acks="all",
        enable_idempotence=True,
        linger_ms=0,
        max_request_size=max_request_bytes,
        compression_type="gzip" if compress else None,
    )
    await client.start()
    try:
        yield Producer(client)
    finally:
        await client.stop()
