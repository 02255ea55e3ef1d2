"""Every query of the runbooks is one that an operator's login may ask of the database as it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import psycopg
import pytest

from tests.architecture.runbooks import Page, pages, queries
from tests.conftest import Database

OPERATOR = "closeflow_operator"


@pytest.fixture(scope="module")
def operator(module_database: Database) -> Iterator[psycopg.Connection]:
    with psycopg.connect(module_database.dsn(OPERATOR), autocommit=True) as connection:
        yield connection


def refused(operator: psycopg.Connection, page: Page) -> Mapping[str, str]:
    """What PostgreSQL says of the page's queries that it would not answer. They are planned and not run."""
    found = {}
    for query in queries(page):
        try:
            operator.execute((query if query.startswith("SHOW") else f"EXPLAIN {query}").encode())
        except psycopg.Error as error:
            found[query] = str(error)
    return found


def test_every_query_can_be_asked(operator: psycopg.Connection) -> None:
    asked = [query for page in pages().values() for query in queries(page)]
    assert len(asked) > 50
    assert {page.name: wrong for page in pages().values() if (wrong := refused(operator, page))} == {}


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("stated_cum_qty", "cum_qty", 'column "cum_qty" does not exist'),
        ("FROM orders", "FROM order", "syntax error"),
        ("FROM orders", "FROM pg_authid, orders", "permission denied"),
    ],
)
def test_a_query_that_cannot_be_asked_is_noticed(
    operator: psycopg.Connection, right: str, wrong: str, said: str
) -> None:
    page = pages()["gap"]
    assert refused(operator, page) == {}
    broken = replace(page, text=page.text.replace(right, wrong))
    assert any(said in one for one in refused(operator, broken).values())
