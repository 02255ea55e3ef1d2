"""No statement of the services reads more as the tables grow: each is explained on tables with many rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

import psycopg
import pytest

from tests.conftest import Database
from tests.storage.planning import Connection, growing, plan, scans, seed, statements

ROWS: Final = 20_000
ALLOWED: Final[Mapping[str, str]] = {}
"""Statements that may read more, and why."""
STATEMENTS: Final = dict(statements())


@pytest.fixture(scope="module")
def explaining(module_database: Database) -> Iterator[Connection]:
    with psycopg.connect(module_database.admin_dsn, autocommit=True) as db:
        for _ in seed(db, ROWS):
            pass
        yield db


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_reads_no_more_as_the_tables_grow(explaining: Connection, name: str) -> None:
    grows = growing(explaining, plan(explaining, STATEMENTS[name]))
    assert name in ALLOWED or not grows, grows


def test_a_symbol_in_doubt_is_read_back_for_a_week_and_not_through_its_history(explaining: Connection) -> None:
    top = plan(explaining, STATEMENTS["orders_in_doubt._IN_DOUBT"])
    (by_symbol,) = [one for one in scans(top) if one.get("Relation Name") == "orders"]
    assert all(column in by_symbol["Index Cond"] for column in ("account_id", "symbol", "created_at")), by_symbol
    assert "positions" not in {one.get("Relation Name") for one in scans(top)}


SHADOWED: Final = re.compile(r"CAST\((?:\w+\.)?(\w+) AS \w+\) AS \1\b")


@pytest.mark.parametrize("name", STATEMENTS)
def test_no_statement_is_ordered_by_a_text_that_has_the_name_of_its_column(name: str) -> None:
    """ORDER BY takes a name for that of the result where both have it, and as text 10 000 comes before 9 999."""
    statement = str(STATEMENTS[name])
    ordered = set(re.findall(r"ORDER BY (\w+)\b(?!\.)", statement))
    assert ordered & set(SHADOWED.findall(statement)) == set()
