"""docs/access.md is what a migrated database says, and each role can do that and nothing else, tried one by one."""
# ruff: noqa: S608 (every name is from the catalog)

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import psycopg
import pytest
from psycopg import sql

from closeflow.storage.schema import migrate
from tests.conftest import Database
from tests.storage.access_page import PAGE, page
from tests.storage.grants import Grants, Item, item_of, read_grants
from tests.storage.seeding import Owner, owner

COLUMNS: Final = """
    SELECT c.relkind, c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attgenerated <> ''
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p', 'v') AND a.attnum > 0 AND NOT a.attisdropped"""
FUNCTIONS: Final = """
    SELECT proname, ARRAY(SELECT format_type(t, NULL) FROM unnest(proargtypes) t) FROM pg_proc p
    JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'public'"""
SEQUENCES: Final = "SELECT relname FROM pg_class WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace"
TYPES_OF_TRIGGERS: Final = "EXECUTE FUNCTION suppress_redundant_updates_trigger()"


@dataclass(frozen=True, slots=True)
class Attempt:
    """A statement, and the right that it needs; on a column, or on all of the item."""

    statement: str
    item: Item
    privilege: str
    column: str | None = None


@pytest.fixture(scope="module")
def db(module_database: Database) -> Iterator[Owner]:
    with owner(module_database.admin_dsn) as connection:
        yield connection


def test_the_page_is_what_the_database_says(db: Owner) -> None:
    assert PAGE.read_text() == page(db), "run: .venv/bin/python -m tests.storage.access_page"


def on_relations(db: Owner) -> Iterator[Attempt]:
    whole: set[tuple[str, str]] = set()
    for kind, table, column, of_type, generated in db.execute(COLUMNS.encode()).fetchall():
        item, name = item_of(kind, table), f'"{table}"'
        whole.add((kind, table))
        yield Attempt(f'SELECT "{column}" FROM {name} LIMIT 0', item, "SELECT", column)
        if not generated and item.kind == "table":
            values = f"SELECT NULL::{of_type} WHERE false"
            insert = f'INSERT INTO {name} ("{column}") OVERRIDING SYSTEM VALUE {values}'
            yield Attempt(insert, item, "INSERT", column)
            yield Attempt(f'UPDATE {name} SET "{column}" = DEFAULT WHERE false', item, "UPDATE", column)
    for kind, table in sorted(whole):
        item, name = item_of(kind, table), f'"{table}"'
        if item.kind == "table":
            yield Attempt(f"DELETE FROM {name} WHERE false", item, "DELETE")
            yield Attempt(f"TRUNCATE {name}", item, "TRUNCATE")
            yield Attempt(f"CREATE TRIGGER planted BEFORE INSERT ON {name} {TYPES_OF_TRIGGERS}", item, "TRIGGER")
            yield Attempt(f"ALTER TABLE {name} ADD planted integer", item, "OWNER")


def on_the_rest(db: Owner) -> Iterator[Attempt]:
    for (name,) in db.execute(SEQUENCES.encode()).fetchall():
        item = item_of("S", name)
        yield Attempt(f'SELECT last_value FROM "{name}"', item, "SELECT")
        yield Attempt(f"SELECT setval('\"{name}\"', 99)", item, "UPDATE")
        yield Attempt(f"SELECT nextval('\"{name}\"')", item, "USAGE")
    for name, types in db.execute(FUNCTIONS.encode()).fetchall():
        arguments = ", ".join(f"NULL::{one}" for one in types)
        yield Attempt(f'SELECT "{name}"({arguments})', item_of("f", name), "EXECUTE")
    nothing = Item("schema", "public")
    for statement in (
        "CREATE TABLE public.planted (id integer)",
        "CREATE FUNCTION public.planted() RETURNS integer LANGUAGE sql RETURN 1",
        "CREATE ROLE planted",
        "CREATE PUBLICATION planted",
        "SELECT * FROM pg_authid",
        "SELECT pg_read_file('postgresql.conf')",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "SET LOCAL log_statement = 'all'",
    ):
        yield Attempt(statement, nothing, "OWNER")


def may(grants: Grants, role: str, attempt: Attempt) -> bool:
    """What the access lists say: a right to all of it, or to this column."""
    by_role = grants.get(attempt.item, {})
    for who in (role, "everybody"):
        columns = by_role.get(who, {}).get(attempt.privilege)
        if columns is not None and (not columns or attempt.column in columns):
            return True
    # Whoever may set a sequence may also draw from it.
    return attempt.privilege == "USAGE" and "UPDATE" in by_role.get(role, {})


@pytest.mark.parametrize("role", migrate.ROLES)
def test_a_role_can_do_what_the_page_says_and_nothing_else(db: Owner, role: str) -> None:
    grants, wrong, tried = read_grants(db), [], 0
    attempts = [*on_relations(db), *on_the_rest(db)]
    with db.transaction(force_rollback=True):
        db.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
        db.execute("SET LOCAL lock_timeout = '2s'")
        for attempt in attempts:
            tried += 1
            refused = False
            try:
                with db.transaction(force_rollback=True):
                    db.execute(attempt.statement.encode())
            except psycopg.errors.InsufficientPrivilege:
                refused = True
            except psycopg.Error:
                pass  # It was allowed, and did not make sense.
            if refused is may(grants, role, attempt):
                wrong.append(f"{'refused' if refused else 'allowed'}: {attempt.statement}")
    assert wrong == []
    assert tried > 1000
