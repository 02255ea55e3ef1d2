"""A topic with its dead letters in Kafka, and `closectl dlq` on them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.structs import TopicPartition

from closeflow.contracts import ErrorClass, dead_letter_topic
from closeflow.kafka import DeadLetter, KafkaConnection
from closeflow.kafka.dlq import open_dlq_publisher
from closeflow.kafka.dlq_reader import OPERATOR_GROUP
from closeflow.kafka.read_to_end import TailRecord, open_tail
from closeflow.kafka.records import Headers
from tests.closectl.running import ROLE, Done, answer, closectl
from tests.conftest import Database as OnTestStack


@dataclass(frozen=True, slots=True)
class Office:
    """The topic has one partition. What is put has come from another one, as if it had been read there."""

    topic: str
    kafka: KafkaConnection
    database: OnTestStack

    def put(self, values: Sequence[bytes | None], *, headers: Headers = ()) -> None:
        async def publish() -> None:
            letters = [
                DeadLetter(
                    topic=self.topic,
                    partition=3,
                    offset=40 + number,
                    key=b"k\xff" if value is None else b"k",
                    raw=value,
                    headers=(("traceparent", b"t"), *headers),
                    reason="it is\x1b[2J wrong",
                    error_class=ErrorClass.BAD_VALUE,
                )
                for number, value in enumerate(values)
            ]
            async with open_dlq_publisher(self.kafka, "a-consumer") as office:
                await office.publish(letters, datetime.now(UTC))

        asyncio.run(publish())

    def run(self, verb: str, *arguments: str) -> Done:
        return closectl("dlq", verb, "--topic", self.topic, "--by", "ann", "--reason", "mended", *arguments, **self.at)

    @property
    def at(self) -> dict[str, str]:
        return {"postgres_dsn": self.database.dsn(ROLE), "kafka_bootstrap_servers": self.kafka.bootstrap_servers}

    def listed(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = answer("dlq", "list", "--topic", self.topic, **self.at)
        return found

    def waiting(self) -> list[int]:
        return [one["offset"] for one in self.listed()]

    def came_back(self) -> list[TailRecord]:
        async def drain() -> list[TailRecord]:
            async with open_tail(self.kafka, [self.topic], None) as tail:
                return await tail.drain()

        return asyncio.run(drain())

    def committed(self) -> int | None:
        async def ask() -> int | None:
            admin = AIOKafkaAdminClient(**self.kafka.options())
            await admin.start()
            try:
                found = await admin.list_consumer_group_offsets(OPERATOR_GROUP)
            finally:
                await admin.close()
            at = found.get(TopicPartition(dead_letter_topic(self.topic), 0))
            return None if at is None else int(at.offset)

        return asyncio.run(ask())
