"""A service does not start where Kafka's topics, or its rights, are not as the files say; one line says what."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import pytest

from closectl.platform.kafka_access import apply_access
from closeflow.contracts.kafka_rights import PRINCIPALS_FILE, Access, Acl, Pattern, Resource, load_access
from closeflow.kafka.apply_topics import apply_topics, compare_topics
from closeflow.kafka.topics import load_topics
from demo.system import REPOSITORY, System
from tests.closectl.running import closectl
from tests.system.desk import Desk

TOPICS: Final = load_topics(REPOSITORY / "schemas/topics")
CONSUMERS: Final = ("order-submitter", "broker-gateway", "fill-processor", "reconciler")
WITHIN_S: Final = 120


@contextmanager
def changed(system: System, name: str, **settings: str) -> Iterator[None]:
    """Somebody gives a topic other settings; afterwards it has its own again."""
    spec = next(one for one in TOPICS if one.name == name)
    other = {setting.replace("_", "."): value for setting, value in settings.items()}
    asyncio.run(apply_topics(system.kafka, [replace(spec, config={**spec.config, **other})]))
    try:
        yield
    finally:
        asyncio.run(apply_topics(system.kafka, TOPICS))
        assert asyncio.run(compare_topics(system.kafka, TOPICS)) == ()


@contextmanager
def without(system: System, *acls: Acl) -> Iterator[None]:
    """Rights that a principal lacks; afterwards it has them."""
    wanted = load_access(REPOSITORY / "schemas/topics", REPOSITORY / PRINCIPALS_FILE)
    assert wanted.acls >= set(acls)
    apply_access(system.kafka, Access(wanted.principals, wanted.acls - set(acls)), {})
    try:
        yield
    finally:
        apply_access(system.kafka, wanted, {})


def refused(system: System, service: str) -> str:
    """Why another instance of the service does not start: the only line it says of it, at its end with exit code 2."""
    (system.directory / f"{service}-another.log").unlink(missing_ok=True)
    launched = system.launch(f"{service}-another")
    try:
        assert launched.process.wait(WITHIN_S) == 2, launched.log.read_text()
    finally:
        system.running.pop(f"{service}-another").kill()
    lines = [json.loads(line) for line in launched.log.read_text().splitlines()]
    last = lines[-1]
    assert last["event"] == "start_refused", last
    assert [one for one in lines if one["level"] in ("warning", "error")] == [last]
    return str(last["reason"])


@pytest.mark.parametrize("service", CONSUMERS)
def test_a_changed_setting_of_its_topic_stops_the_start_of_a_service(desk: Desk, service: str) -> None:
    with changed(desk.system, "broker-fill", retention_ms="60000"):
        assert refused(desk.system, service) == (
            "topic broker-fill has retention.ms=60000, and schemas/topics says 2592000000; run `closectl topics "
            "apply`, or mend the file"
        )


def test_a_setting_that_no_file_says_stops_it_too_and_topics_of_others_do_not(desk: Desk) -> None:
    with changed(desk.system, "submit-order", retention_bytes="1000000"):
        assert refused(desk.system, "order-submitter") == (
            "topic submit-order has retention.bytes=1000000, which schemas/topics does not say; run `closectl topics "
            "apply` to take it away, or say it in the file"
        )
        desk.restart("fill-processor")


def test_several_differences_are_one_line(desk: Desk) -> None:
    with changed(desk.system, "broker-fill.dlq", retention_ms="60000", cleanup_policy="compact"):
        said = refused(desk.system, "fill-processor")
        assert "topic broker-fill.dlq has cleanup.policy=compact" in said
        assert said.endswith("(and 1 more; `closectl topics diff` shows all)")


@pytest.mark.parametrize(
    ("service", "topic", "operation"),
    [
        ("fill-processor", "broker-fill.dlq", "WRITE"),
        ("fill-processor", "broker-fill", "DESCRIBE_CONFIGS"),
        ("order-submitter", "broker-fill", "WRITE"),
        ("broker-gateway", "broker-fill", "DESCRIBE_CONFIGS"),
        ("reconciler", "execution-events", "READ"),
    ],
)
def test_a_right_that_it_lacks_stops_the_start_of_a_service(
    desk: Desk, service: str, topic: str, operation: str
) -> None:
    """With READ or WRITE goes DESCRIBE, so that what it may not see is not there for it."""
    with without(desk.system, Acl(service, Resource.TOPIC, Pattern.LITERAL, topic, operation)):
        said = refused(desk.system, service)
    seen = f"this login may not {operation} topic {topic}; `closectl topics apply --acls` gives {operation} to whom"
    unseen = f"topic {topic} is not there, or this login may not see it; run `closectl topics apply`"
    assert seen in said or unseen in said, said


def test_rights_that_differ_are_told(desk: Desk) -> None:
    lacking = Acl("fill-processor", Resource.TOPIC, Pattern.LITERAL, "broker-fill.dlq", "DESCRIBE_CONFIGS")
    extra = Acl("broker-gateway", Resource.TOPIC, Pattern.LITERAL, "submit-order", "READ")
    assert closectl("topics", "diff", "--acls", **desk.operator).exit_code == 0
    with without(desk.system, lacking):
        wanted = load_access(REPOSITORY / "schemas/topics", REPOSITORY / PRINCIPALS_FILE)
        apply_access(desk.system.kafka, Access(wanted.principals, wanted.acls - {lacking} | {extra}), {})
        found = closectl("topics", "diff", "--acls", **desk.operator)
    assert found.exit_code == 1
    assert found.stdout.splitlines() == [
        f"not allowed, and the files say it should be: {lacking}; run `closectl topics apply --acls`",
        f"allowed, and the files do not say it: {extra}; run `closectl topics apply --acls`",
        f"{len(TOPICS)} topics and {len(wanted.acls)} rights compared with their files: 2 differences",
    ]
