"""A service starts only where the topics that it uses are as their files say."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Final

import structlog
from aiokafka.errors import KafkaError

from closeflow.contracts.kafka_rights import PRINCIPALS_FILE, load_access, rights_on_topics
from closeflow.contracts.topic_files import TOPICS_DIRECTORY
from closeflow.kafka.connection import KafkaConnection
from closeflow.kafka.topic_differences import differences, missing_rights
from closeflow.kafka.topic_state import TopicState, read_topic_states
from closeflow.kafka.topics import TopicSpec, load_topics, open_admin
from closeflow.project_files import project_path
from closeflow.tasks import GrowingPause

_PAUSE_S: Final = 0.5
_PAUSE_CAP_S: Final = 5.0

log = structlog.get_logger(__name__)


class TopicsDiffer(Exception):
    """Kafka's topics are not as their files say; the text is one line."""


async def wait_until_topics_fit(connection: KafkaConnection, service: str, stop: asyncio.Event) -> bool:
    """True once Kafka answers, has the topics of this service as their files say, and lets this login do with them what
    the service has to; False when asked to stop before. While Kafka is away it is asked again.

    Raises TopicsDiffer, and BadTopicFile or ProjectFilesMissing where the files cannot be read.
    """
    topics = project_path(TOPICS_DIRECTORY)
    rights = rights_on_topics(load_access(topics, project_path(PRINCIPALS_FILE)), service)
    used = [spec for spec in load_topics(topics) if spec.name in rights]
    pause = GrowingPause(_PAUSE_S, _PAUSE_CAP_S)
    while not stop.is_set():
        try:
            async with open_admin(connection) as admin:
                states = await read_topic_states(admin, [spec.name for spec in used])
        except (KafkaError, TimeoutError, OSError) as error:
            log.warning("topics_awaited", reason=f"{type(error).__name__}: {error}")
            await _pause(stop, pause.next_s())
            continue
        wrong = [line for spec in used for line in _wrong(spec, states.get(spec.name), rights[spec.name])]
        if wrong:
            more = f" (and {len(wrong) - 1} more; `closectl topics diff` shows all)" if len(wrong) > 1 else ""
            raise TopicsDiffer(wrong[0] + more)
        return True
    return False


def _wrong(spec: TopicSpec, state: TopicState | None, needed: Collection[str]) -> list[str]:
    """What the login may not do comes first, because then it may also not see the rest."""
    return list(missing_rights(spec.name, needed, state)) or list(differences(spec, state))


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
