"""Read topics to their present ends, without a consumer group: for audits, which must see every record themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from closeflow.kafka.connection import KafkaConnection
from closeflow.kafka.records import Headers

_POLL_MS: Final = 200
_DRAIN_DEADLINE_S: Final = 30.0

Partition = tuple[str, int]
"""A topic and the number of one of its partitions."""


@dataclass(frozen=True, slots=True)
class TailRecord:
    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class Tail:
    """A position in every partition of some topics."""

    def __init__(self, consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition]) -> None:
        self._consumer = consumer
        self._partitions = partitions
        self.ends: Mapping[Partition, int] = {}
        """Where each partition ended when the last `drain` began."""

    async def drain(self) -> list[TailRecord]:
        """Everything that is new up to the ends as they are now; raises TimeoutError when they are not reached."""
        ends = await self._consumer.end_offsets(self._partitions)
        self.ends = {(one.topic, one.partition): end for one, end in ends.items()}
        found: list[TailRecord] = []
        async with asyncio.timeout(_DRAIN_DEADLINE_S):
            while not await self._reached(ends):
                batch = await self._consumer.getmany(timeout_ms=_POLL_MS, max_records=5000)
                found += [
                    TailRecord(one.topic, one.partition, one.offset, one.key, one.value, tuple(one.headers))
                    for records in batch.values()
                    for one in records
                ]
        return found

    async def _reached(self, ends: dict[TopicPartition, int]) -> bool:
        for partition in self._partitions:
            if await self._consumer.position(partition) < ends[partition]:
                return False
        return True


@asynccontextmanager
async def open_tail(connection: KafkaConnection, topics: Sequence[str], since: datetime | None) -> AsyncIterator[Tail]:
    """A tail that begins with the first record whose time is `since` or later; with None at the beginning.

    Only committed records are read. Raises LookupError when a topic does not exist.
    """
    consumer = AIOKafkaConsumer(
        **connection.options(),
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    try:
        await consumer.start()
        partitions = []
        for topic in topics:
            numbers = await partitions_of(consumer, topic)
            partitions += [TopicPartition(topic, number) for number in sorted(numbers)]
        consumer.assign(partitions)
        await _seek(consumer, partitions, since)
        yield Tail(consumer, partitions)
    finally:
        await consumer.stop()


async def partitions_of(consumer: AIOKafkaConsumer, topic: str) -> set[int]:
    """The partitions of a topic; raises LookupError when it does not exist."""
    await consumer._client.force_metadata_update()
    numbers = consumer.partitions_for_topic(topic)
    if not numbers:
        raise LookupError(f"Kafka has no topic {topic!r}; create the topics of schemas/topics first")
    return set(numbers)


async def _seek(consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition], since: datetime | None) -> None:
    if since is None:
        await consumer.seek_to_beginning(*partitions)
        return
    at = int(since.timestamp() * 1000)
    # The ends first: a record that arrives between the two questions is found by its time, or lies behind the end.
    ends = await consumer.end_offsets(partitions)
    offsets = await consumer.offsets_for_times(dict.fromkeys(partitions, at))
    for partition in partitions:
        found = offsets.get(partition)
        consumer.seek(partition, found.offset if found is not None else ends[partition])
