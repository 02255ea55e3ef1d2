"""No statement of the services reads more as the tables grow: each is explained on tables with many rows."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import psycopg
import pytest
from sqlalchemy import TextClause
from sqlalchemy.dialects.postgresql.psycopg import dialect

import closeflow.storage
from tests.conftest import Database

ROWS: Final = 20_000
GROWING: Final = frozenset(
    {
        "positions",
        "close_requests",
        "orders",
        "order_sends",
        "order_statements",
        "executions",
        "status_history",
        "inbox",
    }
)
STATEMENT: Final = re.compile(r"\s*(SELECT|WITH|INSERT|UPDATE|DELETE)\b")
WHOLE: Final = re.compile(r"verifying|importing|inspecting|migrate|databases")
"""Modules whose statements read everything because a person asked for that, or page by key for a person."""
ALLOWED: Final[Mapping[str, str]] = {}
"""Statements that may read more, and why."""
_SEED: Final = f"""
    SET session_replication_role = replica;
    INSERT INTO accounts (account_id, broker) VALUES ('acc', 'alpaca');
    INSERT INTO positions (account_id, symbol, asset_type, opening_qty, quantity, status, closed_at)
    SELECT 'acc', 'S' || n % 500, 'stock', 10, 0, 'closed', now() FROM generate_series(1, {ROWS}) AS n;
    INSERT INTO close_requests (id, position_id, account_id, idempotency_key, fingerprint, requested_by, status, symbol,
                                side, asset_type, target_qty, filled_qty, time_in_force, completed_at)
    SELECT md5(id::text)::uuid, id, 'acc', 'k', 'f', 'me', 'completed', symbol, 'sell', 'stock', 10, 10, 'day', now()
    FROM positions;
    INSERT INTO orders (client_order_id, close_request_id, attempt, position_id, account_id, symbol, side, quantity,
                        order_type, time_in_force, status, executed_qty, stated_cum_qty, broker_order_id)
    SELECT 'cf-' || replace(id::text, '-', '') || '-1', id, 1, position_id, 'acc', symbol, 'sell', 10, 'limit', 'day',
           'filled', 10, 10, 'b-' || position_id
    FROM close_requests;
    INSERT INTO order_sends (client_order_id, kind, n, sender, lease_until, answered_at, answer)
    SELECT client_order_id, 'submit', 1, 's', now(), now(), 'accepted' FROM orders;
    INSERT INTO order_statements (client_order_id, kind, cum_qty, stated_at, source)
    SELECT client_order_id, 'filled', 10, now(), 'stream' FROM orders;
    INSERT INTO executions (broker, account_id, exec_id, client_order_id, position_id, kind, side, quantity, price,
                            occurred_at, source)
    SELECT 'alpaca', 'acc', client_order_id, client_order_id, position_id, 'trade', 'sell', 10, 1, now(), 'stream'
    FROM orders;
    INSERT INTO status_history (entity, entity_id, to_status, by)
    SELECT 'order', client_order_id, 'filled', 'me' FROM orders;
    INSERT INTO inbox (consumer, event_id, outcome)
    SELECT 'c', id, 'applied' FROM close_requests;
    ANALYZE
"""  # noqa: S608 (a constant of ours)


def statements() -> Iterator[tuple[str, TextClause]]:
    for module in pkgutil.iter_modules(closeflow.storage.__path__):
        if WHOLE.search(module.name) is None:
            found = vars(importlib.import_module(f"closeflow.storage.{module.name}"))
            whole = ((name, one) for name, one in found.items() if isinstance(one, TextClause))
            yield from ((f"{module.name}.{name}", one) for name, one in whole if STATEMENT.match(one.text))


STATEMENTS: Final = dict(statements())


@pytest.fixture(scope="module")
def explaining(module_database: Database) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    with psycopg.connect(module_database.admin_dsn, autocommit=True) as db:
        for statement in _SEED.split(";"):
            db.execute(statement.encode())
        db.execute("SET session_replication_role = origin")
        db.execute("SET random_page_cost = 1.1")  # As where everything is in memory, and as for tables far larger.
        yield db


def plan(db: psycopg.Connection[tuple[Any, ...]], statement: TextClause) -> dict[str, Any]:
    """The plan that fits any values of its parameters."""
    sql = str(statement.compile(dialect=dialect()))  # type: ignore[no-untyped-call]
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", sql)))
    for number, name in enumerate(names, start=1):
        sql = sql.replace(f"%({name})s", f"${number}")
    found = db.execute(f"EXPLAIN (GENERIC_PLAN, FORMAT JSON) {sql.replace('%%', '%')}".encode()).fetchone()
    assert found is not None
    top = found[0][0] if isinstance(found[0], list) else json.loads(found[0])[0]
    node: dict[str, Any] = top["Plan"]
    return node


def scans(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every node that reads a table or an index, with the table's name from the node above where it has none; but not
    the first rows of an index, which are what they are limited to."""
    if node["Node Type"] in ("Seq Scan", "Index Scan", "Index Only Scan", "Bitmap Index Scan"):
        yield node
    for child in node.get("Plans", ()):
        ordered = node["Node Type"] == "Limit" and "Filter" not in child and child["Node Type"].startswith("Index")
        if not ordered:
            yield from scans({"Relation Name": node.get("Relation Name"), **child})


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_reads_no_more_as_the_tables_grow(
    explaining: psycopg.Connection[tuple[Any, ...]], name: str
) -> None:
    """What a scan of a growing table may be: of a partial index, whose rows are those of what is under way; or of an
    index by more than the account, for rows that are named."""
    partial = {
        row[0]
        for row in explaining.execute("SELECT indexrelid::regclass::text FROM pg_index WHERE indpred IS NOT NULL")
    }
    grows = []
    for scan in scans(plan(explaining, STATEMENTS[name])):
        if scan.get("Relation Name") not in GROWING or scan.get("Index Name") in partial:
            continue
        named = re.findall(r"\((?:\w+\.)?(\w+) = ", scan.get("Index Cond", ""))
        if not set(named) - {"account_id", "entity", "kind", "consumer", "broker"}:
            grows.append((scan["Node Type"], scan.get("Relation Name"), scan.get("Index Name"), scan.get("Index Cond")))
    assert name in ALLOWED or not grows, grows
