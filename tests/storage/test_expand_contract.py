"""What is deployed goes on while the schema moves: migrations since the last release only add, or say that they do not.

Squawk reads what the migrations execute: what would take something away from the released services, and what would
lock a table for as long as it takes to read it.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, event

import devstack
from closeflow.storage.core.engine import make_engine
from closeflow.storage.schema import fit, migrate
from tests.conftest import Database, fresh_database
from tests.storage.seeding import owner
from tests.system.released import release_or_expected_failure

TAKES_AWAY: Final = {
    "adding-not-nullable-field",
    "adding-required-field",
    "ban-drop-column",
    "ban-drop-function",
    "ban-drop-table",
    "ban-drop-view",
    "changing-column-type",
    "renaming-column",
    "renaming-table",
}
LOCKS_LONG: Final = {
    "adding-foreign-key-constraint",
    "ban-concurrent-index-creation-in-transaction",
    "constraint-missing-not-valid",
    "disallowed-unique-constraint",
    "require-concurrent-index-creation",
    "require-concurrent-index-deletion",
}
DEFINES: Final = ("ALTER", "CREATE", "DROP", "GRANT", "REVOKE", "UPDATE", "DELETE", "INSERT", "DO")
"""How statements begin that are worth reading; the others are Alembic's own."""
NEXT: Final = "9001"
AFTER: Final = "9002"


def squawk(statements: list[str]) -> list[tuple[str, str]]:
    """What it finds, as rule and the line of the statement; it does not know of grants."""
    kept = [one for one in map(str.strip, statements) if one.upper().startswith(DEFINES)]
    if not kept:
        return []
    said = ";\n".join(kept) + ";\n"
    program = Path(sys.executable).with_name("squawk")
    ended = subprocess.run(
        [program, "--reporter=json", "--pg-version=18"], input=said, capture_output=True, text=True, check=False
    )
    assert ended.stdout, ended.stderr
    lines = said.splitlines()
    found = [(str(one["rule_name"]), lines[one["line"]].strip()) for one in json.loads(ended.stdout)]
    assert [one for one in found if one[0] == "syntax-error"] == []
    return found + [("revoke", line) for line in lines if line.lstrip().upper().startswith("REVOKE ")]


@contextmanager
def executed() -> Iterator[list[str]]:
    said: list[str] = []
    listener = ("before_cursor_execute", lambda *told: said.append(told[2]))
    event.listen(Engine, *listener)
    try:
        yield said
    finally:
        event.remove(Engine, *listener)


def move(to: Any, dsn: str, folder: Path, revision: str) -> None:
    """As closeflow.storage.schema.migrate, with the migrations of `folder`."""
    with migrate.admin_engine(dsn) as engine, migrate.migrating(engine) as connection:
        to(_config(folder, connection), revision)


def _config(folder: Path, connection: object = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(folder))
    config.attributes["connection"] = connection
    return config


def wrong(dsn: str, folder: Path, released: str) -> list[str]:
    """Apply what is newer than the release, and say what of it may not be, a line each."""
    move(command.upgrade, dsn, folder, released)
    newer = [one for one in ScriptDirectory.from_config(_config(folder)).walk_revisions() if one.revision > released]
    told = []
    for one in reversed(newer):
        with executed() as said:
            move(command.upgrade, dsn, folder, one.revision)
        since = getattr(one.module, "contract_since", None)
        made = re.findall(r"CREATE TABLE (\w+)", "\n".join(said))
        for rule, line in squawk(said):
            index = re.match(r"CREATE INDEX \w+ ON (\w+)", line)
            if index is not None and index[1] in made:
                continue  # Nobody writes to the table yet.
            if rule in LOCKS_LONG:
                told.append(f"{one.revision} {rule}: {line}")
            elif rule in TAKES_AWAY | {"revoke"} and (since is None or since > released):
                told.append(f"{one.revision} {rule} while {released} is deployed: {line}")
    return told


@pytest.fixture
def empty(stack: devstack.Stack) -> Iterator[Database]:
    with fresh_database(stack, None) as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    copied = tmp_path / "migrations"
    shutil.copytree(migrate.find_migrations(), copied, ignore=shutil.ignore_patterns("__pycache__"))
    return copied


def plant(folder: Path, revision: str, up: str, *, after: str, down: str = "SELECT", since: str | None = None) -> None:
    marked = f"contract_since = {since!r}" if since else ""
    (folder / "versions" / f"{revision}_planted.py").write_text(f"""
from alembic import op
revision, down_revision, branch_labels, depends_on = {revision!r}, {after!r}, None, None
{marked}
def upgrade(): op.execute({up!r})
def downgrade(): op.execute({down!r})
""")


ADD: Final = "ALTER TABLE positions ADD COLUMN planted text"
DROP: Final = "ALTER TABLE positions DROP COLUMN planted"


def test_no_migration_since_the_release_takes_away_what_it_uses_or_locks_for_long(empty: Database) -> None:
    assert wrong(empty.admin_dsn, migrate.find_migrations(), release_or_expected_failure().head) == []


