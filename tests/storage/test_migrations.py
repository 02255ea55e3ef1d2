"""The way up and down, empty and with data; and that tables.py says what the migrations make."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from urllib.parse import urlsplit

import psycopg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg import sql
from sqlalchemy import Engine, create_engine, event

import devstack
from closeflow.storage.core.engine import driver_url
from closeflow.storage.schema import migrate
from closeflow.storage.schema.tables import metadata
from tests.conftest import Database, fresh_database
from tests.storage.seeding import add_one_of_everything, owner

OBJECTS = """
    SELECT 'relation ' || relname FROM pg_class WHERE relnamespace = 'public'::regnamespace
        AND relname NOT LIKE 'alembic_version%'
    UNION ALL SELECT 'function ' || proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL SELECT 'publication ' || pubname FROM pg_publication
"""
# Everything that `alembic check` does not compare: checks, defaults, generated columns, the conditions of indexes.
DETAILS = """
    SELECT c.relname, 'constraint', k.conname, pg_get_constraintdef(k.oid)
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
    WHERE c.relnamespace = 'public'::regnamespace
    UNION ALL
    SELECT c.relname, 'column', a.attname, concat_ws(' ', format_type(a.atttypid, a.atttypmod), a.attnotnull,
        a.attgenerated, a.attidentity, pg_get_expr(d.adbin, d.adrelid))
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p')
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE c.relnamespace = 'public'::regnamespace AND a.attnum > 0
    UNION ALL
    SELECT tablename, 'index', indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
"""


@pytest.fixture
def empty(stack: devstack.Stack) -> Iterator[Database]:
    with fresh_database(stack, None) as made:
        yield made


def objects(dsn: str) -> set[str]:
    with owner(dsn) as db:
        return {row[0] for row in db.execute(OBJECTS)}


def details(dsn: str) -> set[tuple[str, ...]]:
    with owner(dsn) as db:
        rows = db.execute(DETAILS.encode()).fetchall()
    return {row for row in rows if not row[0].startswith(("outbox_events_", "alembic_version"))}


def test_head_is_the_newest_revision() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrate.find_migrations()))
    assert ScriptDirectory.from_config(config).get_current_head() == migrate.HEAD


def test_every_revision_goes_up_and_down_on_an_empty_database(empty: Database) -> None:
    states = []
    for revision in ("0001", "0002", "0003", "0004", "0005", "0006"):
        states.append(objects(empty.admin_dsn))
        migrate.upgrade(empty.admin_dsn, revision)
    for revision in ("0005", "0004", "0003", "0002", "0001", "base"):
        migrate.downgrade(empty.admin_dsn, revision)
        assert objects(empty.admin_dsn) == (states.pop() if revision == "base" else states[int(revision)])
        if revision != "base":
            states.pop()
    migrate.upgrade(empty.admin_dsn)
    migrate.check(empty.admin_dsn)


def test_it_goes_down_with_data_and_up_again(database: Database) -> None:
    with owner(database.admin_dsn) as db:
        add_one_of_everything(db)
        empty_tables = [
            name for name in metadata.tables if db.execute(f"SELECT FROM {name} LIMIT 1".encode()).rowcount == 0
        ]
        assert empty_tables == [], "the test must have a row in every table"
    migrate.downgrade(database.admin_dsn, "base")
    assert objects(database.admin_dsn) == set()
    migrate.upgrade(database.admin_dsn)
    migrate.check(database.admin_dsn)


def test_the_tables_in_code_are_the_tables_in_the_database(empty: Database, database: Database) -> None:
    with owner(database.admin_dsn) as db:
        clock = db.execute("SELECT pg_get_functiondef('closeflow_now'::regproc)").fetchone()
    assert clock is not None
    with owner(empty.admin_dsn) as db:
        db.execute(clock[0])
    described = create_engine(driver_url(empty.admin_dsn))
    metadata.create_all(described)
    described.dispose()
    assert details(empty.admin_dsn) == details(database.admin_dsn)


def test_check_notices_a_difference(database: Database) -> None:
    with owner(database.admin_dsn) as db:
        db.execute("ALTER TABLE orders DROP COLUMN avg_price")
    with pytest.raises(Exception, match="avg_price"):
        migrate.check(database.admin_dsn)


def set_up_in_processes(dsns: list[str]) -> None:
    """Migrate and give passwords, one process per DSN at the same time, as deployments do."""
    program = (
        "import sys; from closeflow.storage.schema import migrate as m; m.upgrade(sys.argv[1]);"
        " m.set_role_passwords(sys.argv[1], m.role_passwords(sys.argv[2]))"
    )
    secret = str(urlsplit(dsns[0]).password)  # what the fixtures use: other tests are logged in with these passwords
    running = [subprocess.Popen([sys.executable, "-c", program, dsn, secret]) for dsn in dsns]
    assert [one.wait(timeout=60) for one in running] == [0] * len(dsns)


def test_two_migrators_of_one_database_wait_for_each_other(empty: Database) -> None:
    set_up_in_processes([empty.admin_dsn] * 2)
    migrate.check(empty.admin_dsn)


def test_databases_of_one_cluster_are_set_up_at_once(stack: devstack.Stack) -> None:
    """Roles are the cluster's, so migrators of several databases meet on them."""
    with ExitStack() as databases:
        made = [databases.enter_context(fresh_database(stack, None)) for _ in range(3)]
        set_up_in_processes([one.admin_dsn for one in made])
        for one in made:
            migrate.check(one.admin_dsn)


