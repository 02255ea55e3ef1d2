"""The producer: idempotent, acknowledged by all in-sync replicas, nothing held back to make batches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, OutOfOrderSequenceNumber

from closeflow.kafka.closing import close
from closeflow.kafka.connection import KafkaConnection
from closeflow.kafka.records import Headers
from closeflow.telemetry.metrics import KAFKA_PUBLISHED

log = structlog.get_logger(__name__)

REOPEN_AFTER_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """One record to publish; the partition follows from the key."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers | Sequence[tuple[str, bytes]] = ()


Acknowledged = tuple[str, int, int]
"""Where a record lies: topic, partition and offset."""


class Producer:
    """Publishes and waits for the acknowledgement. Two records of one key keep the order they were given in.

    One that fails for half a minute is opened afresh, from the bootstrap servers: aiokafka goes on asking the addresses
    that it knows, although Kafka may have come back at others. One whose numbers a log does not continue is over, and
    opened afresh at once: the log has lost its newest records, and aiokafka sends nothing more.
    """

    def __init__(self, make_client: Callable[[], AIOKafkaProducer], *, reopen_after_s: float = REOPEN_AFTER_S) -> None:
        self._make_client = make_client
        self._reopen_after_s = reopen_after_s
        self._client = make_client()
        self._failing_since: float | None = None
        self._reopening = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Connect; raises KafkaError where no bootstrap server answers."""
        await self._client.start()

    async def stop(self) -> None:
        """What was sent is flushed first."""
        await asyncio.gather(close(self._client.stop(), what="producer"), *self._closing)

    async def publish(
        self, topic: str, *, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]] = ()
    ) -> None:
        """Returns when Kafka has the record. Any KafkaError means that it may or may not have it: publish again."""
        await self.publish_many([Outgoing(topic=topic, key=key, value=value, headers=tuple(headers))])

    async def publish_many(self, records: Sequence[Outgoing]) -> list[Acknowledged]:
        """Returns where they lie when Kafka has all of them, having put them on the wire together; raises the first
        error there is, after every record has its outcome."""
        client = self._client
        try:
            places = await _publish(client, records)
        except KafkaError as error:
            is_over = isinstance(error, OutOfOrderSequenceNumber)
            await self._reopen(client, at_once=is_over)
            if not is_over or self._client is client:
                raise
            places = await _publish(self._client, records)
        self._failing_since = None
        return places

    async def _reopen(self, failed: AIOKafkaProducer, *, at_once: bool) -> None:
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        if not at_once and now - self._failing_since < self._reopen_after_s:
            return
        async with self._reopening:
            if self._client is not failed:
                return
            client = self._make_client()
            try:
                await client.start()
            except KafkaError as error:
                log.warning("producer_not_reopened", reason=f"{type(error).__name__}: {error}")
                await close(client.stop(), what="producer")
                return
            self._client, self._failing_since = client, None
            log.warning("producer_reopened")
            closing = asyncio.create_task(close(failed.stop(), what="producer"))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)


async def _publish(client: AIOKafkaProducer, records: Sequence[Outgoing]) -> list[Acknowledged]:
    places: list[Acknowledged] = []
    acknowledgements = [
        await client.send(record.topic, value=record.value, key=record.key, headers=list(record.headers))
        for record in records
    ]
    outcomes = await asyncio.gather(*acknowledgements, return_exceptions=True)
    for record, outcome in zip(records, outcomes, strict=True):
        if isinstance(outcome, asyncio.CancelledError):
            raise KafkaError("aiokafka gave the record up")  # It would pass for a cancellation of ours.
        if isinstance(outcome, BaseException):
            raise outcome
        KAFKA_PUBLISHED.labels(record.topic).inc()
        places.append((record.topic, int(outcome.partition), int(outcome.offset)))
    return places


@asynccontextmanager
async def open_producer(
    connection: KafkaConnection, *, max_request_bytes: int = 1024 * 1024, compress: bool = False
) -> AsyncIterator[Producer]:
    """A started producer, closed at the end (what was sent is flushed first)."""

    def make_client() -> AIOKafkaProducer:
        return AIOKafkaProducer(
            **connection.options(),
            acks="all",
            enable_idempotence=True,
            linger_ms=0,
            max_request_size=max_request_bytes,
            compression_type="gzip" if compress else None,
        )

    producer = Producer(make_client)
    try:
        await producer.start()
        yield producer
    finally:
        await producer.stop()
