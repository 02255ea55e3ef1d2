"""Check the topics against the database (invariants 14 to 17): what is there, in what order, with what sum."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from closectl.verifying.report import Looked, looked
from closeflow.domain.events import EXECUTION_RECORDED, decimal_text
from closeflow.domain.model import Topic
from closeflow.domain.publication import EventKey
from closeflow.kafka.connection import KafkaConnection
from closeflow.kafka.tail import TailRecord, open_tail
from closeflow.storage.verifying import BookedExecution, PositionState, State

PUBLISH_WITHIN: Final = timedelta(seconds=30)
"""T_pub."""
KAFKA: Final = "Kafka"

Wrong = Iterator[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Published:
    """A record of one of our topics. `value` is empty if it is no JSON object; `time` is when its row was written."""

    topic: Topic
    partition: int
    key: str
    event_key: EventKey
    time: datetime
    value: Mapping[str, Any]


async def read_topics(connection: KafkaConnection, names: Mapping[str, Topic]) -> list[Published]:
    """Every record of our topics up to their present ends, in the order of each partition. Records that did not come
    from the outbox are left out. `names` gives the topics' names in Kafka. Raises KafkaError, OSError, LookupError and
    TimeoutError."""
    async with open_tail(connection, list(names), None) as tail:
        records = await tail.drain()
    return [found for one in records if (found := _published(one, names[one.topic])) is not None]


def check_topics(state: State, published: Sequence[Published]) -> list[Looked]:
    """`published` was read after `state`, so what is newer than it may be there too."""
    events = {one.event_key: one for one in published}
    positions = [one for one in published if one.topic is Topic.POSITION_EVENTS]
    executions = {one.event_key[0]: one for one in published if one.value.get("event_type") == EXECUTION_RECORDED}
    return [
        looked(14, KAFKA, "outbox rows", len(state.outbox), _missing(state, events.keys())),
        looked(15, KAFKA, "records", len(published), [*_partitions(published), *_versions(positions)]),
        looked(16, KAFKA, "execution events", len(executions), _ledger(state, executions.values())),
        looked(17, KAFKA, "positions", len(state.positions), _risk(state, positions)),
    ]


def _published(record: TailRecord, topic: Topic) -> Published | None:
    headers = {name: raw.decode(errors="replace") for name, raw in record.headers if raw is not None}
    try:
        event_key = (UUID(headers["ce_id"]), int(headers["emission"]))
        time = datetime.fromisoformat(headers["ce_time"])
        value = json.loads(record.value or b"", parse_float=Decimal)
    except (KeyError, ValueError):
        return None
    key = (record.key or b"").decode(errors="replace")
    return Published(topic, record.partition, key, event_key, time, value if isinstance(value, dict) else {})


def _missing(state: State, seen: Iterable[EventKey]) -> Wrong:
    """A row is published when it is in Kafka, or a later emission of its event is."""
    emissions: dict[UUID, int] = {}
    for event_id, emission in seen:
        emissions[event_id] = max(emission, emissions.get(event_id, 0))
    for row in state.outbox:
        if emissions.get(row.event_id, 0) < row.emission and row.occurred_at + PUBLISH_WITHIN < state.at:
            of = f" of position {row.position_id}" if row.position_id is not None else ""
            yield f"event {row.event_id}", f"{row.event_type}{of} (emission {row.emission}) is not in {row.topic}"


def _partitions(published: Iterable[Published]) -> Wrong:
    partitions: defaultdict[tuple[Topic, str], set[int]] = defaultdict(set)
    for one in published:
        partitions[(one.topic, one.key)].add(one.partition)
        if str(one.value.get("position_id")) != one.key:
            yield f"event {one.event_key[0]}", f"is of position {one.value.get('position_id')} under key {one.key!r}"
    for (topic, key), found in partitions.items():
        if len(found) > 1:
            yield f"position {key}", f"its events are on partitions {sorted(found)} of {topic}"


def _versions(events: Iterable[Published]) -> Wrong:
    """Each version says one thing, and is seen for the first time after all lower ones; later copies do no harm."""
    said: dict[tuple[str, int], tuple[object, object]] = {}
    highest: dict[str, int] = {}
    for one in events:
        version = _version(one)
        state = (one.value.get("position_status"), one.value.get("quantity"))
        is_new = (one.key, version) not in said
        if said.setdefault((one.key, version), state) != state:
            yield f"position {one.key}", f"two events of version {version} say {said[(one.key, version)]} and {state}"
        if is_new and one.event_key[1] == 1 and version < highest.get(one.key, 0):
            yield f"position {one.key}", f"version {version} was published after version {highest[one.key]}"
        highest[one.key] = max(version, highest.get(one.key, 0))


def _ledger(state: State, events: Iterable[Published]) -> Wrong:
    """Each booked execution is recorded once, as it was booked; nothing else is."""
    booked = {(one.broker, one.account_id, one.exec_id): one for one in state.executions}
    # An event outlives its outbox row by far, so the oldest row bounds what must be there.
    since = min((row.occurred_at for row in state.outbox), default=state.at)
    recorded: defaultdict[tuple[str, str, str], list[Published]] = defaultdict(list)
    for one in events:
        recorded[tuple(str(one.value.get(name)) for name in ("broker", "account_id", "exec_id"))].append(one)  # type: ignore[index]
    for key, execution in booked.items():
        found = recorded.pop(key, [])
        if not found and since <= execution.recorded_at < state.at - PUBLISH_WITHIN:
            yield f"execution {execution.exec_id}", f"of {execution.client_order_id} is not in execution-events"
        if len(found) > 1:
            yield f"execution {execution.exec_id}", f"is recorded by {len(found)} different events"
        for one in found:
            if _content(one) != (execution.position_id, execution.side, execution.quantity, execution.price):
                yield f"execution {execution.exec_id}", f"was booked as {_told(execution)}, recorded as {_content(one)}"
    for (_, _, exec_id), found in recorded.items():
        for one in found:
            if one.time < state.at - PUBLISH_WITHIN:
                yield f"execution {exec_id}", f"event {one.event_key[0]} records it, but it is not booked"


def _content(one: Published) -> tuple[object, ...]:
    value = one.value
    try:
        return (
            value["position_id"],
            value["side"],
            Decimal(str(value["quantity"])),
            Decimal(str(value["price"])),
        )
    except (KeyError, ArithmeticError):
        return ("unreadable",)


def _told(one: BookedExecution) -> str:
    return f"{one.side} {decimal_text(one.quantity)} @ {decimal_text(one.price)} of position {one.position_id}"


def _risk(state: State, events: Iterable[Published]) -> Wrong:
    """What risk knows after applying only higher versions; newer than the snapshot is not compared."""
    newest: dict[str, Published] = {}
    for one in events:
        if one.key not in newest or _version(one) > _version(newest[one.key]):
            newest[one.key] = one
    since = min((row.occurred_at for row in state.outbox), default=state.at)
    late = {row.position_id for row in state.outbox if row.occurred_at + PUBLISH_WITHIN >= state.at}
    for position in state.positions:
        known = newest.get(str(position.id))
        if known is None or position.id in late or known.time < since or _version(known) > position.version:
            continue
        yield from _differs(position, known)


def _differs(position: PositionState, known: Published) -> Wrong:
    told = (known.value.get("position_status"), known.value.get("quantity"))
    if (_version(known), *told) != (position.version, position.status, decimal_text(position.quantity)):
        yield (
            f"position {position.id}",
            f"is {position.status} with {decimal_text(position.quantity)} at version {position.version}; risk has "
            f"{told[0]} with {told[1]} at version {_version(known)}",
        )


def _version(one: Published) -> int:
    found = one.value.get("position_version")
    return found if isinstance(found, int) else 0
