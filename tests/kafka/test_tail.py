"""Reading topics from a time on, on real Kafka."""

from __future__ import annotations

import gc
import warnings
from datetime import UTC, datetime
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from closeflow.kafka import KafkaConnection, KafkaError, open_producer
from closeflow.kafka.tail import Tail, _seek, open_tail
from tests.kafka.conftest import MakeTopic


class Overtaken:
    """A consumer whose topic gets a record between any two questions about it."""

    def __init__(self, consumer: AIOKafkaConsumer, connection: KafkaConnection, topic: str) -> None:
        self._consumer, self._connection, self._topic = consumer, connection, topic

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    async def offsets_for_times(self, times: dict[TopicPartition, int]) -> Any:
        return await self._then_publish(await self._consumer.offsets_for_times(times))

    async def end_offsets(self, partitions: list[TopicPartition]) -> Any:
        return await self._then_publish(await self._consumer.end_offsets(partitions))

    async def _then_publish(self, answer: Any) -> Any:
        async with open_producer(self._connection) as producer:
            await producer.publish(self._topic, key=b"k", value=b"v", headers=())
        return answer


async def test_no_record_is_passed_over_while_the_tail_finds_its_beginning(
    connection: KafkaConnection, make_topic: MakeTopic
) -> None:
    topic = await make_topic(1)
    partitions = [TopicPartition(topic, 0)]
    async with AIOKafkaConsumer(**connection.options(), group_id=None, enable_auto_commit=False) as consumer:
        consumer.assign(partitions)
        overtaken = Overtaken(consumer, connection, topic)
        await _seek(overtaken, partitions, datetime.now(UTC))
        assert len(await Tail(consumer, partitions).drain()) == 2


async def test_a_kafka_that_is_away_leaves_no_open_consumer() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(KafkaError):
            async with open_tail(KafkaConnection("127.0.0.1:1"), ("any",), None):
                pass
        gc.collect()
    assert [str(one.message) for one in caught if "Unclosed" in str(one.message)] == []
