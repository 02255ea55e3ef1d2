"""How far consumer groups have committed: for audits."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from aiokafka.admin import AIOKafkaAdminClient

from closeflow.kafka.closing import close
from closeflow.kafka.connection import KafkaConnection
from closeflow.kafka.tail import Partition


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
