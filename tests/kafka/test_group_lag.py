"""How far a group has committed, on real Kafka."""

from __future__ import annotations

import uuid

from aiokafka import AIOKafkaConsumer, TopicPartition

from closeflow.kafka import KafkaConnection, open_producer
from closeflow.kafka.group_lag import committed_offsets
from tests.kafka.conftest import MakeTopic


async def test_the_committed_offset_is_that_of_the_next_record(
    connection: KafkaConnection, make_topic: MakeTopic
) -> None:
    topic, group = await make_topic(2), f"test-{uuid.uuid4().hex[:12]}"
    async with open_producer(connection) as producer:
        for _ in range(3):
            await producer.publish(topic, key=b"k", value=b"v", headers=())
    consumer = AIOKafkaConsumer(**connection.options(), group_id=group, enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, 1)])
        await consumer.commit({TopicPartition(topic, 1): 2})
    finally:
        await consumer.stop()
    found = await committed_offsets(connection, [group, "nobody"])
    assert found == {group: {(topic, 1): 2}, "nobody": {}}
