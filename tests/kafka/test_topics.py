"""Topics are made from schemas/topics, once."""

from __future__ import annotations

import time
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from closeflow.kafka import KafkaConnection, TopicMismatch, TopicSpec, ensure_topics, load_topics

TOPICS = Path(__file__).parents[2] / "schemas" / "topics"


@pytest.fixture
def specs() -> tuple[TopicSpec, ...]:
    """The real topics under names of one test."""
    prefix = f"test-{uuid.uuid4().hex[:8]}."
    return tuple(replace(spec, name=prefix + spec.name) for spec in load_topics(TOPICS))


async def test_topics_are_created_once_with_their_partitions_and_settings(
    connection: KafkaConnection, admin: AIOKafkaAdminClient, specs: tuple[TopicSpec, ...]
) -> None:
    try:
        assert await ensure_topics(connection, specs) == tuple(spec.name for spec in specs)
        assert await ensure_topics(connection, specs) == ()
        letters, fills = specs[0].name, specs[1].name
        assert (letters.rpartition(".")[2], fills.rpartition(".")[2]) == ("dlq", "broker-fill")
        counts = {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics([letters, fills])}
        assert counts == {letters: 1, fills: 6}
        (described,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, fills)])
        settings = {entry[0]: entry[1] for entry in described.resources[0][4]}
        assert settings["retention.ms"] == "2592000000"
        assert settings["cleanup.policy"] == "delete"
        assert settings["min.insync.replicas"] == "1", "one node cannot have two replicas in sync"
    finally:
        await admin.delete_topics([spec.name for spec in specs])


@pytest.mark.parametrize("hours", [-24 * 365, -1, 2])
async def test_a_record_is_kept_by_the_clock_of_kafka_and_not_by_that_of_its_producer(
    connection: KafkaConnection, admin: AIOKafkaAdminClient, specs: tuple[TopicSpec, ...], hours: int
) -> None:
    """Kafka refuses a record from more than an hour ahead, and deletes one from before the retention at once: what the
    broker said would not be heard for as long as the host's clock is wrong."""
    fills = next(spec.name for spec in specs if spec.name.endswith(".broker-fill"))
    await ensure_topics(connection, specs)
    try:
        async with AIOKafkaProducer(**connection.options()) as producer:
            now_ms = round(time.time() * 1000)
            kept = await producer.send_and_wait(fills, b"filled", timestamp_ms=now_ms + hours * 3_600_000)
        assert abs(kept.timestamp - now_ms) < 60_000
    finally:
        await admin.delete_topics([spec.name for spec in specs])


async def test_another_number_of_partitions_is_refused(
    connection: KafkaConnection, admin: AIOKafkaAdminClient, specs: tuple[TopicSpec, ...]
) -> None:
    spec = specs[0]
    await ensure_topics(connection, [spec])
    try:
        with pytest.raises(TopicMismatch, match="has 1 partitions, and schemas/topics says 6"):
            await ensure_topics(connection, [replace(spec, partitions=6)])
    finally:
        await admin.delete_topics([spec.name])


def test_a_directory_without_topics_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no topic files"):
        load_topics(tmp_path)
