"""Read what is in the topics: our events, what the consumers were given, and what they put aside."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from closeflow.contracts.topics import BROKER_FILL, SUBMIT_ORDER, dead_letter_topic
from closeflow.domain.model import Topic
from closeflow.domain.outbox.publication_audit import EventKey
from closeflow.kafka.connection import KafkaConnection
from closeflow.kafka.read_to_end import Partition, TailRecord, open_tail

PUBLISH_WITHIN: Final = timedelta(seconds=30)
"""T_pub."""
KAFKA: Final = "Kafka"

Place = tuple[str, int, int]
"""A record by topic, partition and offset."""


@dataclass(frozen=True, slots=True)
class TopicNames:
    """What to read: the outbox's topics by their names in Kafka, and the topics that a consumer of ours reads, with the
    group it commits as. Of the latter the dead letter topics are read too."""

    outbox: Mapping[str, Topic] = field(default_factory=lambda: {topic.value: topic for topic in Topic})
    groups: Mapping[str, str] = field(
        default_factory=lambda: {"order-submitter": SUBMIT_ORDER, "fill-processor": BROKER_FILL}
    )

    @property
    def all(self) -> list[str]:
        """Every topic to be read, each once."""
        return list(dict.fromkeys([*self.outbox, *self.groups.values(), *self.dead_letters]))

    @property
    def dead_letters(self) -> frozenset[str]:
        """Those that the consumers write to."""
        return frozenset(map(dead_letter_topic, self.groups.values()))


@dataclass(frozen=True, slots=True)
class Published:
    """A record of one of our topics. `value` is empty if it is no JSON object; `time` is when its row was written."""

    topic: Topic
    partition: int
    key: str
    event_key: EventKey
    time: datetime
    value: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Given:
    """A record of a topic that a consumer of ours reads; `event_id` is None if its value names none."""

    place: Place
    event_id: UUID | None
    value: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Topics:
    """`dead` are the places that dead letters came from, `ends` the offset after each partition's last record."""

    published: list[Published]
    given: list[Given] = field(default_factory=list)
    dead: frozenset[Place] = frozenset()
    ends: Mapping[Partition, int] = field(default_factory=dict)


async def read_topics(connection: KafkaConnection, names: TopicNames) -> Topics:
    """Every record up to the present ends, in the order of each partition. Records of the outbox's topics that did not
    come from the outbox are not `published`. Raises KafkaError, OSError, LookupError and TimeoutError."""
    async with open_tail(connection, names.all, None) as tail:
        records = await tail.drain()
        ends = tail.ends
    published: list[Published] = []
    given: list[Given] = []
    dead: set[Place] = set()
    for record in records:
        if record.topic in names.dead_letters:
            dead.add(_origin(record))
            continue
        value = _value(record.value)
        if record.topic in names.outbox:
            found = _published(record, names.outbox[record.topic], value)
            published += [found] if found is not None else []
        if record.topic in names.groups.values():
            given.append(Given((record.topic, record.partition, record.offset), _uuid(value.get("event_id")), value))
    return Topics(published, given, frozenset(dead), ends)


def _value(raw: bytes | None) -> Mapping[str, Any]:
    try:
        value = json.loads(raw or b"", parse_float=Decimal)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _published(record: TailRecord, topic: Topic, value: Mapping[str, Any]) -> Published | None:
    headers = {name: raw.decode(errors="replace") for name, raw in record.headers if raw is not None}
    try:
        event_key = (UUID(headers["ce_id"]), int(headers["emission"]))
        time = datetime.fromisoformat(headers["ce_time"])
    except (KeyError, ValueError):
        return None
    key = (record.key or b"").decode(errors="replace")
    return Published(topic, record.partition, key, event_key, time, value)


def _origin(record: TailRecord) -> Place:
    headers = {name: (raw or b"").decode(errors="replace") for name, raw in record.headers}
    topic = headers.get("dlq_origin_topic", "")
    try:
        return (topic, int(headers["dlq_origin_partition"]), int(headers["dlq_origin_offset"]))
    except (KeyError, ValueError):
        return (topic, -1, -1)


def _uuid(value: object) -> UUID | None:
    try:
        return UUID(str(value))
    except ValueError:
        return None
