"""Batches of records that no client of ours would write, sent as they are."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from closeflow.kafka import KafkaConnection

HEAD_BYTES: Final = 61
NOT_LEADER: Final = 6
BAD_NAME: Final = b"\xff\xfe"
_NAME: Final = "ZZ"
Raw = tuple[bytes | None, bytes | None, int, bool]
"""Key, value, time in ms, and whether it has a header whose name is not UTF-8."""


def batch(records: Sequence[Raw], *, zstd: bool = False) -> bytes:
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1024 * 1024)
    for number, (key, value, time, bad_name) in enumerate(records):
        builder.append(number, time, key, value, [(_NAME, b"1")] if bad_name else [])
    made = bytes(builder.build()).replace(_NAME.encode(), BAD_NAME)
    return _sealed(made[:HEAD_BYTES], _zstd(made[HEAD_BYTES:]), codec=4) if zstd else _sealed(made, b"", codec=0)


def _sealed(head: bytes, payload: bytes, *, codec: int) -> bytes:
    whole = bytearray(head + payload)
    struct.pack_into(">i", whole, 8, len(whole) - 12)
    struct.pack_into(">h", whole, 21, codec)
    struct.pack_into(">I", whole, 17, calc_crc32c(bytes(whole[21:])))
    return bytes(whole)


def _zstd(payload: bytes) -> bytes:
    """One frame with one stored block (RFC 8878)."""
    size = len(payload)
    head = struct.pack("<IBBH", 0xFD2FB528, 0x60, (size - 256) & 0xFF, 0)[:5] + struct.pack("<H", size - 256)
    return head + (size << 3 | 1).to_bytes(3, "little") + payload


async def produce(connection: KafkaConnection, topic: str, partition: int, made: bytes) -> None:
    producer = AIOKafkaProducer(**connection.options())
    await producer.start()
    try:
        await producer.partitions_for(topic)
        code = NOT_LEADER
        while code == NOT_LEADER:  # A new topic's leader is known before it leads.
            node = producer.client.cluster.leader_for_partition(TopicPartition(topic, partition))
            answer = await producer.client.send(node, ProduceRequest(None, -1, 5000, [(topic, [(partition, made)])]))
            ((_, ((_, code, *_),)),) = answer.topics
        assert code == 0
    finally:
        await producer.stop()
