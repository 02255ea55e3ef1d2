"""Topics are made from schemas/topics, once."""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path

import pytest
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
