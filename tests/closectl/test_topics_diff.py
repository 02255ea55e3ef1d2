"""`closectl topics diff` and `apply`: what differs is a line each, with an exit code for machines."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from uuid import uuid4

import pytest

import devstack
from closeflow.kafka import KafkaConnection, load_topics
from closeflow.kafka.topics import remove_topics
from tests.closectl.running import closectl
from tests.closectl.test_environment import told

FILE: Final = "topic: {name}\npartitions: {partitions}\nconfig: {{retention.ms: {retention}}}\n"


@pytest.fixture
def directory(stack: devstack.Stack, tmp_path: Path) -> Iterator[Path]:
    """One topic file; its topic is gone afterwards."""
    (tmp_path / "one.yaml").write_text(FILE.format(name=f"test-{uuid4().hex[:12]}", partitions=2, retention=60000))
    specs = load_topics(tmp_path)
    yield tmp_path
    asyncio.run(remove_topics(KafkaConnection(stack.kafka_bootstrap_servers), specs))


def test_differences_are_told_and_applying_ends_them(stack: devstack.Stack, directory: Path) -> None:
    kafka = {"kafka_bootstrap_servers": stack.kafka_bootstrap_servers}
    diff = ("topics", "diff", "--directory", str(directory))
    apply = ("topics", "apply", "--directory", str(directory), "--replication-factor", "1")
    (name,) = (spec.name for spec in load_topics(directory))
    missing = closectl(*diff, **kafka)
    assert missing.exit_code == 1
    assert missing.stdout.splitlines() == [
        f"topic {name} is not there, or this login may not see it; run `closectl topics apply`",
        "1 topics compared with their files: 1 differences",
    ]
    assert closectl(*apply, **kafka).exit_code == 0
    same = closectl(*diff, "--replication-factor", "1", **kafka)
    assert (same.exit_code, same.stdout) == (0, "1 topics compared with their files: no differences\n")
    (directory / "one.yaml").write_text(FILE.format(name=name, partitions=2, retention=120000))
    changed = closectl(*diff, "--replication-factor", "3", "--json", **kafka)
    assert changed.exit_code == 1
    found = json.loads(changed.stdout)
    assert (found["topics"], found["rights"], len(found["differences"])) == (1, None, 2)
    assert "has 1 copies and should have 3" in found["differences"][0]
    assert "has retention.ms=60000, and schemas/topics says 120000" in found["differences"][1]
    applied = closectl(*apply, **kafka)
    assert applied.stdout.splitlines()[1:] == [f"{name}: retention.ms was 60000, is 120000"]
    assert closectl(*diff, **kafka).exit_code == 0
    (directory / "one.yaml").write_text(FILE.format(name=name, partitions=4, retention=120000))
    assert "has 2 partitions, and schemas/topics says 4" in closectl(*diff, **kafka).stdout


def test_a_setting_that_kafka_does_not_know_is_told(stack: devstack.Stack, directory: Path) -> None:
    file = directory / "one.yaml"
    apply = ("topics", "apply", "--directory", str(directory), "--replication-factor", "1")
    kafka = {"kafka_bootstrap_servers": stack.kafka_bootstrap_servers}
    assert closectl(*apply, **kafka).exit_code == 0
    file.write_text(file.read_text().replace("retention.ms", "retention.years"))
    line = told(closectl(*apply, **kafka))
    assert "cannot be changed" in line
    assert "retention.years" in line


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("topic: t\npartitions: 0\nconfig: {}\n", "one.yaml: partitions: Input should be greater than or equal to 1"),
        ("topic: t\npartitions: '6'\nconfig: {}\n", "one.yaml: partitions: Input should be a valid integer"),
        ("topic: a topic\npartitions: 1\nconfig: {}\n", "one.yaml: topic: String should match pattern"),
        ("partitions: 1\nconfig: {}\n", "one.yaml: topic: Field required; mend the file"),
        ("topic: t\npartitions: 1\nconfig: {retention.ms: [1]}\n", "one.yaml: config.retention.ms: Input should be"),
        ("topic: t\npartitions: 1\nconfig: {min.insync.replicas: two}\n", "min.insync.replicas has to be a number"),
        ("- topic: t\n", "one.yaml has to be a mapping with topic, partitions and config"),
        ("topic: [\n", "one.yaml is no YAML: "),
        (b"topic: \xff\n", "one.yaml is not UTF-8"),
    ],
)
def test_a_topic_file_that_cannot_be_read_is_told(tmp_path: Path, text: str | bytes, wrong: str) -> None:
    (tmp_path / "one.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    for verb in ("apply", "diff"):
        line = told(closectl("topics", verb, "--directory", str(tmp_path), kafka_bootstrap_servers="127.0.0.1:1"))
        assert wrong in line


def test_two_files_of_one_topic_are_told(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(FILE.format(name="t", partitions=1, retention=1))
    line = told(closectl("topics", "diff", "--directory", str(tmp_path), kafka_bootstrap_servers="127.0.0.1:1"))
    assert f"{tmp_path}/two.yaml is about topic t, and so is {tmp_path}/one.yaml; keep one of them" in line


def test_kafka_that_is_away_is_told() -> None:
    assert "cannot be reached at 127.0.0.1:1" in told(closectl("topics", "diff", kafka_bootstrap_servers="127.0.0.1:1"))
    assert "host:port of Kafka" in told(closectl("topics", "diff"))


def test_where_kafka_knows_no_rights_each_is_missing(stack: devstack.Stack, directory: Path) -> None:
    kafka = {"kafka_bootstrap_servers": stack.kafka_bootstrap_servers}
    named = "producer: broker-gateway\nconsumers: [fill-processor]\n"
    (directory / "one.yaml").write_text((directory / "one.yaml").read_text() + named)
    found = closectl("topics", "diff", "--acls", "--directory", str(directory), **kafka)
    (name,) = (spec.name for spec in load_topics(directory))
    missing = f"not allowed, and the files say it should be: fill-processor: READ topic {name}; run `closectl topics"
    assert found.exit_code == 1
    assert missing in found.stdout