def test_a_migration_gives_up_on_a_busy_table(database: Database) -> None:
    """It must not queue every other query of a running system behind itself."""
    with psycopg.connect(database.admin_dsn) as reader:
        reader.execute("SELECT FROM inbox")
        with pytest.raises(Exception, match="lock timeout"):
            migrate.downgrade(database.admin_dsn, "0004")
    migrate.upgrade(database.admin_dsn)  # one transaction per revision: it had come as far as 0005
    migrate.check(database.admin_dsn)


def test_a_migration_that_waits_for_a_busy_table_stalls_nobody_else_for_long(database: Database) -> None:
    with psycopg.connect(database.admin_dsn) as reader, ThreadPoolExecutor() as threads:
        reader.execute("SELECT FROM executions")
        migrating = threads.submit(migrate.downgrade, database.admin_dsn, "0013")
        with psycopg.connect(database.admin_dsn, autocommit=True) as other:
            other.execute("SET lock_timeout = '1s'")
            for _ in range(200):
                other.execute("SELECT FROM executions")
                time.sleep(0.01)
        assert not migrating.done()
        reader.rollback()
        migrating.result(timeout=60)
    migrate.upgrade(database.admin_dsn)
    migrate.check(database.admin_dsn)


@pytest.mark.parametrize(("table", "without", "revision"), [("orders", "0022", "0023"), ("positions", "0024", "0025")])
def test_an_index_of_a_busy_table_is_built_beside_its_writers(
    database: Database, table: str, without: str, revision: str
) -> None:
    write = sql.SQL("UPDATE {} SET symbol = symbol").format(sql.Identifier(table))
    migrate.downgrade(database.admin_dsn, revision)
    with ThreadPoolExecutor() as threads:
        for move, to in ((migrate.downgrade, without), (migrate.upgrade, revision)):
            with psycopg.connect(database.admin_dsn) as writer:
                writer.execute(write)
                migrating = threads.submit(move, database.admin_dsn, to)
                with psycopg.connect(database.admin_dsn, autocommit=True) as other:
                    other.execute("SET lock_timeout = '50ms'")
                    for _ in range(200):
                        other.execute(write)
                        time.sleep(0.01)
                writer.rollback()
                migrating.result(timeout=60)
    migrate.upgrade(database.admin_dsn)
    migrate.check(database.admin_dsn)


def test_no_table_in_use_is_read_whole_under_a_lock_that_stops_its_writers(database: Database) -> None:
    """Indexes are built concurrently, and what a new check says of old rows is proven apart."""
    migrate.downgrade(database.admin_dsn, "0013")
    said: list[str] = []
    listener = ("before_cursor_execute", lambda *told: said.append(" ".join(told[2].split())))
    event.listen(Engine, *listener)
    try:
        migrate.upgrade(database.admin_dsn)
    finally:
        event.remove(Engine, *listener)
    made = re.findall(r"CREATE TABLE (\w+)", "\n".join(said))
    built = [
        one for one in said if re.match("CREATE (UNIQUE )?INDEX", one) and one.split(" ON ")[1].split()[0] not in made
    ]
    checks = [one for one in said if "ADD CONSTRAINT" in one]
    assert (len(built), len(checks)) == (11, 2)
    assert [one for one in built if "CONCURRENTLY" not in one] == []
    assert [one for one in checks if not one.endswith("NOT VALID")] == []
    with owner(database.admin_dsn) as db:
        assert db.execute("SELECT conname FROM pg_constraint WHERE NOT convalidated").fetchall() == []
        assert db.execute("SELECT FROM pg_index WHERE NOT indisvalid").fetchall() == []


def test_unknown_roles_get_no_password(database: Database) -> None:
    with pytest.raises(ValueError, match="closeflow_nobody"):
        migrate.set_role_passwords(database.admin_dsn, {"closeflow_nobody": "x"})


def test_a_database_of_a_later_release_stays_as_it_is(database: Database) -> None:
    with owner(database.admin_dsn) as db:
        db.execute("UPDATE alembic_version SET version_num = '0999'")
        migrate.upgrade(database.admin_dsn)
        assert db.execute("SELECT version_num FROM alembic_version").fetchone() == ("0999",)
