"""Topics are created on purpose, from `schemas/topics/*.yaml`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from closeflow.contracts.topic_files import MIN_IN_SYNC, TopicInKafka, read_topic_files
from closeflow.kafka.closing import close
from closeflow.kafka.connection import KafkaConnection

VISIBLE_DEADLINE_S: Final = 15.0
"""How long the brokers may take to show what the controller has done."""


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
    """Every topic of the directory, dead letter topics too, by name. Raises BadTopicFile, a ValueError."""
    return tuple(
        TopicSpec(name=told.topic, partitions=told.partitions, config=dict(told.config))
        for _, told in read_topic_files(directory, of=TopicInKafka)
    )


def settings_at(spec: TopicSpec, copies: int) -> dict[str, str]:
    """The file's settings for a topic with so many copies: no more of them can be in sync than there are, so that one
    node is enough for development."""
    config = dict(spec.config)
    if MIN_IN_SYNC in config:
        config[MIN_IN_SYNC] = str(min(int(config[MIN_IN_SYNC]), max(copies, 1)))
    return config


@asynccontextmanager
async def open_admin(connection: KafkaConnection) -> AsyncIterator[AIOKafkaAdminClient]:
    """A started client, closed at the end. Raises KafkaError."""
    admin = AIOKafkaAdminClient(**connection.options())
    try:
        await admin.start()
        yield admin
    finally:
        await close(admin.close(), what="admin")


async def create_missing(
    admin: AIOKafkaAdminClient, topics: Sequence[TopicSpec], *, replication_factor: int
) -> tuple[str, ...]:
    """Create what is not there and return its names, when every topic of `topics` is known to Kafka's brokers."""
    existing = set(await admin.list_topics())
    missing = [spec for spec in topics if spec.name not in existing]
    if missing:
        wanted = [
            NewTopic(
                spec.name, spec.partitions, replication_factor, topic_configs=settings_at(spec, replication_factor)
            )
            for spec in missing
        ]
        response = await admin.create_topics(wanted)
        for name, code, *rest in response.topic_errors:
            if code and for_code(code) is not TopicAlreadyExistsError:
                raise for_code(code)(f"topic {name} cannot be created: {rest[0] if rest else ''}")
    await _until_visible(admin, [spec.name for spec in topics])
    return tuple(spec.name for spec in missing)


async def require_topics(connection: KafkaConnection, names: Collection[str]) -> None:
    """Raise `TopicMissing` when Kafka has not all of them; a consumer would wait for its topic in silence."""
    async with open_admin(connection) as admin:
        missing = sorted(set(names) - set(await admin.list_topics()))
    if missing:
        raise TopicMissing(f"Kafka has no topic {', '.join(missing)}; create the topics of schemas/topics first")


async def _until_visible(admin: AIOKafkaAdminClient, names: Sequence[str]) -> None:
    """A new topic is known to the controller first and to the brokers a moment later."""
    async with asyncio.timeout(VISIBLE_DEADLINE_S):
        while True:
            described = await admin.describe_topics(list(names))
            if sum(not topic["error_code"] for topic in described) == len(names):
                return
            await asyncio.sleep(0.05)


async def remove_topics(connection: KafkaConnection, topics: Sequence[TopicSpec]) -> None:
    """Delete the topics with all their records, and wait until they are gone; nothing there is fine."""
    async with open_admin(connection) as admin:
        names = {spec.name for spec in topics}
        if found := sorted(names & set(await admin.list_topics())):
            await admin.delete_topics(found)
        async with asyncio.timeout(VISIBLE_DEADLINE_S):
            while True:
                if not names & set(await admin.list_topics()):
                    break
                await asyncio.sleep(0.05)
