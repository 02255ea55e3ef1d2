"""What an installation runs once: the schema, the topics, the connector. Each may be repeated."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psycopg
import pytest

import devstack
from closectl.platform.connector import outbox_of, unregister, write_credentials
from closeflow.kafka import KafkaConnection
from closeflow.kafka.topics import load_topics, remove_topics
from closeflow.project_files import ProjectFilesMissing, project_path
from closeflow.storage.schema import migrate
from tests.closectl.running import closectl
from tests.closectl.test_environment import told
from tests.conftest import REPOSITORY, Database, credentials_file, fresh_database, passwords

TOPIC: Final = "topic: {name}\npartitions: {partitions}\nconfig: {{min.insync.replicas: 2, retention.ms: 60000}}\n"


@pytest.fixture
def empty(stack: devstack.Stack, template: str) -> Iterator[Database]:
    with fresh_database(stack, None) as made:
        yield made


@pytest.fixture
def files(stack: devstack.Stack, tmp_path: Path) -> Path:
    """The passwords that every test of this stack logs in with, one file each."""
    for role, password in passwords(stack).items():
        (tmp_path / role).write_text(f"{password}\n")
    return tmp_path


def test_a_database_is_brought_to_the_newest_schema_and_roles_can_log_in(empty: Database, files: Path) -> None:
    for _ in range(2):
        done = closectl("database", "migrate", "--passwords", str(files), postgres_dsn=empty.admin_dsn)
        assert (done.exit_code, done.stderr) == (0, "")
        assert done.stdout == f"the database is at revision {migrate.HEAD}, 7 roles have their passwords\n"
    for role in migrate.ROLES:
        with psycopg.connect(empty.dsn(role)) as login:
            assert login.execute("SELECT current_user").fetchone() == (role,)


@pytest.mark.parametrize(("text", "wrong"), [(None, "cannot be read (No such file"), (" \n", "is empty; put")])
def test_a_password_that_is_missing_is_told_before_anything_is_done(
    empty: Database, files: Path, text: str | None, wrong: str
) -> None:
    missing = files / "closeflow_reconciler"
    missing.unlink()
    if text is not None:
        missing.write_text(text)
    line = told(closectl("database", "migrate", "--passwords", str(files), postgres_dsn=empty.admin_dsn))
    assert f"{missing} {wrong}" in line
    with psycopg.connect(empty.admin_dsn) as login:
        assert login.execute("SELECT FROM pg_tables WHERE schemaname = 'public'").rowcount == 0


def test_a_login_that_may_not_migrate_is_told(empty: Database) -> None:
    line = told(closectl("database", "migrate", postgres_dsn=empty.dsn("closeflow_close_api")))
    assert "may not do it" in line
    away = told(closectl("database", "migrate", postgres_dsn="postgresql://me:hunter2@127.0.0.1:1/x"))
    assert "cannot be asked" in away
    assert "hunter2" not in away
    assert "give the DSN of the database's owner" in told(closectl("database", "migrate"))


def test_topics_are_made_once_and_a_changed_number_of_partitions_is_refused(
    stack: devstack.Stack, tmp_path: Path
) -> None:
    name, file = f"test-{uuid4().hex[:12]}", tmp_path / "one.yaml"
    file.write_text(TOPIC.format(name=name, partitions=2))
    kafka = KafkaConnection(stack.kafka_bootstrap_servers)
    apply = ("topics", "apply", "--directory", str(tmp_path), "--replication-factor", "1")
    specs = load_topics(tmp_path)
    try:
        first, second = (closectl(*apply, kafka_bootstrap_servers=kafka.bootstrap_servers) for _ in range(2))
        assert first.stdout == f"1 topics are as their files say: created {name}\n", first.stderr
        assert second.stdout == "1 topics are as their files say: nothing to create\n", second.stderr
        file.write_text(TOPIC.format(name=name, partitions=3))
        changed = closectl(*apply, kafka_bootstrap_servers=kafka.bootstrap_servers)
        assert f"topic {name} has 2 partitions" in told(changed, code=1)
    finally:
        asyncio.run(remove_topics(kafka, specs))


def test_topics_that_cannot_be_made_are_told(stack: devstack.Stack, tmp_path: Path) -> None:
    kafka = stack.kafka_bootstrap_servers
    assert "no topic files" in told(
        closectl("topics", "apply", "--directory", str(tmp_path), kafka_bootstrap_servers=kafka)
    )
    (tmp_path / "one.yaml").write_text(TOPIC.format(name=f"test-{uuid4().hex[:12]}", partitions=1))
    apply = ("topics", "apply", "--directory", str(tmp_path))
    assert "replication factor" in told(closectl(*apply, kafka_bootstrap_servers=kafka)).lower()
    assert "cannot be reached at 127.0.0.1:1" in told(closectl(*apply, kafka_bootstrap_servers="127.0.0.1:1"))


def test_the_connector_is_registered_and_streams(stack: devstack.Stack, database: Database) -> None:
    credentials = credentials_file(stack)
    call = ("connector", "register", "--connect-url", stack.connect_url, "--credentials-file", str(credentials))
    dsn = database.dsn("closeflow_operator")
    outbox = outbox_of(dsn, credentials)
    write_credentials(credentials, passwords(stack)[migrate.DEBEZIUM])
    try:
        done = closectl(*call, "--topic-prefix", f"{database.name}.", postgres_dsn=dsn)
        assert done.stdout == f"{outbox.connector} is running, slot {outbox.slot} is active\n", done.stderr
    finally:
        unregister(stack.connect_url, outbox, dsn=database.admin_dsn)


@pytest.mark.parametrize(
    ("call", "wrong", "code"),
    [
        (("--connect-url", "http://127.0.0.1:9", "--wait", "0.3"), "does not answer", 1),
        (("--connect-url", "worker:8083"), "must be an address such as", 2),
    ],
    ids=["away", "no address"],
)
def test_a_worker_that_is_not_there_is_told(database: Database, call: Sequence[str], wrong: str, code: int) -> None:
    given = ("--credentials-file", "/run/debezium.properties", *call)
    assert wrong in told(
        closectl("connector", "register", *given, postgres_dsn=database.dsn("closeflow_operator")), code
    )


def test_a_database_that_refuses_the_login_is_told(database: Database) -> None:
    good = urlsplit(database.dsn("closeflow_operator"))
    wrong = urlunsplit(good._replace(netloc=good.netloc.replace(str(good.password), "hunter2")))
    call = ("--connect-url", "http://127.0.0.1:9", "--credentials-file", "/run/debezium.properties")
    line = told(closectl("connector", "register", *call, postgres_dsn=wrong))
    assert "password authentication failed" in line
    assert "hunter2" not in line


def test_files_are_found_above_the_package_or_it_is_told(tmp_path: Path) -> None:
    """The same way in a checkout and in an image, where they lie above the packages."""
    assert project_path("schemas/topics") == REPOSITORY / "schemas" / "topics"
    package = tmp_path / "lib" / "closeflow" / "project_files.py"
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations" / "env.py").touch()
    assert project_path("migrations/env.py", above=package) == tmp_path / "migrations" / "env.py"
    with pytest.raises(ProjectFilesMissing, match="run from a checkout"):
        project_path("connect/outbox-connector.json", above=package)
