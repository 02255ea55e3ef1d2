"""How far consumer groups have committed: for audits, and to see who does not consume."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from closeflow.kafka.closing import close
from closeflow.kafka.connection import KafkaConnection
from closeflow.kafka.read_to_end import Partition, partitions_of


async def committed_offsets(
    connection: KafkaConnection, groups: Collection[str]
) -> Mapping[str, Mapping[Partition, int]]:
    """By group, the offset of the next record that it would read of each partition; a group that never committed has
    none. Raises KafkaError."""
    admin = AIOKafkaAdminClient(**connection.options())
    await admin.start()
    try:
        found = {group: await admin.list_consumer_group_offsets(group) for group in groups}
    finally:
        await close(admin.close(), what="admin")
    return {
        group: {(tp.topic, tp.partition): said.offset for tp, said in offsets.items() if said.offset >= 0}
        for group, offsets in found.items()
    }


async def group_lag(
    connection: KafkaConnection, groups: Mapping[str, str]
) -> Mapping[tuple[str, str, int], tuple[int, int]]:
    """By group, its topic and partition: the offset from which it would go on, and the end. A group that never
    committed begins at the beginning. Raises KafkaError, and LookupError when a topic does not exist."""
    committed = await committed_offsets(connection, groups)
    consumer = AIOKafkaConsumer(**connection.options(), group_id=None, enable_auto_commit=False)
    lag = {}
    try:
        await consumer.start()
        for group, topic in groups.items():
            partitions = [TopicPartition(topic, number) for number in await partitions_of(consumer, topic)]
            begins = await consumer.beginning_offsets(partitions)
            ends = await consumer.end_offsets(partitions)
            for tp in partitions:
                place = (topic, tp.partition)
                lag[group, topic, tp.partition] = max(committed[group].get(place, 0), begins[tp]), ends[tp]
    finally:
        await close(consumer.stop(), what="lag reader")
    return lag
