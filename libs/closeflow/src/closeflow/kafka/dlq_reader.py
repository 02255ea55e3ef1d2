"""What waits in a dead letter topic, read as the operator's consumer group.

The group's offset says up to where everything is handled; between it and the end single letters may be handled, which
the reader of this knows from elsewhere. No member subscribes, so offsets can be committed at any time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from closeflow.contracts import dead_letter_topic
from closeflow.kafka.closing import close
from closeflow.kafka.connection import KafkaConnection
from closeflow.kafka.dlq import replay_headers, replays_of
from closeflow.kafka.lenient import getmany_leniently, record_time
from closeflow.kafka.producer import Outgoing
from closeflow.kafka.read_to_end import partitions_of
from closeflow.kafka.records import Headers
from closeflow.kafka.topics import TopicMissing

OPERATOR_GROUP: Final = "closectl-dlq"
CHUNK: Final = 100
_POLL_MS: Final = 200
_READ_DEADLINE_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DlqRecord:
    """One record of a dead letter topic. `origin` is the topic whose records these are; `appended_at` is Kafka's time
    of the letter, not of the record in it."""

    origin: str
    partition: int
    offset: int
    appended_at: datetime
    key: bytes | None
    value: bytes | None
    headers: Headers

    @property
    def topic(self) -> str:
        """The dead letter topic that it is in; `origin` is where it was read first."""
        return dead_letter_topic(self.origin)

    @property
    def replays(self) -> int:
        """How often it was replayed before it came back, by its header."""
        return replays_of(self.headers)

    def header(self, name: str) -> str | None:
        """The last header of that name as text; what is not UTF-8 in it is replaced."""
        found = [raw for one, raw in self.headers if one == name and raw is not None]
        return found[-1].decode(errors="replace") if found else None

    def replay(self) -> Outgoing:
        """The record as it goes back to its topic: the same key and bytes, so it lands behind what is there."""
        return Outgoing(topic=self.origin, key=self.key, value=self.value, headers=replay_headers(self.headers))


class DlqReader:
    """The letters of one topic."""

    def __init__(
        self, consumer: AIOKafkaConsumer, origin: str, partitions: Sequence[TopicPartition], *, can_go_back: bool
    ) -> None:
        self._can_go_back = can_go_back
        self._consumer = consumer
        self._origin = origin
        self._partitions = partitions

    async def starts(self) -> dict[int, int]:
        """From which offset on letters may wait, by partition. An offset that the topic does not have, because it was
        made anew or its retention went further, counts as none."""
        begins = await self._consumer.beginning_offsets(self._partitions)
        ends = await self._consumer.end_offsets(self._partitions)
        found = {}
        for partition in self._partitions:
            begin, end = begins[partition], ends[partition]
            committed = await self._consumer.committed(partition)
            known = committed is not None and begin <= committed <= end
            found[partition.partition] = committed if known else begin
        return found

    async def chunks(self, starts: Mapping[int, int]) -> AsyncIterator[list[DlqRecord]]:
        """The letters from `starts` to the ends as they are now, each partition's in order, some at a time.

        Raises TimeoutError when Kafka does not give them.
        """
        ends = await self._consumer.end_offsets(self._partitions)
        for partition in self._partitions:
            self._consumer.seek(partition, starts[partition.partition])
        while not await self._reached(ends):
            async with asyncio.timeout(_READ_DEADLINE_S):
                batch: Mapping[TopicPartition, Sequence[Any]] = {}
                while not batch and not await self._reached(ends):
                    batch = await getmany_leniently(self._consumer, timeout_ms=_POLL_MS, max_records=CHUNK)
            letters = [
                self._letter(found)
                for partition, records in batch.items()
                for found in records
                if found.offset < ends[partition]
            ]
            if letters:
                yield letters

    async def letter(self, partition: int, offset: int) -> DlqRecord | None:
        """One letter, handled or not; None when the topic does not have it (any more)."""
        place = TopicPartition(self._topic, partition)
        if place not in self._partitions:
            return None
        begins = await self._consumer.beginning_offsets([place])
        ends = await self._consumer.end_offsets(self._partitions)
        if not begins[place] <= offset < ends[place]:
            return None
        for one, end in ends.items():
            self._consumer.seek(one, offset if one == place else end)
        async with asyncio.timeout(_READ_DEADLINE_S):
            batch: Mapping[TopicPartition, Sequence[Any]] = {}
            while not batch.get(place):
                batch = await getmany_leniently(self._consumer, timeout_ms=_POLL_MS, max_records=1)
        found = batch[place][0]
        return self._letter(found) if found.offset == offset else None

    def require_origin(self) -> None:
        """Raises TopicMissing when the topic is gone to which the letters would go back."""
        if not self._can_go_back:
            raise TopicMissing(f"no letter can go back: Kafka has no topic {self._origin}")

    async def commit(self, offsets: Mapping[int, int]) -> None:
        """Let the group go on from these offsets, by partition."""
        if offsets:
            await self._consumer.commit(
                {TopicPartition(self._topic, partition): offset for partition, offset in offsets.items()}
            )

    @property
    def _topic(self) -> str:
        return dead_letter_topic(self._origin)

    async def _reached(self, ends: Mapping[TopicPartition, int]) -> bool:
        for partition, end in ends.items():
            if await self._consumer.position(partition) < end:
                return False
        return True

    def _letter(self, found: Any) -> DlqRecord:
        return DlqRecord(
            origin=self._origin,
            partition=found.partition,
            offset=found.offset,
            appended_at=_time(found.timestamp),
            key=found.key,
            value=found.value,
            headers=tuple(found.headers),
        )


def _time(timestamp_ms: int) -> datetime:
    """The nearest that a datetime can be: it is only shown."""
    try:
        return record_time(timestamp_ms)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC) if timestamp_ms < 0 else datetime.max.replace(tzinfo=UTC)


@asynccontextmanager
async def open_dlq_reader(
    connection: KafkaConnection, origin: str, *, group: str = OPERATOR_GROUP
) -> AsyncIterator[DlqReader]:
    """The dead letters of the topic `origin`; raises TopicMissing when it has no dead letter topic."""
    consumer = AIOKafkaConsumer(
        **connection.options(), group_id=group, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    try:
        await consumer.start()
        topic = dead_letter_topic(origin)
        try:
            numbers = await partitions_of(consumer, topic)
        except LookupError:
            raise TopicMissing(f"{origin} has no dead letters: Kafka has no topic {topic}") from None
        partitions = [TopicPartition(topic, number) for number in sorted(numbers)]
        can_go_back = bool(consumer.partitions_for_topic(origin))  # Asked before it looks at its own topics only.
        consumer.assign(partitions)
        yield DlqReader(consumer, origin, partitions, can_go_back=can_go_back)
    finally:
        await close(consumer.stop(), what="dead letter reader")
