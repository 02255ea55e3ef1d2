"""Whether a log still has what a consumer has read: its newest records vanish with a disk, or by an unclean election.

Kafka then gives the offsets of the lost records to other ones. A consumer that went on where it was would pass over
them as soon as the log has grown beyond its offset again, and nothing would say so: leader epochs (KIP-320), by which
other clients notice, aiokafka does not send. So the consumer keeps the time of the last record that it read, beside its
offset in the group too, and looks whether that record is still there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaTimeoutError

from closeflow.kafka.closing import close
from closeflow.kafka.connection import KafkaConnection
from closeflow.kafka.lenient import about_a_record

MARGIN_MS: Final = 600_000
"""How far the clock of one of Kafka's hosts may be behind that of another."""
WITHIN_S: Final = 10.0
"""So long Kafka may take to tell what it has."""
_MARK: Final = "last record at "


@dataclass(frozen=True, slots=True)
class ReadUpTo:
    """Where a consumer goes on in a partition, and the time that Kafka gave the record before that (milliseconds since
    1970); None where that is not known."""

    offset: int
    last_ms: int | None

    @property
    def mark(self) -> str:
        """As it is kept with the offset in the group."""
        return "" if self.last_ms is None else f"{_MARK}{self.last_ms}"


@dataclass(frozen=True, slots=True)
class LostTail:
    """A partition that lost its newest records, up to which a consumer had read (`was`); `end` is where the log ends
    now. From `again` on it is read again."""

    topic: str
    partition: int
    was: int
    end: int
    again: int

    def __str__(self) -> str:
        ends = f"the log ends at {self.end}" if self.end < self.was else "other records have these offsets now"
        return f"partition {self.partition} was read up to {self.was} and {ends}; read again from {self.again}"


def read_mark(offset: int, metadata: str | None) -> ReadUpTo:
    """What the group has of a partition."""
    said = (metadata or "").removeprefix(_MARK)
    return ReadUpTo(offset, int(said) if metadata and said != metadata and said.isdecimal() else None)


async def lost_tails(
    connection: KafkaConnection, read: Mapping[TopicPartition, ReadUpTo]
) -> dict[TopicPartition, LostTail]:
    """Those of the partitions whose log lacks what was read last. Raises KafkaError."""
    if not read:
        return {}
    consumer = AIOKafkaConsumer(
        **connection.options(), group_id=None, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    try:
        async with asyncio.timeout(WITHIN_S):
            await consumer.start()
            consumer.assign(list(read))
            for tp, one in read.items():  # Before anything is awaited: it would be fetched from the beginning.
                consumer.seek(tp, max(0, one.offset - 1))
            begins, ends = await consumer.beginning_offsets(list(read)), await consumer.end_offsets(list(read))
            gone = {tp for tp, one in read.items() if one.offset > ends[tp]}
            there = {tp for tp, one in read.items() if tp not in gone and one.offset > begins[tp]}
            gone |= await _other_records(consumer, {tp: read[tp] for tp in there})
            again = await _from_where(consumer, {tp: read[tp] for tp in gone}, begins, ends)
    except TimeoutError:
        raise KafkaTimeoutError("Kafka does not tell whether its logs have what was read") from None
    finally:
        await close(consumer.stop(), what="log reader")
    return {
        tp: LostTail(tp.topic, tp.partition, read[tp].offset, ends[tp], again[tp])
        for tp in sorted(gone, key=lambda one: one.partition)
    }


async def _other_records(consumer: AIOKafkaConsumer, read: Mapping[TopicPartition, ReadUpTo]) -> set[TopicPartition]:
    """The partitions of which the record that was read last is another one now. One that aiokafka cannot read is not
    judged: its consumer has to step over it first."""
    other: set[TopicPartition] = set()
    for tp, one in read.items():
        if one.last_ms is None:
            continue
        found = await _first(consumer, tp)
        if found is not None and found.offset == one.offset - 1 and found.timestamp != one.last_ms:
            other.add(tp)
    return other


async def _first(consumer: AIOKafkaConsumer, tp: TopicPartition) -> Any | None:
    """The next record; None for one that aiokafka cannot read. A slow answer is waited for: it would hide a loss."""
    batch: Mapping[TopicPartition, Sequence[Any]] = {}
    while not batch.get(tp):
        try:
            batch = await consumer.getmany(tp, timeout_ms=500, max_records=1)
        except Exception as error:
            if not about_a_record(error):
                raise
            return None
    return batch[tp][0]


async def _from_where(
    consumer: AIOKafkaConsumer,
    read: Mapping[TopicPartition, ReadUpTo],
    begins: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
) -> dict[TopicPartition, int]:
    """What comes lies behind all that was read and is still there: from a time before the last of that on. It is the
    beginning where that time is not known."""
    times = {tp: max(0, one.last_ms - MARGIN_MS) for tp, one in read.items() if one.last_ms is not None}
    found = await consumer.offsets_for_times(times) if times else {}
    again: dict[TopicPartition, int] = {}
    for tp, one in read.items():
        at = found.get(tp)
        later = at.offset if at is not None else ends[tp] if tp in times else begins[tp]
        again[tp] = max(begins[tp], min(later, ends[tp], one.offset))
    return again
