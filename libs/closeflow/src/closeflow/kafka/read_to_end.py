"""Read topics to their present ends, without a consumer group: for audits, which must see every record themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from closeflow.kafka.closing import close
from closeflow.kafka.connection import KafkaConnection
from closeflow.kafka.lenient import LenientRecord, getmany_leniently, offset_after, record_time
from closeflow.kafka.log_check import LogCheck
from closeflow.kafka.lost_tail import ReadUpTo, lost_tails
from closeflow.kafka.records import Headers

_POLL_MS: Final = 200
_PROGRESS_DEADLINE_S: Final = 30.0

Partition = tuple[str, int]
"""A topic and the number of one of its partitions."""
Offsets = Mapping[Partition, int]
"""The offset of the next record to read of each partition."""


@dataclass(frozen=True, slots=True)
class TailRecord:
    """A record as it lies in its partition."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp: datetime | None = None
    """When it was written to the topic; None where that is no time."""
    defect: str | None = None
    """Why no consumer of ours can read it, where what is wrong is not its value. Without bytes where it has none."""


class Tail:
    """A position in every partition of some topics."""

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        partitions: Sequence[TopicPartition],
        check: LogCheck,
        lost: Collection[Partition],
    ) -> None:
        self._consumer = consumer
        self._partitions = partitions
        self._check = check
        self._lost = set(lost)
        self.ends: Offsets = {}
        """Where each partition ended when the last `batches` or `drain` began."""

    async def batches(self) -> AsyncIterator[list[TailRecord]]:
        """Everything that is new up to the ends as they are now, a few thousand records at a time.

        Raises TimeoutError when nothing comes for half a minute although the ends are not reached.
        """
        ends = await self._consumer.end_offsets(self._partitions)
        self.ends = {(one.topic, one.partition): end for one, end in ends.items()}
        read = self._check.read
        self._lost |= {(tp.topic, tp.partition) for tp, end in ends.items() if tp in read and end < read[tp].offset}
        while not await self._reached(ends):
            async with asyncio.timeout(_PROGRESS_DEADLINE_S):
                found: list[TailRecord] = []
                while not found and not await self._reached(ends):
                    found = await self._read()
            yield found

    async def lost(self) -> list[Partition]:
        """The partitions whose newest records vanished after they were read, here or before this was opened. What is in
        their place is read from now on. Raises KafkaError."""
        if not self._lost:
            await self._look({})
        return sorted(self._lost)

    @property
    def has_lost(self) -> bool:
        """Whether `lost` has something to tell, as far as is known now."""
        return bool(self._lost)

    def read_up_to(self) -> Mapping[Partition, ReadUpTo]:
        """The last record that was read of each partition, here or before this was opened."""
        return {(tp.topic, tp.partition): one for tp, one in self._check.read.items()}

    async def _look(self, polled: Mapping[TopicPartition, int]) -> Collection[TopicPartition]:
        looked = await self._check.look(self._partitions, polled=polled)
        self._lost |= {(tp.topic, tp.partition) for tp in looked.lost}
        return looked.put_aside

    async def _read(self) -> list[TailRecord]:
        batch = await getmany_leniently(self._consumer, timeout_ms=_POLL_MS, max_records=5000)
        aside = await self._look({tp: read[0].offset for tp, read in batch.items() if read})
        batch = {tp: read for tp, read in batch.items() if tp not in aside}
        before = self._check.read
        last = {tp: (offset_after(read[-1]), read[-1].timestamp) for tp, read in batch.items() if read}
        self._check.handled({tp: one for tp, one in last.items() if tp not in before or one[0] >= before[tp].offset})
        return [
            TailRecord(
                one.topic,
                one.partition,
                one.offset,
                one.key,
                one.value,
                tuple(one.headers),
                _time(one.timestamp),
                one.defect if isinstance(one, LenientRecord) else None,
            )
            for records in batch.values()
            for one in records
        ]

    async def drain(self) -> list[TailRecord]:
        """Everything of `batches` at once."""
        return [record async for batch in self.batches() for record in batch]

    async def positions(self) -> dict[Partition, int]:
        """Where it goes on."""
        return {(one.topic, one.partition): await self._consumer.position(one) for one in self._partitions}

    async def _reached(self, ends: dict[TopicPartition, int]) -> bool:
        for partition in self._partitions:
            if await self._consumer.position(partition) < ends[partition]:
                return False
        return True


def _time(timestamp_ms: int) -> datetime | None:
    try:
        return record_time(timestamp_ms)
    except ValueError:
        return None


@asynccontextmanager
async def open_tail(
    connection: KafkaConnection,
    topics: Sequence[str],
    since: Offsets | None,
    read: Mapping[Partition, ReadUpTo] | None = None,
) -> AsyncIterator[Tail]:
    """A tail that goes on where `since` says, or begins at the beginning: with None, of a partition that `since` lacks,
    and of one that does not reach as far as it says, because the topic was made anew. `read` is what was read before
    this one was opened: `lost` tells what is gone of it.

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
        beyond = await _seek(consumer, partitions, since or {})
        before = {TopicPartition(*place): one for place, one in (read or {}).items()}
        before = {tp: one for tp, one in before.items() if tp in partitions}
        gone = await lost_tails(connection, before)
        yield Tail(consumer, partitions, LogCheck(connection, consumer, read=before), [*beyond, *gone])
    finally:
        await close(consumer.stop(), what="tail")


async def partitions_of(consumer: AIOKafkaConsumer, topic: str) -> set[int]:
    """The partitions of a topic; raises LookupError when it does not exist."""
    await consumer._client.force_metadata_update()
    numbers = consumer.partitions_for_topic(topic)
    if not numbers:
        raise LookupError(f"Kafka has no topic {topic!r}; create the topics of schemas/topics first")
    return set(numbers)


async def _seek(
    consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition], since: Offsets
) -> Sequence[Partition]:
    """Returns the partitions that do not reach as far as `since` says."""
    beyond: list[Partition] = []
    first = await consumer.beginning_offsets(partitions)
    ends = await consumer.end_offsets(partitions)
    for partition in partitions:
        offset = since.get((partition.topic, partition.partition), first[partition])
        consumer.seek(partition, offset if first[partition] <= offset <= ends[partition] else first[partition])
        if offset > ends[partition]:
            beyond.append((partition.topic, partition.partition))
    return beyond
