"""Where topics end now: asked again and again, to tell how far a reader of them is behind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError as KafkaError

from closeflow.kafka.closing import close
from closeflow.kafka.connection import KafkaConnection
from closeflow.kafka.read_to_end import Offsets, partitions_of


class LogEnds:
    """The partitions of some topics."""

    def __init__(self, consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition]) -> None:
        self._consumer = consumer
        self._partitions = partitions

    async def begins(self) -> Offsets:
        """The first offset that each partition still has. Raises KafkaError."""
        found = await self._consumer.beginning_offsets(self._partitions)
        return {(one.topic, one.partition): offset for one, offset in found.items()}

    async def ends(self) -> Offsets:
        """The offset that each partition's next record will have. Raises KafkaError."""
        found = await self._consumer.end_offsets(self._partitions)
        return {(one.topic, one.partition): offset for one, offset in found.items()}


@asynccontextmanager
async def open_log_ends(connection: KafkaConnection, topics: Sequence[str]) -> AsyncIterator[LogEnds]:
    """Of these topics, without a consumer group. Raises KafkaError, and LookupError when a topic does not exist."""
    consumer = AIOKafkaConsumer(**connection.options(), group_id=None, enable_auto_commit=False)
    try:
        await consumer.start()
        partitions = []
        for topic in topics:
            numbers = await partitions_of(consumer, topic)
            partitions += [TopicPartition(topic, number) for number in sorted(numbers)]
        yield LogEnds(consumer, partitions)
    finally:
        await close(consumer.stop(), what="log ends")
