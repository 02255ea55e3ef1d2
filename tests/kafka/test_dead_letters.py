"""What cannot be read goes to the dead letter topic byte for byte, and the next record goes on — up to a limit."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from closeflow.contracts import ErrorClass, SubmitOrder, dead_letter_topic, peek
from closeflow.kafka import (
    DeadLetter,
    DeadLetterLimit,
    DeadLetterLimitExceeded,
    KafkaConnection,
    Outgoing,
    Record,
    Rejected,
    Subscription,
    open_producer,
    run_consumer,
)

MakeTopic = Callable[[int], Awaitable[str]]

EXAMPLE: Final = Path(__file__).parents[2] / "schemas" / "examples" / "submit-order" / "stock_long.json"
GOOD: Final = EXAMPLE.read_bytes()
LAST: Final = json.dumps({**json.loads(GOOD), "account_id": "the-last"}).encode()


NEWER: Final = json.dumps({**json.loads(GOOD), "asset_type": "future"}).encode()


class Passing(Exception):
    """An error that is over after a while."""


@dataclass
class Reader:
    """Reads a topic until it has seen the record with LAST."""

    rejects: str | None = None
    seen: list[Record[SubmitOrder]] = field(default_factory=list)
    told: list[DeadLetter] = field(default_factory=list)
    parks: bool = False
    failures: int = 0
    """So often parking fails, as it does while the database is away."""
    parked: list[DeadLetter] = field(default_factory=list)
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def process(self, batch: Sequence[Record[SubmitOrder]]) -> Sequence[Rejected[SubmitOrder]]:
        self.seen.extend(batch)
        if any(record.value.account_id == "the-last" for record in batch):
            self.stop.set()
        return [Rejected(record, "not our order") for record in batch if record.value.symbol == self.rejects]

    async def be_told(self, letters: Sequence[DeadLetter]) -> None:
        self.told.extend(letters)

    async def park(self, records: Sequence[DeadLetter]) -> None:
        if self.failures:
            self.failures -= 1
            raise Passing("the database is away")
        self.parked.extend(records)

    async def run(
        self, connection: KafkaConnection, topic: str, limit: DeadLetterLimit | None = None, max_records: int = 64
    ) -> None:
        subscription = Subscription(
            topic=topic,
            group=f"closeflow-test-{topic}",
            model=SubmitOrder,
            process_batch=self.process,
            before_dead_letters=self.be_told,
            park=self.park if self.parks else None,
            again_after=lambda error: isinstance(error, Passing),
            dead_letter_limit=limit or DeadLetterLimit(),
            max_records=max_records,
        )
        async with asyncio.timeout(20):
            await run_consumer(connection, subscription, self.stop)


async def publish(connection: KafkaConnection, topic: str, values: Sequence[bytes | None], **headers: bytes) -> None:
    async with open_producer(connection, max_request_bytes=64 * 1024 * 1024, compress=True) as producer:
        for value in values:  # One by one: the huge ones do not fit into a request together.
            await producer.publish_many([Outgoing(topic=topic, key=b"k", value=value, headers=tuple(headers.items()))])


async def letters_of(connection: KafkaConnection, topic: str) -> list[Any]:
    partition = TopicPartition(dead_letter_topic(topic), 0)
    consumer = AIOKafkaConsumer(**connection.options(), auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([partition])
        (end,) = (await consumer.end_offsets([partition])).values()
        return [await consumer.getone() for _ in range(end)]
    finally:
        await consumer.stop()


async def test_unreadable_records_keep_their_bytes_and_the_next_record_goes_on(
    connection: KafkaConnection, admin: AIOKafkaAdminClient, make_topic: MakeTopic
) -> None:
    topic = await make_topic(1)
    unreadable = [None, b"", b"\xff\x00", b'{"event_id":', b"[1]", b"x" * 1_100_000, b"[" * 900_000]
    await publish(connection, topic, [GOOD, *unreadable, LAST], ce_id=b"e-1", trace=b"\xff")
    reader = Reader()
    await reader.run(connection, topic)
    assert [record.offset for record in reader.seen] == [0, len(unreadable) + 1]
    letters = await letters_of(connection, topic)
    assert [letter.value for letter in letters] == unreadable
    assert {letter.key for letter in letters} == {b"k"}
    classes = [dict(letter.headers)["dlq_error_class"].decode() for letter in letters]
    assert classes == ["null_value", "bad_json", "bad_encoding", "bad_json", "bad_value", "too_large", "bad_json"]
    first = dict(letters[0].headers)
    assert first.pop("dlq_first_seen").endswith(b"Z")
    assert first == {
        "ce_id": b"e-1",
        "trace": b"\xff",
        "dlq_origin_topic": topic.encode(),
        "dlq_origin_partition": b"0",
        "dlq_origin_offset": b"1",
        "dlq_consumer_group": f"closeflow-test-{topic}".encode(),
        "dlq_error_class": b"null_value",
        "dlq_reason": b"the record has no value",
        "dlq_attempts": b"1",
    }
    offsets = await admin.list_consumer_group_offsets(f"closeflow-test-{topic}")
    assert offsets[TopicPartition(topic, 0)].offset == len(unreadable) + 2


async def test_the_use_case_is_told_of_the_order_before_its_letter_is_sent(
    connection: KafkaConnection, make_topic: MakeTopic
) -> None:
    topic = await make_topic(1)
    impossible = {**json.loads(GOOD), "quantity": "NaN"}
    await publish(connection, topic, [json.dumps(impossible).encode(), LAST])
    reader = Reader()
    await reader.run(connection, topic)
    (told,) = reader.told
    assert told.error_class is ErrorClass.BAD_VALUE
    assert peek(told.raw)["close_request_id"] == impossible["close_request_id"]


async def test_a_record_that_the_use_case_rejects_becomes_a_dead_letter(
    connection: KafkaConnection, make_topic: MakeTopic
) -> None:
    topic = await make_topic(1)
    other = json.dumps({**json.loads(GOOD), "symbol": "MSFT"}).encode()
    await publish(connection, topic, [GOOD, other, LAST])
    await Reader(rejects="MSFT").run(connection, topic)
    (letter,) = await letters_of(connection, topic)
    assert letter.value == other
    headers = dict(letter.headers)
    assert (headers["dlq_reason"], headers["dlq_error_class"]) == (b"not our order", b"contradiction")


async def test_a_replayed_letter_keeps_when_it_was_first_seen_and_counts_its_attempts(
    connection: KafkaConnection, make_topic: MakeTopic
) -> None:
    topic = await make_topic(1)
    await publish(
        connection, topic, [b"{"], dlq_first_seen=b"2026-01-01T00:00:00Z", dlq_attempts=b"2", dlq_reason=b"old"
    )
    await publish(connection, topic, [LAST])
    await Reader().run(connection, topic)
    (letter,) = await letters_of(connection, topic)
    headers = dict(letter.headers)
    assert len(headers) == len(letter.headers)
    assert (headers["dlq_first_seen"], headers["dlq_attempts"]) == (b"2026-01-01T00:00:00Z", b"3")


async def test_too_many_letters_stop_the_process_and_what_stopped_it_stays_unread(
    connection: KafkaConnection, admin: AIOKafkaAdminClient, make_topic: MakeTopic
) -> None:
    topic = await make_topic(1)
    await publish(connection, topic, [b"{"] * 10 + [LAST])
    with pytest.raises(DeadLetterLimitExceeded, match="6 of the last"):
        await Reader().run(connection, topic, DeadLetterLimit(most=5, of_last=20), max_records=2)
    assert len(await letters_of(connection, topic)) == 4
    offsets = await admin.list_consumer_group_offsets(f"closeflow-test-{topic}")
    assert offsets[TopicPartition(topic, 0)].offset == 4


async def test_rejections_count_against_the_limit_too(connection: KafkaConnection, make_topic: MakeTopic) -> None:
    topic = await make_topic(1)
    await publish(connection, topic, [GOOD] * 6 + [LAST])
    with pytest.raises(DeadLetterLimitExceeded):
        await Reader(rejects="AAPL").run(connection, topic, DeadLetterLimit(most=5, of_last=20))
    assert await letters_of(connection, topic) == []


async def test_values_of_a_newer_writer_are_set_aside_without_counting(
    connection: KafkaConnection, make_topic: MakeTopic
) -> None:
    topic = await make_topic(1)
    await publish(connection, topic, [NEWER] * 8 + [LAST])
    reader = Reader()
    await reader.run(connection, topic, DeadLetterLimit(most=3, of_last=20))
    assert len(await letters_of(connection, topic)) == 8
    assert {letter.error_class for letter in reader.told} == {ErrorClass.UNKNOWN_VALUE}


@pytest.mark.parametrize(
    ("changes", "schema", "goes_to"),
    [
        ({"new_field": "new"}, b"", "reader"),
        ({"asset_type": "future"}, b"", "parked"),
        ({"asset_type": "future", "side": "sideways"}, b"", "parked"),
        ({"asset_type": "future", "quantity": "NaN"}, b"", "dlq"),
        ({"asset_type": "future"}, b"urn:closeflow:submit-order.v2", "dlq"),
        ({}, b"urn:closeflow:submit-order.v2", "dlq"),
    ],
)
async def test_what_a_newer_writer_adds_is_read_or_parked_and_a_new_major_version_is_a_dead_letter(
    changes: dict[str, str], schema: bytes, goes_to: str, connection: KafkaConnection, make_topic: MakeTopic
) -> None:
    topic = await make_topic(1)
    value = json.dumps({**json.loads(GOOD), **changes}).encode()
    await publish(connection, topic, [value], **{"ce_dataschema": schema} if schema else {})
    await publish(connection, topic, [GOOD, LAST])
    reader = Reader(parks=True)
    await reader.run(connection, topic)
    assert [one.offset for one in reader.seen] == [0, 1, 2][goes_to != "reader" :]
    assert [one.raw for one in reader.parked] == [value] * (goes_to == "parked")
    assert [one.value for one in await letters_of(connection, topic)] == [value] * (goes_to == "dlq")
    assert len(reader.told) == (goes_to == "dlq")


async def test_many_values_of_a_newer_writer_are_parked_and_stop_nobody(
    connection: KafkaConnection, admin: AIOKafkaAdminClient, make_topic: MakeTopic
) -> None:
    topic = await make_topic(1)
    await publish(connection, topic, [NEWER] * 30 + [GOOD, LAST])
    reader = Reader(parks=True)
    await reader.run(connection, topic, DeadLetterLimit(most=3, of_last=20), max_records=7)
    assert [(one.offset, one.reason) for one in reader.parked] == [
        (offset, "asset_type: 'future' is not known") for offset in range(30)
    ]
    assert ([one.offset for one in reader.seen], reader.told) == ([30, 31], [])
    assert await letters_of(connection, topic) == []
    offsets = await admin.list_consumer_group_offsets(f"closeflow-test-{topic}")
    assert offsets[TopicPartition(topic, 0)].offset == 32


async def test_a_batch_that_cannot_be_parked_now_is_given_again(
    connection: KafkaConnection, make_topic: MakeTopic
) -> None:
    topic = await make_topic(1)
    await publish(connection, topic, [NEWER, GOOD, NEWER, LAST])
    reader = Reader(parks=True, failures=2)
    await reader.run(connection, topic, max_records=4)
    assert reader.failures == 0
    assert {one.offset for one in reader.parked} == {0, 2}
    assert {one.offset for one in reader.seen} == {1, 3}
    assert await letters_of(connection, topic) == []


async def test_an_error_of_parking_that_does_not_pass_ends_the_consumer_before_it_commits(
    connection: KafkaConnection, admin: AIOKafkaAdminClient, make_topic: MakeTopic
) -> None:
    topic = await make_topic(1)
    await publish(connection, topic, [NEWER, LAST])

    class Broken(Reader):
        async def park(self, records: Sequence[DeadLetter]) -> None:
            raise RuntimeError("cannot be parked")

    with pytest.raises(RuntimeError, match="cannot be parked"):
        await Broken(parks=True).run(connection, topic)
    offsets = await admin.list_consumer_group_offsets(f"closeflow-test-{topic}")
    assert TopicPartition(topic, 0) not in offsets or offsets[TopicPartition(topic, 0)].offset == 0


async def test_old_letters_fall_out_of_the_count(connection: KafkaConnection, make_topic: MakeTopic) -> None:
    topic = await make_topic(1)
    await publish(connection, topic, [b"{", b"{", GOOD, GOOD, GOOD] * 6 + [LAST])
    await Reader().run(connection, topic, DeadLetterLimit(most=2, of_last=5))
    assert len(await letters_of(connection, topic)) == 12
