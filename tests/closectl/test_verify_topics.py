"""What the topics show: the outbox as Debezium publishes it, with one thing wrong, must be found by its invariant."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import pytest
from aiokafka.admin import AIOKafkaAdminClient

import devstack
from closectl.verifying.ledger import check_ledger
from closectl.verifying.reading import Published, TopicNames, Topics, read_topics
from closectl.verifying.report import Looked, NotChecked, Violation
from closectl.verifying.run import OF_TOPICS, verify
from closectl.verifying.topics import check_topics
from closeflow.domain.model import Topic
from closeflow.kafka import KafkaConnection, TopicSpec, ensure_topics, open_producer
from closeflow.storage.core.engine import Database
from closeflow.storage.verify.compared_state import State
from tests.closectl.publishing import Records, published

Change = Callable[[Records], Records]


def check(state: State, records: Records) -> list[Looked]:
    return [*check_topics(state, records), *check_ledger(state, records)]


def violations(findings: Sequence[Looked]) -> list[Violation]:
    return [one for part in findings for one in part.violations]


def index(records: Records, topic: Topic, **wanted: object) -> int:
    return next(
        number for number, one in enumerate(records) if one.topic is topic and wanted.items() <= one.value.items()
    )


def change(topic: Topic, wanted: dict[str, Any], *, value: dict[str, Any] | None = None, **changes: Any) -> Change:
    """One record, changed in its value or in the rest."""

    def made(records: Records) -> Records:
        at = index(records, topic, **wanted)
        one = records[at]
        changed = replace(one, value={**one.value, **(value or {})}, **changes)
        return [*records[:at], changed, *records[at + 1 :]]

    return made


def without(topic: Topic, **wanted: object) -> Change:
    def made(records: Records) -> Records:
        at = index(records, topic, **wanted)
        return records[:at] + records[at + 1 :]

    return made


def later(topic: Topic, **wanted: object) -> Change:
    """One record at the end of the topic instead of at its place."""

    def made(records: Records) -> Records:
        at = index(records, topic, **wanted)
        return [*records[:at], *records[at + 1 :], records[at]]

    return made


def again(topic: Topic, wanted: dict[str, Any], *, value: dict[str, Any]) -> Change:
    """One record a second time, under a new event id and with other content."""

    def made(records: Records) -> Records:
        one = records[index(records, topic, **wanted)]
        return [*records, replace(one, event_key=(uuid.uuid4(), 1), value={**one.value, **value})]

    return made


SUBMIT, POSITIONS, EXECUTIONS = Topic.SUBMIT_ORDER, Topic.POSITION_EVENTS, Topic.EXECUTION_EVENTS
CLOSED: Final = {"position_id": 1, "position_version": 4}
FILL: Final = {"exec_id": "fill-1-1-4"}
PLANTS: Final[dict[str, tuple[int, str, Change]]] = {
    "order event that is missing": (14, "event", without(SUBMIT, position_id=4)),
    "position event that is missing": (14, "event", without(POSITIONS, position_id=4)),
    "position on two partitions": (15, "position 1", change(POSITIONS, CLOSED, partition=5)),
    "key that is not the position": (15, "event", change(SUBMIT, {"position_id": 4}, key="5")),
    "lower version after a higher": (15, "position 1", later(POSITIONS, position_id=1, position_version=2)),
    "one version that says two things": (15, "position 1", again(POSITIONS, CLOSED, value={"quantity": "1"})),
    "execution that is not recorded": (16, "execution fill-1-1-4", without(EXECUTIONS, **FILL)),
    "execution recorded twice": (16, "execution fill-1-1-4", again(EXECUTIONS, FILL, value={})),
    "execution recorded wrong": (16, "execution fill-1-1-4", change(EXECUTIONS, FILL, value={"price": "1"})),
    "execution that is not booked": (16, "execution x", again(EXECUTIONS, FILL, value={"exec_id": "x"})),
    "execution that cannot be read": (16, "execution fill-1-1-4", change(EXECUTIONS, FILL, value={"price": "much"})),
    "newest event is not the position": (17, "position 1", change(POSITIONS, CLOSED, value={"quantity": "1"})),
    "newest event is an old one": (17, "position 1", without(POSITIONS, **CLOSED)),
    "newest event is of another state": (
        17,
        "position 1",
        change(POSITIONS, CLOSED, value={"position_status": "open"}),
    ),
}


async def test_what_debezium_publishes_breaks_nothing(closes: Database) -> None:
    state, records = await published(closes)
    findings = check(state, records)
    assert violations(findings) == []
    assert {one.invariant for one in findings} == {14, 15, 16, 17}
    assert all(one.count > 0 for one in findings)


async def test_a_copy_of_every_record_breaks_nothing(closes: Database) -> None:
    state, records = await published(closes)
    assert violations(check(state, [*records, *records])) == []


async def test_what_is_newer_than_the_snapshot_is_not_judged(closes: Database) -> None:
    state, records = await published(closes)
    older = replace(
        state,
        at=min(row.occurred_at for row in state.outbox),
        executions=state.executions[:-1],
        positions=tuple(replace(one, version=one.version - 1) for one in state.positions),
    )
    assert violations(check(older, records)) == []
    assert violations(check(older, [])) == []


async def test_a_later_emission_stands_for_the_row(closes: Database) -> None:
    state, records = await published(closes)
    at = index(records, SUBMIT, position_id=4)
    event_id = records[at].event_key[0]
    records[at] = replace(records[at], event_key=(event_id, 2))
    assert violations(check(state, records)) == []


@pytest.mark.parametrize("name", PLANTS)
async def test_a_planted_violation_is_found(closes: Database, name: str) -> None:
    invariant, subject, planted = PLANTS[name]
    state, records = await published(closes)
    found = violations(check(state, planted(records)))
    assert any(one.invariant == invariant and one.subject.startswith(subject) for one in found), found


async def test_records_are_read_with_their_partition_and_headers(stack: devstack.Stack) -> None:
    connection = KafkaConnection(stack.kafka_bootstrap_servers)
    name, event_id = f"test-{uuid.uuid4().hex[:12]}", UUID(int=7)
    at = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)
    headers = [("ce_id", str(event_id).encode()), ("emission", b"2"), ("ce_time", b"2026-03-02T14:30:00Z")]
    await ensure_topics(connection, (TopicSpec(name=name, partitions=1, config={}),))
    try:
        async with open_producer(connection) as producer:
            value = json.dumps({"position_id": 7}).encode()
            await producer.publish(name, key=b"7", value=value, headers=headers)
            await producer.publish(name, key=b"7", value=b"not ours", headers=[])
            await producer.publish(name, key=b"8", value=b"[]", headers=headers)
        found = await read_topics(connection, TopicNames(outbox={name: Topic.POSITION_EVENTS}, groups={}))
    finally:
        admin = AIOKafkaAdminClient(**connection.options())
        await admin.start()
        await admin.delete_topics([name])
        await admin.close()
    published = [
        Published(Topic.POSITION_EVENTS, 0, "7", (event_id, 2), at, {"position_id": 7}),
        Published(Topic.POSITION_EVENTS, 0, "8", (event_id, 2), at, {}),
    ]
    assert found == Topics(published, ends={(name, 0): 3})


async def test_topics_that_cannot_be_read_are_said_not_to_be_checked(closes: Database, stack: devstack.Stack) -> None:
    missing = TopicNames(outbox={f"test-{uuid.uuid4().hex[:12]}": Topic.SUBMIT_ORDER}, groups={})
    there = KafkaConnection(stack.kafka_bootstrap_servers)
    report = await verify(closes, kafka=there, account="not asked", wait_s=0, topics=missing)
    away = await verify(closes, kafka=KafkaConnection("127.0.0.1:1"), account="not asked", wait_s=0)
    for one, why in ((report, "has no topic"), (away, "127.0.0.1:1 could not be read")):
        found = [part for part in one.findings if isinstance(part, NotChecked) and "the topics" in part.why]
        assert [part.invariant for part in found] == list(OF_TOPICS)
        assert all(why in part.why for part in found)
        assert one.violations == ()
