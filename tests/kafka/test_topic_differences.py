"""What differs between a topic in Kafka and its file is found, said, and mended by applying the file."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from closeflow.kafka import KafkaConnection, TopicMismatch, TopicSpec
from closeflow.kafka.apply_topics import apply_topics, compare_topics
from closeflow.kafka.topic_differences import differences, missing_rights
from closeflow.kafka.topic_state import TopicState, read_topic_states

CONFIG = {"cleanup.policy": "delete", "retention.ms": "60000", "min.insync.replicas": "2"}


@pytest.fixture
async def spec(connection: KafkaConnection, admin: AIOKafkaAdminClient) -> AsyncIterator[TopicSpec]:
    made = TopicSpec(name=f"test-{uuid.uuid4().hex[:12]}", partitions=2, config=CONFIG)
    await apply_topics(connection, [made])
    yield made
    await admin.delete_topics([made.name])


async def test_a_topic_as_its_file_says_has_no_difference(connection: KafkaConnection, spec: TopicSpec) -> None:
    assert await compare_topics(connection, [spec], copies=1) == ()
    done = await apply_topics(connection, [spec])
    assert (done.created, done.changed) == ((), ())


async def test_settings_are_compared_and_applied_and_what_no_file_says_is_taken_away(
    connection: KafkaConnection, admin: AIOKafkaAdminClient, spec: TopicSpec
) -> None:
    before = replace(spec, config={**CONFIG, "retention.ms": "61000", "retention.bytes": "1000"})
    await apply_topics(connection, [before])
    assert await compare_topics(connection, [spec]) == (
        f"topic {spec.name} has retention.ms=61000, and schemas/topics says 60000; run `closectl topics apply`, or "
        "mend the file",
        f"topic {spec.name} has retention.bytes=1000, which schemas/topics does not say; run `closectl topics apply` "
        "to take it away, or say it in the file",
    )
    done = await apply_topics(connection, [spec])
    assert done.changed == (
        f"{spec.name}: retention.ms was 61000, is 60000",
        f"{spec.name}: retention.bytes was 1000 and is taken away",
    )
    assert await compare_topics(connection, [spec]) == ()
    state = (await read_topic_states(admin, [spec.name]))[spec.name]
    assert state.overrides == set(CONFIG)


async def test_partitions_and_copies_are_compared_and_never_changed(
    connection: KafkaConnection, admin: AIOKafkaAdminClient, spec: TopicSpec
) -> None:
    more = replace(spec, partitions=3, config={**CONFIG, "retention.ms": "1"})
    (partitions, copies, _) = await compare_topics(connection, [more], copies=3)
    assert "has 2 partitions, and schemas/topics says 3; a key would move to another partition" in partitions
    assert "has 1 copies and should have 3; move its partitions" in copies
    with pytest.raises(TopicMismatch, match="has 2 partitions"):
        await apply_topics(connection, [more])
    state = (await read_topic_states(admin, [spec.name]))[spec.name]
    assert state.settings is not None
    assert state.settings["retention.ms"] == "60000", "a setting was changed although the topic was refused"


async def test_a_missing_topic_is_a_difference(connection: KafkaConnection, spec: TopicSpec) -> None:
    missing = replace(spec, name=f"{spec.name}-missing")
    assert await compare_topics(connection, [spec, missing]) == (
        f"topic {missing.name} is not there, or this login may not see it; run `closectl topics apply`",
    )


async def test_kafka_without_rights_lets_everybody_do_everything(admin: AIOKafkaAdminClient, spec: TopicSpec) -> None:
    state = (await read_topic_states(admin, [spec.name]))[spec.name]
    assert (state.partitions, state.copies) == (2, 1)
    assert list(missing_rights(spec.name, ["READ", "WRITE", "DESCRIBE_CONFIGS"], state)) == []


def test_what_is_set_while_partitions_are_moved_is_no_difference() -> None:
    spec = TopicSpec(name="t", partitions=1, config={"retention.ms": "1"})
    moving = "follower.replication.throttled.replicas"
    state = TopicState(
        name="t",
        partitions=1,
        copies=1,
        settings={"retention.ms": "1", moving: "*"},
        overrides=frozenset({"retention.ms", moving}),
    )
    assert list(differences(spec, state)) == []


def test_settings_that_may_not_be_seen_are_told() -> None:
    spec = TopicSpec(name="t", partitions=1, config={"retention.ms": "1"})
    state = TopicState(name="t", partitions=1, copies=1, settings=None, rights=frozenset({"READ"}))
    assert list(differences(spec, state)) == [
        "topic t: this login may not see its settings; `closectl topics apply --acls` gives DESCRIBE_CONFIGS to whom "
        "the topic files name"
    ]
    assert list(missing_rights("t", ["READ", "WRITE"], state)) == [
        "this login may not WRITE topic t; `closectl topics apply --acls` gives WRITE to whom the topic files name"
    ]
