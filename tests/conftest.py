"""What every test of the real servers shares: the stack, and databases that cost a copy of a migrated one."""

import hashlib
import re
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from psycopg import sql
from psycopg.rows import TupleRow
from sqlalchemy.ext.asyncio import AsyncEngine

import devstack
from closectl.platform.connector import Outbox, outbox_of, register, unregister, write_credentials
from closeflow.storage.core.engine import make_engine
from closeflow.storage.schema import migrate

REPOSITORY: Final = Path(__file__).resolve().parents[1]
if str(REPOSITORY) not in sys.path:  # tests import what they share as tests.<folder>.<module>
    sys.path.insert(0, str(REPOSITORY))
INSTANCE: Final = "test"
collect_ignore: Final = ["deploy"]  # Needs a Docker engine: `make test-deploy`.
STALE_AFTER_S: Final = 3600
_TEMPLATE_LOCK: Final = 7_236_501
_published: list[tuple[str, str]] = []


@dataclass(frozen=True, slots=True)
class Database:
    """A migrated database of its own, and how to log in to it."""

    stack: devstack.Stack
    name: str

    @property
    def admin_dsn(self) -> str:
        return with_database(self.stack.admin_dsn, self.name)

    def dsn(self, role: str) -> str:
        """The DSN of a service's role: `closeflow_close_api`, ... (migrate.ROLES)."""
        return self.stack.postgres_dsn(role, passwords(self.stack)[role], self.name)


def with_database(dsn: str, name: str) -> str:
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))


def passwords(stack: devstack.Stack) -> dict[str, str]:
    return migrate.role_passwords(str(urlsplit(stack.admin_dsn).password))


@pytest.fixture(scope="session")
def stack() -> devstack.Stack:
    """The servers. Embedded ones stay up after the tests, so that the next run starts at once."""
    return devstack.up(INSTANCE)


@pytest.fixture(scope="session", autouse=True)
async def published_topics() -> AsyncIterator[list[tuple[str, str]]]:
    """(bootstrap servers, prefix) of what this run's connectors published; deleted at the end."""
    yield _published
    for servers in {servers for servers, _ in _published}:
        admin = AIOKafkaAdminClient(bootstrap_servers=servers)
        await admin.start()
        prefixes = tuple(prefix for _, prefix in _published)
        if ours := [topic for topic in await admin.list_topics() if topic.startswith(prefixes)]:
            await admin.delete_topics(ours)
        await admin.close()


@pytest.fixture(scope="session")
def template(stack: devstack.Stack) -> str:
    """The name of a migrated database that nobody uses."""
    return template_of(stack, f"{datetime.now(UTC):%Y%m%d}")


@cache
def template_of(stack: devstack.Stack, day: str) -> str:
    """It is kept between runs for as long as the migrations and the day are the same (the day, because the outbox has
    partitions for the days to come)."""
    digest = hashlib.sha256()
    for file in sorted((REPOSITORY / "migrations").rglob("*.py")):
        digest.update(file.read_bytes())
    with psycopg.connect(stack.admin_dsn, autocommit=True) as admin:
        admin.execute("SELECT pg_advisory_lock(%s)", (_TEMPLATE_LOCK,))
        drop_stale(stack, admin)
        name = f"closeflow_template_{day}_{digest.hexdigest()[:12]}"
        if admin.execute("SELECT FROM pg_database WHERE datname = %s", (name,)).fetchone() is None:
            making = f"{name}_making"
            admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(making)))
            admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(making)))
            migrate.upgrade(with_database(stack.admin_dsn, making))
            migrate.set_role_passwords(stack.admin_dsn, passwords(stack))
            rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
            admin.execute(rename.format(sql.Identifier(making), sql.Identifier(name)))
    return name


def drop_stale(stack: devstack.Stack, admin: psycopg.Connection[TupleRow]) -> None:
    """Remove what runs that were killed left behind: their databases, connectors and slots, and older templates."""
    found = admin.execute(
        "SELECT datname FROM pg_database WHERE datname LIKE 'test\\_%' OR datname LIKE 'closeflow\\_t%'"
    )
    today = f"closeflow_template_{datetime.now(UTC):%Y%m%d}"
    for (name,) in found.fetchall():
        made = re.match(r"test_([0-9a-f]{8})_", name)
        if (made and time.time() - int(made[1], 16) > STALE_AFTER_S) or (not made and not name.startswith(today)):
            dsn = with_database(stack.admin_dsn, name)
            unregister(stack.connect_url, outbox_in(stack, dsn), dsn=dsn)
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def credentials_file(stack: devstack.Stack) -> Path:
    return stack.data_dir / "debezium.properties"


def outbox_in(stack: devstack.Stack, dsn: str, *, topic_prefix: str = "") -> Outbox:
    """The connector of a database of the stack, as the stack's Connect reaches it."""
    return outbox_of(
        dsn,
        credentials_file(stack),
        topic_prefix=topic_prefix,
        host=stack.connect_postgres_host,
        port=stack.connect_postgres_port,
    )


@contextmanager
def fresh_database(stack: devstack.Stack, template: str | None) -> Iterator[Database]:
    """A copy of the template (of today's, if midnight has passed), or an empty database without one; dropped at the
    end, with every session in it."""
    template = template and template_of(stack, f"{datetime.now(UTC):%Y%m%d}")
    name = f"test_{int(time.time()):x}_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(stack.admin_dsn, autocommit=True) as admin:
        source = sql.SQL(" TEMPLATE {} STRATEGY WAL_LOG").format(sql.Identifier(template)) if template else sql.SQL("")
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)) + source)
    try:
        yield Database(stack, name)
    finally:
        with psycopg.connect(stack.admin_dsn, autocommit=True) as admin:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def outbox_connector(database: Database, *, topic_prefix: str) -> Iterator[Outbox]:
    """Debezium on a database's outbox for as long as the block runs, publishing to `topic_prefix` + the row's topic."""
    stack = database.stack
    write_credentials(credentials_file(stack), passwords(stack)[migrate.DEBEZIUM])
    outbox = outbox_in(stack, database.admin_dsn, topic_prefix=topic_prefix)
    made = (outbox.connector, f"__debezium-heartbeat.{outbox.connector}", *([topic_prefix] if topic_prefix else []))
    _published.extend((stack.kafka_bootstrap_servers, prefix) for prefix in made)
    try:
        register(stack.connect_url, outbox, dsn=database.admin_dsn)
        yield outbox
    finally:
        unregister(stack.connect_url, outbox, dsn=database.admin_dsn)


@pytest.fixture
def database(stack: devstack.Stack, template: str) -> Iterator[Database]:
    """A migrated database for one test."""
    with fresh_database(stack, template) as made:
        yield made


@pytest.fixture(scope="module")
def module_database(stack: devstack.Stack, template: str) -> Iterator[Database]:
    """A migrated database for the tests of one file."""
    with fresh_database(stack, template) as made:
        yield made


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[AsyncEngine]:
    """The owner's engine on `database`."""
    made = make_engine(database.admin_dsn, pool_size=4, application_name="closeflow-tests")
    yield made
    await made.dispose()
