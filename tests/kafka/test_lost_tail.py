"""A log that lost what a consumer has read: it is told, and what comes in its place is read, not passed over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from closeflow.contracts import BrokerFillV1, encode
from closeflow.kafka import KafkaConnection, Outgoing, Record, Subscription, open_producer, run_consumer
from closeflow.kafka.log_check import LogCheck
from closeflow.kafka.lost_tail import LostTail, ReadUpTo, lost_tails, read_mark
from tests.kafka.raw_records import batch, produce
from tests.kafka.test_consume import QUICK, eventually, fill

MakeTopic = Callable[[int], Awaitable[str]]
RECORDS: Final = 5


async def publish(connection: KafkaConnection, topic: str, numbers: Sequence[int]) -> None:
    async with open_producer(connection) as producer:
        for number in numbers:
            value = encode(fill(number))
            await producer.publish_many([Outgoing(topic=topic, key=b"k", value=value)])


async def last_record(connection: KafkaConnection, topic: str) -> int:
    """The time of the newest record."""
    consumer = AIOKafkaConsumer(**connection.options(), group_id=None, auto_offset_reset="earliest")
    await consumer.start()
    try:
        tp = TopicPartition(topic, 0)
        consumer.assign([tp])
        end = (await consumer.end_offsets([tp]))[tp]
        consumer.seek(tp, end - 1)
        found = await consumer.getone()
        return int(found.timestamp)
    finally:
        await consumer.stop()


async def commit(connection: KafkaConnection, group: str, topic: str, read: ReadUpTo) -> None:
    """As a consumer left it that read the log before its tail was lost."""
    consumer = AIOKafkaConsumer(**connection.options(), group_id=group, enable_auto_commit=False)
    await consumer.start()
    try:
        tp = TopicPartition(topic, 0)
        consumer.assign([tp])
        await consumer.commit({tp: (read.offset, read.mark)})
    finally:
        await consumer.stop()


class Reading:
    """A consumer of the topic: the ids of what it was given, and what it was told to be lost."""

    def __init__(self, connection: KafkaConnection, topic: str, group: str) -> None:
        self.given: list[int] = []
        self.told: list[LostTail] = []
        self._stop = asyncio.Event()
        subscription = Subscription(
            topic=topic,
            group=group,
            model=BrokerFillV1,
            process_batch=self._process,
            on_lost_tail=self._tell,
        )
        self._task = asyncio.create_task(run_consumer(connection, subscription, self._stop, timing=QUICK))

    async def _process(self, records: Sequence[Record[BrokerFillV1]]) -> None:
        self.given += [int(one.value.event_id) for one in records]

    async def _tell(self, lost: Sequence[LostTail]) -> None:
        self.told += lost

    async def has(self, last: int) -> None:
        await eventually(lambda: last in self.given or self._task.done(), f"record {last}")
        self._stop.set()
        await self._task


@pytest.mark.parametrize("time_is_known", [True, False])
async def test_a_group_beyond_the_end_reads_what_comes(
    connection: KafkaConnection, make_topic: MakeTopic, time_is_known: bool
) -> None:
    topic = await make_topic(1)
    await publish(connection, topic, range(1, RECORDS + 1))
    last_ms = await last_record(connection, topic) + 1
    await commit(connection, topic, topic, ReadUpTo(RECORDS + 3, last_ms if time_is_known else None))
    reading = Reading(connection, topic, topic)
    await eventually(lambda: bool(reading.told), "it is told")
    await publish(connection, topic, [RECORDS + 1])
    await reading.has(RECORDS + 1)
    assert reading.told == [LostTail(topic, 0, RECORDS + 3, RECORDS, 0)]
    assert sorted(set(reading.given)) == list(range(1, RECORDS + 2))


async def test_a_log_that_has_grown_beyond_the_offset_again_is_noticed(
    connection: KafkaConnection, make_topic: MakeTopic
) -> None:
    """Offset 3 was read of a log that had other records then: those of now are not passed over."""
    topic = await make_topic(1)
    await publish(connection, topic, range(1, RECORDS + 1))
    last_ms = await last_record(connection, topic)
    await commit(connection, topic, topic, ReadUpTo(3, last_ms - 60_000))
    reading = Reading(connection, topic, topic)
    await reading.has(RECORDS)
    assert reading.told == [LostTail(topic, 0, 3, RECORDS, 0)]
    assert reading.given[:RECORDS] == list(range(1, RECORDS + 1))


async def test_a_log_that_is_whole_is_read_on(
    connection: KafkaConnection, make_topic: MakeTopic, admin: AIOKafkaAdminClient
) -> None:
    topic = await make_topic(1)
    await publish(connection, topic, range(1, RECORDS + 1))
    await Reading(connection, topic, topic).has(RECORDS)
    kept = (await admin.list_consumer_group_offsets(topic))[TopicPartition(topic, 0)]
    assert read_mark(kept.offset, kept.metadata) == ReadUpTo(RECORDS, await last_record(connection, topic))
    await publish(connection, topic, [RECORDS + 1])
    again = Reading(connection, topic, topic)
    await again.has(RECORDS + 1)
    assert (again.given, again.told) == ([RECORDS + 1], [])


async def test_what_cannot_be_compared_is_no_loss(connection: KafkaConnection, make_topic: MakeTopic) -> None:
    topic = await make_topic(1)
    tp = TopicPartition(topic, 0)
    assert await lost_tails(connection, {}) == {}
    assert await lost_tails(connection, {tp: ReadUpTo(0, None)}) == {}
    await publish(connection, topic, range(1, RECORDS + 1))
    assert await lost_tails(connection, {tp: ReadUpTo(RECORDS, None)}) == {}


@pytest.mark.parametrize("metadata", [None, "", "a note", "last record at ", "last record at soon"])
def test_what_somebody_else_kept_with_an_offset_is_no_time(metadata: str | None) -> None:
    assert read_mark(7, metadata) == ReadUpTo(7, None)
    assert read_mark(7, ReadUpTo(7, 12).mark) == ReadUpTo(7, 12)


async def test_a_connection_that_is_made_during_a_look_is_looked_at_by_the_next_one(
    connection: KafkaConnection, make_topic: MakeTopic
) -> None:
    """While the loss of one partition is told the other one is connected anew, and has lost its tail too."""
    topic = await make_topic(2)
    first, other = TopicPartition(topic, 0), TopicPartition(topic, 1)
    for partition in (0, 1):
        await produce(connection, topic, partition, batch([(b"k", b"v", 1_000_000, False)]))
    consumer = AIOKafkaConsumer(**connection.options(), group_id=None, auto_offset_reset="earliest")
    await consumer.start()

    def links() -> list[Any]:
        return [one for one in consumer._client._conns.values() if one.connected()]

    async def connect_anew(lost: Sequence[LostTail]) -> None:
        before = links()
        for one in before:
            one.close()
        await eventually(lambda: bool(links()) and not set(map(id, links())) & set(map(id, before)), "it is connected")

    try:
        consumer.assign([first, other])
        await consumer.getmany(timeout_ms=5_000)
        check = LogCheck(connection, consumer, connect_anew, read={first: ReadUpTo(1, 1), other: ReadUpTo(1, 1)})
        check.handled({other: (0, 0)})  # Of which nothing is known yet.
        assert (await check.look([first, other], polled={})).lost.keys() == {first}
        check.handled({other: (1, 1)})
        assert (await check.look([first, other], polled={})).lost.keys() == {other}
    finally:
        await consumer.stop()