@pytest.mark.parametrize(
    ("statement", "rule"),
    [
        ("ALTER TABLE positions DROP COLUMN symbol", "ban-drop-column"),
        ("ALTER TABLE positions RENAME COLUMN symbol TO ticker", "renaming-column"),
        ("ALTER TABLE inbox RENAME TO seen", "renaming-table"),
        ("ALTER TABLE accounts ALTER COLUMN broker TYPE varchar(99)", "changing-column-type"),
        ("ALTER TABLE positions ADD COLUMN planted text NOT NULL", "adding-required-field"),
        ("ALTER TABLE accounts ALTER COLUMN credentials_ref SET NOT NULL", "adding-not-nullable-field"),
        ("DROP TABLE inbox CASCADE", "ban-drop-table"),
        ("REVOKE SELECT ON orders FROM closeflow_close_api", "revoke"),
        ("CREATE INDEX planted ON orders (updated_at)", "require-concurrent-index-creation"),
        ("ALTER TABLE orders ADD CONSTRAINT planted CHECK (attempt > 0)", "constraint-missing-not-valid"),
    ],
)
def test_what_may_not_be_is_found(database: Database, folder: Path, statement: str, rule: str) -> None:
    plant(folder, NEXT, statement, after=migrate.HEAD)
    assert [one for one in wrong(database.admin_dsn, folder, migrate.HEAD) if one.startswith(f"{NEXT} {rule}")]


@pytest.mark.parametrize(
    "statement",
    [
        ADD,
        "ALTER TABLE positions ADD COLUMN planted text NOT NULL DEFAULT ''",
        "CREATE TABLE planted (id bigint PRIMARY KEY, what text NOT NULL)",
        "GRANT SELECT ON orders TO closeflow_close_api",
        "ALTER TABLE orders ADD CONSTRAINT planted CHECK (attempt > 0) NOT VALID",
    ],
)
def test_what_only_adds_may_be(database: Database, folder: Path, statement: str) -> None:
    plant(folder, NEXT, statement, after=migrate.HEAD)
    assert wrong(database.admin_dsn, folder, migrate.HEAD) == []


def test_what_no_released_service_uses_may_be_taken_away(database: Database, folder: Path) -> None:
    plant(folder, NEXT, ADD, after=migrate.HEAD)
    plant(folder, AFTER, DROP, after=NEXT, since=NEXT)
    assert wrong(database.admin_dsn, folder, migrate.HEAD) == [
        f"{AFTER} ban-drop-column while {migrate.HEAD} is deployed: {DROP};"
    ]


def test_it_may_once_the_release_is_one_that_does_not_use_it(database: Database, folder: Path) -> None:
    plant(folder, NEXT, ADD, after=migrate.HEAD)
    plant(folder, AFTER, DROP, after=NEXT, since=NEXT)
    assert wrong(database.admin_dsn, folder, NEXT) == []


async def trouble(dsn: str) -> str | None:
    engine = make_engine(dsn, pool_size=1, application_name="test")
    try:
        return await fit.database_trouble(engine)
    finally:
        await engine.dispose()


async def test_services_work_on_a_newer_schema_until_it_takes_away_what_they_use(
    database: Database, folder: Path
) -> None:
    dsn = database.admin_dsn
    plant(folder, NEXT, ADD, after=migrate.HEAD, down=DROP)
    plant(folder, AFTER, DROP, after=NEXT, down=ADD, since=NEXT)
    assert await trouble(dsn) is None
    move(command.upgrade, dsn, folder, NEXT)
    assert await trouble(dsn) is None
    move(command.upgrade, dsn, folder, AFTER)
    assert await trouble(dsn) == (
        f"the schema is at {AFTER}, which works with releases from {NEXT} on, and this one is of {migrate.HEAD}; "
        "deploy a newer release"
    )
    move(command.downgrade, dsn, folder, NEXT)
    assert await trouble(dsn) is None


async def test_services_do_not_work_on_an_older_schema(database: Database, empty: Database) -> None:
    migrate.downgrade(database.admin_dsn, "-1")
    assert f"and this release needs {migrate.HEAD}; run the migrations" in str(await trouble(database.admin_dsn))
    assert "the schema is at no revision" in str(await trouble(empty.admin_dsn))


async def test_they_wait_until_it_is_migrated(database: Database) -> None:
    migrate.downgrade(database.admin_dsn, "-1")
    engine = make_engine(database.dsn("closeflow_broker_gateway"), pool_size=1, application_name="test")
    stop = asyncio.Event()
    waiting = [asyncio.create_task(fit.wait_until_schema_fits(engine, stop)) for _ in range(2)]
    done, _ = await asyncio.wait(waiting, timeout=1)
    assert not done
    await asyncio.to_thread(migrate.upgrade, database.admin_dsn)
    async with asyncio.timeout(30):
        assert await asyncio.gather(*waiting) == [True, True]
    await engine.dispose()


async def test_they_wait_for_a_database_that_is_away_until_they_are_asked_to_stop() -> None:
    engine = make_engine("postgresql://closeflow@127.0.0.1:9/none", pool_size=1, application_name="test")
    stop = asyncio.Event()
    waiting = asyncio.create_task(fit.wait_until_schema_fits(engine, stop))
    done, _ = await asyncio.wait([waiting], timeout=1)
    assert not done
    stop.set()
    async with asyncio.timeout(30):
        assert not await waiting
    await engine.dispose()


def test_the_way_down_forgets_what_no_longer_works(database: Database, folder: Path) -> None:
    said = "SELECT obj_description('alembic_version'::regclass)"
    plant(folder, NEXT, "SELECT", after=migrate.HEAD, since=migrate.HEAD)
    with owner(database.admin_dsn) as db:
        before = db.execute(said).fetchone()
        move(command.upgrade, database.admin_dsn, folder, NEXT)
        assert db.execute(said).fetchone() == (fit.works_from_comment(migrate.HEAD),) != before
        move(command.downgrade, database.admin_dsn, folder, migrate.HEAD)
        assert db.execute(said).fetchone() == before
