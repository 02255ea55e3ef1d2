"""Topics are created on purpose, from `schemas/topics/*.yaml`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from closeflow.kafka.closing import close
from closeflow.kafka.connection import KafkaConnection

_VISIBLE_DEADLINE_S: Final = 15.0


class TopicMismatch(Exception):
    """A topic exists with another number of partitions; its keys would be on other partitions than we think."""


class TopicMissing(Exception):
    """Topics are made on purpose, never by a consumer that asks for one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicSpec:
    """One file of `schemas/topics`, as far as Kafka is concerned."""

    name: str
    partitions: int
    config: Mapping[str, str]


def load_topics(directory: Path) -> tuple[TopicSpec, ...]:
    """Every topic of the directory, dead letter topics too, by name. Raises ValueError when there is none."""
    specs = []
    for path in sorted(directory.glob("*.yaml")):
        told = yaml.safe_load(path.read_text())
        config = {name: str(value) for name, value in told["config"].items()}
        specs.append(TopicSpec(name=told["topic"], partitions=told["partitions"], config=config))
    if not specs:
        raise ValueError(f"no topic files (*.yaml) in {directory}")
    return tuple(specs)


async def ensure_topics(
    connection: KafkaConnection, topics: Sequence[TopicSpec], *, replication_factor: int = 1
) -> tuple[str, ...]:
    """Create what is missing and return its names; what exists is only checked.

    `min.insync.replicas` is lowered to the replication factor, so that one node is enough for development. Returns when
    every topic has its partitions; raises `TopicMismatch` when one has another number of them.
    """
    admin = AIOKafkaAdminClient(**connection.options())
    try:
        await admin.start()
        existing = set(await admin.list_topics())
        missing = [spec for spec in topics if spec.name not in existing]
        if missing:
            wanted = [_new_topic(spec, replication_factor) for spec in missing]
            response = await admin.create_topics(wanted)
            for name, code, *rest in response.topic_errors:
                if code and for_code(code) is not TopicAlreadyExistsError:
                    raise for_code(code)(f"topic {name} cannot be created: {rest[0] if rest else ''}")
        await _verify(admin, topics)
        return tuple(spec.name for spec in missing)
    finally:
        await close(admin.close(), what="admin")


async def require_topics(connection: KafkaConnection, names: Sequence[str]) -> None:
    """Raise `TopicMissing` when Kafka has not all of them; a consumer would wait for its topic in silence."""
    admin = AIOKafkaAdminClient(**connection.options())
    try:
        await admin.start()
        missing = sorted(set(names) - set(await admin.list_topics()))
    finally:
        await close(admin.close(), what="admin")
    if missing:
        raise TopicMissing(f"Kafka has no topic {', '.join(missing)}; create the topics of schemas/topics first")


def _new_topic(spec: TopicSpec, replication_factor: int) -> NewTopic:
    config = dict(spec.config)
    config["min.insync.replicas"] = str(min(int(config.get("min.insync.replicas", "1")), replication_factor))
    return NewTopic(spec.name, spec.partitions, replication_factor, topic_configs=config)


async def _verify(admin: AIOKafkaAdminClient, topics: Sequence[TopicSpec]) -> None:
    """A new topic is known to the controller first and to the brokers a moment later."""
    async with asyncio.timeout(_VISIBLE_DEADLINE_S):
        while True:
            described = await admin.describe_topics([spec.name for spec in topics])
            found = {topic["topic"]: len(topic["partitions"]) for topic in described if not topic["error_code"]}
            if len(found) == len(topics):
                break
            await asyncio.sleep(0.05)
    for spec in topics:
        if found[spec.name] != spec.partitions:
            raise TopicMismatch(
                f"topic {spec.name} has {found[spec.name]} partitions, and schemas/topics says {spec.partitions}; "
                "a key would move to another partition: delete the topic, or mend the file"
            )


async def remove_topics(connection: KafkaConnection, topics: Sequence[TopicSpec]) -> None:
    """Delete the topics with all their records, and wait until they are gone; nothing there is fine."""
    admin = AIOKafkaAdminClient(**connection.options())
    try:
        await admin.start()
        names = {spec.name for spec in topics}
        if found := sorted(names & set(await admin.list_topics())):
            await admin.delete_topics(found)
        async with asyncio.timeout(_VISIBLE_DEADLINE_S):
            while True:
                if not names & set(await admin.list_topics()):
                    break
                await asyncio.sleep(0.05)
    finally:
        await close(admin.close(), what="admin")
