"""What Kafka keeps around a value can be wrong too: it is stepped over, told and counted, by everybody who reads."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

import devstack
from closeflow.contracts import SubmitOrder, dead_letter_topic
from closeflow.kafka import KafkaConnection, Outgoing, Record, Rejected, open_dlq_reader, open_producer
from closeflow.kafka.read_to_end import open_tail
from tests.kafka.raw_records import BAD_NAME, Raw, batch, produce
from tests.kafka.test_dead_letters import GOOD, LAST, Reader, letters_of, publish

MakeTopic = Callable[[int], Awaitable[str]]

NOW_MS: Final = int(time.time() * 1000)
LONG_AGO_MS: Final = -(10**15)


@dataclass
class Counting(Reader):
    """Reads until it was given so many different records."""

    wanted: int = 0
    places: set[tuple[int, int]] = field(default_factory=set)

    async def process(self, batch: Sequence[Record[SubmitOrder]]) -> Sequence[Rejected[SubmitOrder]]:
        self.places.update((record.partition, record.offset) for record in batch)
        if len(self.places) == self.wanted:
            self.stop.set()
        return []


def plain(value: bytes = GOOD) -> Raw:
    return (b"k", value, NOW_MS, False)


def told(letter: Any) -> tuple[str, int, str]:
    headers = dict(letter.headers)
    return (
        headers["dlq_error_class"].decode(),
        int(headers["dlq_origin_offset"]),
        headers["dlq_reason"].decode(),
    )


async def read_through(connection: KafkaConnection, topic: str, max_records: int = 64) -> tuple[list[int], list[Any]]:
    """The offsets that the use-case was given, to the record with LAST, and the dead letters."""
    reader = Reader()
    await reader.run(connection, topic, max_records=max_records)
    letters = await letters_of(connection, topic)
    assert [(one.partition, one.offset) for one in reader.told] == [
        (int(dict(one.headers)["dlq_origin_partition"]), int(dict(one.headers)["dlq_origin_offset"])) for one in letters
    ]
    return [record.offset for record in reader.seen], letters


@pytest.mark.parametrize("max_records", [1, 64])
async def test_a_header_name_that_is_not_utf_8_costs_its_record_alone(
    connection: KafkaConnection, admin: AIOKafkaAdminClient, make_topic: MakeTopic, max_records: int
) -> None:
    topic = await make_topic(1)
    await publish(connection, topic, [GOOD])
    await produce(connection, topic, 0, batch([plain(), (b"q", GOOD, NOW_MS, True), plain()]))
    await publish(connection, topic, [GOOD, LAST])
    offsets, letters = await read_through(connection, topic, max_records)
    assert sorted(set(offsets)) == [0, 1, 3, 4, 5]
    (letter,) = letters
    assert told(letter) == ("unreadable_record", 2, f"the header name {BAD_NAME!r} is not UTF-8")
    assert (letter.key, letter.value) == (b"q", GOOD)
    assert dict(letter.headers)["\\xff\\xfe"] == b"1"
    committed = await admin.list_consumer_group_offsets(f"closeflow-test-{topic}")
    assert committed[TopicPartition(topic, 0)].offset == 6


@pytest.mark.parametrize("milliseconds", [LONG_AGO_MS, -62_135_596_800_001, -(2**62)])
async def test_a_time_that_is_no_time_costs_its_record_alone(
    connection: KafkaConnection, make_topic: MakeTopic, milliseconds: int
) -> None:
    topic = await make_topic(1)
    await produce(connection, topic, 0, batch([plain(), (b"k", GOOD, milliseconds, False), plain(LAST)]))
    offsets, letters = await read_through(connection, topic)
    assert offsets == [0, 2]
    (letter,) = letters
    assert told(letter)[:2] == ("unreadable_record", 1)
    assert f"{milliseconds} ms" in told(letter)[2]
    assert letter.value == GOOD


async def test_a_batch_that_was_damaged_on_the_disk_is_one_letter(
    connection: KafkaConnection, stack: devstack.Stack, make_topic: MakeTopic
) -> None:
    topic = await make_topic(1)
    await publish(connection, topic, [GOOD])
    await produce(connection, topic, 0, batch([plain(b'{"damaged": 1}'), plain(), plain()]))
    await publish(connection, topic, [LAST])
    (log,) = stack.data_dir.glob(f"**/{topic}-0/00000000000000000000.log")
    held = log.read_bytes()
    with log.open("r+b") as file:
        file.seek(held.index(b"damaged"))
        file.write(b"DAMAGED")
    offsets, letters = await read_through(connection, topic)
    assert offsets == [0, 4]
    (letter,) = letters
    assert told(letter) == ("unreadable_record", 1, "the batch's checksum is wrong; so are all before 4")
    assert (letter.key, letter.value) == (None, b"")


HEADS: Final = {
    "no length": (8, struct.pack(">i", 0)),
    "a negative length": (8, struct.pack(">i", -7)),
    "another checksum": (17, b"\x00\x01\x02\x03"),
}
"""Where in the head of a batch, and what is there."""


@pytest.mark.parametrize(("at", "damage"), HEADS.values(), ids=HEADS)
async def test_a_batch_whose_head_was_damaged_on_the_disk_is_one_letter(
    connection: KafkaConnection, stack: devstack.Stack, make_topic: MakeTopic, at: int, damage: bytes
) -> None:
    topic = await make_topic(1)
    await publish(connection, topic, [GOOD])
    await produce(connection, topic, 0, batch([plain(), plain(), plain()]))
    await publish(connection, topic, [LAST])
    (log,) = stack.data_dir.glob(f"**/{topic}-0/00000000000000000000.log")
    (first,) = struct.unpack(">i", log.read_bytes()[8:12])
    with log.open("r+b") as file:
        file.seek(12 + first + at)
        file.write(damage)
    async with asyncio.timeout(30):
        offsets, letters = await read_through(connection, topic)
    assert offsets == [0, 4]
    (letter,) = letters
    assert told(letter)[:2] == ("unreadable_record", 1)
    assert "all before 4" in told(letter)[2]


async def test_a_compression_that_no_client_of_ours_uses_is_read(
    connection: KafkaConnection, make_topic: MakeTopic
) -> None:
    topic = await make_topic(1)
    await publish(connection, topic, [GOOD])
    await produce(connection, topic, 0, batch([plain(), plain()], zstd=True))
    await publish(connection, topic, [LAST])
    assert await read_through(connection, topic) == ([0, 1, 2, 3], [])


async def test_a_poll_that_fails_in_one_partition_loses_nothing_of_the_others(
    connection: KafkaConnection, make_topic: MakeTopic
) -> None:
    topic = await make_topic(3)
    for partition in range(3):
        await produce(connection, topic, partition, batch([plain(), plain()]))
    await produce(connection, topic, 1, batch([(b"k", GOOD, NOW_MS, True)]))
    for partition in range(3):
        await produce(connection, topic, partition, batch([plain(), plain()]))
    reader = Counting(wanted=12)
    await reader.run(connection, topic)
    assert len(reader.places) == 12
    assert len(await letters_of(connection, topic)) == 1


async def test_what_a_failed_poll_had_of_other_partitions_is_given_when_these_are_read_again_at_once(
    connection: KafkaConnection, make_topic: MakeTopic
) -> None:
    """After the first poll everything is read again. Of the good partitions a megabyte came with it, ten records, and
    the next poll has enough of what lies behind these not to come to the refused record again."""
    good, partitions = 4, 5
    topic = await make_topic(partitions)
    for partition in range(good):
        for _ in range(11):
            await produce(connection, topic, partition, batch([plain(b" " * 100_000 + GOOD)]))
        await produce(connection, topic, partition, batch([plain()] * 60))
    await produce(connection, topic, good, batch([plain()] * 150))
    await produce(connection, topic, good, batch([(b"k", GOOD, NOW_MS, True), plain()]))
    reader = Counting(wanted=good * 71 + 151)
    await reader.run(connection, topic, max_records=200)
    assert len(reader.places) == good * 71 + 151


async def test_a_record_with_neither_key_nor_value_is_a_letter_too(
    connection: KafkaConnection, make_topic: MakeTopic
) -> None:
    topic = await make_topic(1)
    await produce(connection, topic, 0, batch([(None, None, NOW_MS, False), plain(LAST)]))
    offsets, (letter,) = await read_through(connection, topic)
    assert offsets == [1]
    assert told(letter) == ("null_value", 0, "the record has no value")


async def test_counts_in_the_headers_of_a_letter_are_anybodys(
    connection: KafkaConnection, make_topic: MakeTopic
) -> None:
    topic = await make_topic(1)
    await publish(connection, topic, [b"x"], dlq_attempts=b"9" * 5000, dlq_replays=b"9" * 5000)
    await publish(connection, topic, [LAST])
    _, (letter,) = await read_through(connection, topic)
    assert dict(letter.headers)["dlq_attempts"] == b"1"
    async with open_dlq_reader(connection, topic) as box:
        found = [one async for chunk in box.chunks(await box.starts()) for one in chunk]
        assert [one.replays for one in found] == [0]


async def test_a_tail_reads_what_can_be_read_and_says_what_is_wrong_with_the_rest(
    connection: KafkaConnection, make_topic: MakeTopic
) -> None:
    topic = await make_topic(2)
    await produce(connection, topic, 0, batch([plain(), (b"q", GOOD, NOW_MS, True), plain()]))
    await produce(connection, topic, 1, batch([plain(), plain()], zstd=True))
    await produce(connection, topic, 1, batch([(b"k", GOOD, LONG_AGO_MS, False)]))
    async with open_tail(connection, [topic], None) as tail:
        found = {(one.partition, one.offset): one for one in await tail.drain()}
        assert await tail.positions() == {(topic, 0): 3, (topic, 1): 3}
        assert await tail.drain() == []
    assert set(found) == {(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)}
    assert {place for place, one in found.items() if one.defect} == {(0, 1)}
    assert found[0, 1].value == GOOD


async def test_a_letter_box_shows_letters_whatever_is_around_them(
    connection: KafkaConnection, make_topic: MakeTopic
) -> None:
    topic = await make_topic(1)
    async with open_producer(connection) as producer:
        await producer.publish_many([Outgoing(topic=dead_letter_topic(topic), key=b"k", value=b"1")])
    await produce(
        connection, dead_letter_topic(topic), 0, batch([(b"k", b"2", NOW_MS, True), (b"k", b"3", LONG_AGO_MS, False)])
    )
    async with open_dlq_reader(connection, topic) as box:
        found = [one async for chunk in box.chunks(await box.starts()) for one in chunk]
        assert [one.value for one in found] == [b"1", b"2", b"3"]
        assert found[2].appended_at.year == 1
        one = await box.letter(0, 1)
        assert one is not None
        assert one.value == b"2"
