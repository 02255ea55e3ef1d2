"""Reading topics from a position on, on real Kafka."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterable, Sequence

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from closeflow.kafka import KafkaConnection, KafkaError, TopicSpec, ensure_topics, open_producer
from closeflow.kafka.lost_tail import ReadUpTo
from closeflow.kafka.read_to_end import Offsets, open_tail
from tests.kafka.conftest import MakeTopic
from tests.kafka.test_consume import eventually


async def values(connection: KafkaConnection, topic: str, since: Offsets | None) -> list[bytes | None]:
    async with open_tail(connection, [topic], since) as tail:
        return [one.value for one in await tail.drain()]


@pytest.mark.parametrize(
    ("offset", "expected"),
    [(0, [b"0", b"1", b"2"]), (2, [b"2"]), (3, []), (4, [b"0", b"1", b"2"])],
    ids=["the first", "in the middle", "the end", "behind the end: the topic was made anew"],
)
async def test_it_goes_on_where_it_is_told(
    connection: KafkaConnection, make_topic: MakeTopic, offset: int, expected: list[bytes]
) -> None:
    topic = await make_topic(1)
    async with open_producer(connection) as producer:
        for number in range(3):
            await producer.publish(topic, key=b"k", value=str(number).encode(), headers=())
    assert await values(connection, topic, {(topic, 0): offset}) == expected


async def test_it_tells_where_it_goes_on_and_begins_at_the_beginning_of_what_it_does_not_know(
    connection: KafkaConnection, make_topic: MakeTopic
) -> None:
    topic = await make_topic(2)
    async with open_producer(connection) as producer:
        for number in range(20):
            await producer.publish(topic, key=str(number).encode(), value=b"v", headers=())
    async with open_tail(connection, [topic], None) as tail:
        read = await tail.drain()
        positions = await tail.positions()
    assert (len(read), sum(positions.values()), set(positions)) == (20, 20, {(topic, 0), (topic, 1)})
    assert sorted(one.offset for one in read if one.partition == 1) == list(range(positions[(topic, 1)]))
    half = {(topic, 0): positions[(topic, 0)]}
    assert len(await values(connection, topic, half)) == positions[(topic, 1)]


async def test_a_kafka_that_is_away_leaves_no_open_consumer() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(KafkaError):
            async with open_tail(KafkaConnection("127.0.0.1:1"), ("any",), None):
                pass
        gc.collect()
    assert [str(one.message) for one in caught if "Unclosed" in str(one.message)] == []


@pytest.mark.parametrize(("last_ms", "lost"), [(None, False), (1, True)], ids=["the same record", "another record"])
async def test_a_loss_before_it_was_opened_is_told(
    connection: KafkaConnection, make_topic: MakeTopic, last_ms: int | None, lost: bool
) -> None:
    topic = await make_topic(1)
    async with open_producer(connection) as producer:
        for number in range(3):
            await producer.publish(topic, key=b"k", value=str(number).encode(), headers=())
    async with open_tail(connection, [topic], None) as tail:
        await tail.drain()
        (read,) = tail.read_up_to().values()
    assert (read.offset, read.last_ms is not None) == (3, True)
    before = ReadUpTo(3, last_ms or read.last_ms)
    async with open_tail(connection, [topic], {(topic, 0): 3}, {(topic, 0): before}) as tail:
        assert await tail.lost() == ([(topic, 0)] if lost else [])


async def test_a_loss_is_noticed_before_what_took_its_place_is_read_on(
    connection: KafkaConnection, make_topic: MakeTopic
) -> None:
    """Over a new connection the record that was read last is another one: the rest is no continuation of it."""
    topic = await make_topic(1)
    tp = TopicPartition(topic, 0)
    async with open_producer(connection) as producer:
        for number in range(2):
            await producer.publish(topic, key=b"k", value=str(number).encode(), headers=())
        async with open_tail(connection, [topic], None) as tail:
            await tail.drain()
            assert await tail.lost() == []
            tail._check.handled({tp: (2, 1)})
            for link in tuple(tail._consumer._client._conns.values()):
                link.close()
            await producer.publish(topic, key=b"k", value=b"2", headers=())
            assert [one.value for one in await tail.drain()][-3:] == [b"0", b"1", b"2"]
            assert await tail.lost() == [(topic, 0)]


async def test_what_was_read_before_it_was_opened_is_looked_for_over_the_first_connection(
    connection: KafkaConnection, make_topic: MakeTopic
) -> None:
    topic = await make_topic(1)
    tp = TopicPartition(topic, 0)
    async with open_producer(connection) as producer:
        for number in range(2):
            await producer.publish(topic, key=b"k", value=str(number).encode(), headers=())
        async with open_tail(connection, [topic], None) as tail:
            await tail.drain()
            read = tail.read_up_to()
        async with open_tail(connection, [topic], {(topic, 0): 2}, read) as tail:
            tail._check.handled({tp: (2, 1)})  # The log lost it after it was looked for, and before anything was read.
            await producer.publish(topic, key=b"k", value=b"2", headers=())
            await tail.drain()
            assert tail.has_lost
            assert await tail.lost() == [(topic, 0)]


async def write(connection: KafkaConnection, topic: str, values: Iterable[str], times_ms: Sequence[int | None]) -> None:
    producer = AIOKafkaProducer(**connection.options())
    await producer.start()
    try:
        for value, at_ms in zip(values, times_ms, strict=True):
            await producer.send_and_wait(topic, value.encode(), key=b"k", partition=0, timestamp_ms=at_ms)
    finally:
        await producer.stop()


async def test_what_was_fetched_before_a_loss_is_fetched_again_after_it(
    connection: KafkaConnection, make_topic: MakeTopic, admin: AIOKafkaAdminClient
) -> None:
    """The last record that was read is still there, but what aiokafka had fetched behind it is not any more."""
    topic = await make_topic(1)
    tp = TopicPartition(topic, 0)
    await write(connection, topic, ["0", "1"], [1_000, 2_000])
    async with open_tail(connection, [topic], None) as tail:
        assert [one.value for one in await tail.drain()] == [b"0", b"1"]
        await write(connection, topic, ["2", "3"], [None, None])
        await eventually(lambda: tp in tail._consumer._fetcher._records, "it is fetched")
        await admin.delete_topics([topic])  # And made anew, with the records that were read.
        await ensure_topics(connection, [TopicSpec(name=topic, partitions=1, config={})])
        await write(connection, topic, ["0", "1", "another 2", "another 3"], [1_000, 2_000, None, None])
        for link in tuple(tail._consumer._client._conns.values()):
            link.close()
        assert [one.value for one in await tail.drain()] == [b"another 2", b"another 3"]
        assert await tail.lost() == []
