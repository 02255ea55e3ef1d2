"""Make Kafka's topics what `schemas/topics` says, and compare the two."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import for_code

from closeflow.kafka.connection import KafkaConnection
from closeflow.kafka.topic_differences import changed_settings, differences
from closeflow.kafka.topic_state import TopicState, read_topic_states
from closeflow.kafka.topics import VISIBLE_DEADLINE_S, TopicMismatch, TopicSpec, create_missing, open_admin


@dataclass(frozen=True, slots=True)
class AppliedTopics:
    """What was done: topics that were created, and `topic: name=value` for each setting of one that was there."""

    created: tuple[str, ...]
    changed: tuple[str, ...]


async def apply_topics(
    connection: KafkaConnection, topics: Sequence[TopicSpec], *, replication_factor: int = 1
) -> AppliedTopics:
    """Create what is missing, with so many copies; set what is set otherwise, and take away what the files do not say.

    Returns when Kafka shows every topic with its partitions and settings. Raises `TopicMismatch` where one has another
    number of partitions, before any setting is changed, TimeoutError where Kafka does not show them, and KafkaError.
    """
    async with open_admin(connection) as admin:
        created = await create_missing(admin, topics, replication_factor=replication_factor)
        states = await read_topic_states(admin, [spec.name for spec in topics])
        for spec in topics:
            if states[spec.name].partitions != spec.partitions:
                raise TopicMismatch(next(differences(spec, states[spec.name])))
        changed = tuple(await _set(admin, topics, states))
        if changed:
            await _until_set(admin, topics)
        return AppliedTopics(created, changed)


async def ensure_topics(
    connection: KafkaConnection, topics: Sequence[TopicSpec], *, replication_factor: int = 1
) -> tuple[str, ...]:
    """The same; returns the names of the topics that were created."""
    return (await apply_topics(connection, topics, replication_factor=replication_factor)).created


async def compare_topics(
    connection: KafkaConnection, topics: Sequence[TopicSpec], *, copies: int | None = None
) -> tuple[str, ...]:
    """A line for each difference, nothing where there is none. Raises KafkaError."""
    async with open_admin(connection) as admin:
        states = await read_topic_states(admin, [spec.name for spec in topics])
    return tuple(line for spec in topics for line in differences(spec, states.get(spec.name), copies=copies))


async def _set(admin: AIOKafkaAdminClient, topics: Sequence[TopicSpec], states: Mapping[str, TopicState]) -> list[str]:
    """Kafka takes all settings of a topic at once, so those of a move of partitions are said again."""
    resources, lines = [], []
    for spec in topics:
        state = states[spec.name]
        if not (changed := changed_settings(spec, state)):
            continue
        now = state.settings or {}
        kept: dict[str, str | None] = {name: now[name] for name in state.overrides}
        wanted = {name: value for name, value in (kept | changed).items() if value is not None}
        resources.append(ConfigResource(ConfigResourceType.TOPIC, spec.name, configs=wanted))
        for name, value in changed.items():
            was = now.get(name, "")
            lines.append(
                f"{spec.name}: {name} was {was}" + (" and is taken away" if value is None else f", is {value}")
            )
    if resources:
        (answer,) = await admin.alter_configs(resources)
        for code, message, _, name in answer.resources:
            if code:
                raise for_code(code)(f"the settings of topic {name} cannot be changed: {message or ''}")
    return lines


async def _until_set(admin: AIOKafkaAdminClient, topics: Sequence[TopicSpec]) -> None:
    """The controller answers that it has set them; a broker learns and says so a moment later."""
    async with asyncio.timeout(VISIBLE_DEADLINE_S):
        while True:
            states = await read_topic_states(admin, [spec.name for spec in topics])
            seen = [(spec, states[spec.name]) for spec in topics if states[spec.name].settings is not None]
            if not any(changed_settings(spec, state) for spec, state in seen):
                return
            await asyncio.sleep(0.05)
