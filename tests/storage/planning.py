"""Every statement of the services, large tables to explain it on, and what of its plan grows as they grow."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from collections.abc import Iterator
from typing import Any, Final

import psycopg
from sqlalchemy import TextClause
from sqlalchemy.dialects.postgresql.psycopg import dialect

import closeflow.storage

Connection = psycopg.Connection[tuple[Any, ...]]
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
WHOLE: Final = re.compile(r"verify|imported_positions|timeline|migrate|databases|close_lists")
"""Modules whose statements read everything because a person asked for that, or page by key for a person. What the pages
of close_lists read is counted in test_close_lists."""
_SEED: Final = """
    INSERT INTO accounts (account_id, broker) VALUES ('acc', 'alpaca');
    INSERT INTO positions (account_id, symbol, asset_type, opening_qty, quantity, status, closed_at)
    SELECT 'acc', 'S' || n % 500, 'stock', 10, 0, 'closed', now() FROM generate_series(1, {rows}) AS n;
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
    SELECT 'c', id, 'applied' FROM close_requests
"""


def seed(db: Connection, rows: int) -> Iterator[str]:
    """Fill every growing table with `rows` rows of what is over; gives each statement before it runs."""
    db.execute("SET session_replication_role = replica")
    for statement in _SEED.format(rows=rows).split(";"):
        yield " ".join(statement.split()[:3])
        db.execute(statement.encode())
    yield "VACUUM ANALYZE"
    db.execute("VACUUM ANALYZE")
    db.execute("SET session_replication_role = origin")
    db.execute("SET random_page_cost = 1.1")  # As where everything is in memory, and as for tables far larger.


def statements() -> Iterator[tuple[str, TextClause]]:
    for module in pkgutil.walk_packages(closeflow.storage.__path__, "closeflow.storage."):
        if WHOLE.search(module.name) is None:
            found = vars(importlib.import_module(module.name))
            whole = ((name, one) for name, one in found.items() if isinstance(one, TextClause))
            of = module.name.removeprefix("closeflow.storage.")
            yield from ((f"{of}.{name}", one) for name, one in whole if STATEMENT.match(one.text))


def numbered(statement: TextClause) -> tuple[str, list[str]]:
    """The statement with $1, $2 …, and the names of its parameters in that order."""
    sql = str(statement.compile(dialect=dialect()))  # type: ignore[no-untyped-call]
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", sql)))
    for number, name in enumerate(names, start=1):
        sql = sql.replace(f"%({name})s", f"${number}")
    return sql.replace("%%", "%"), names


def explained(db: Connection, explain: str) -> dict[str, Any]:
    """The topmost node of what an EXPLAIN with FORMAT JSON gives."""
    found = db.execute(explain.encode()).fetchone()
    assert found is not None
    top = found[0][0] if isinstance(found[0], list) else json.loads(found[0])[0]
    node: dict[str, Any] = top["Plan"]
    return node


def plan(db: Connection, statement: TextClause) -> dict[str, Any]:
    """The plan that fits any values of its parameters."""
    return explained(db, f"EXPLAIN (GENERIC_PLAN, FORMAT JSON) {numbered(statement)[0]}")


def scans(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every node that reads a table or an index, with the table's name from the node above where it has none."""
    if node["Node Type"] in ("Seq Scan", "Index Scan", "Index Only Scan", "Bitmap Index Scan"):
        yield node
    for child in node.get("Plans", ()):
        yield from scans({"Relation Name": node.get("Relation Name"), **child})


def unlimited(node: dict[str, Any]) -> dict[str, Any]:
    """The plan without what gives only the first rows of an index, which are what they are limited to."""
    kept = []
    for child in node.get("Plans", ()):
        ordered = node["Node Type"] == "Limit" and "Filter" not in child and child["Node Type"].startswith("Index")
        if not ordered:
            kept.append(unlimited(child))
    return {**node, "Plans": kept}


def growing(db: Connection, node: dict[str, Any]) -> list[tuple[Any, ...]]:
    """The scans of a plan that read more as the tables grow. Not so is a scan of a partial index, whose rows are those
    of what is under way, and one of an index by more than account and symbol, for rows that are named or new."""
    found = db.execute("SELECT indexrelid::regclass::text FROM pg_index WHERE indpred IS NOT NULL")
    partial = {row[0] for row in found}
    grows = []
    for scan in scans(unlimited(node)):
        if scan.get("Relation Name") not in GROWING or scan.get("Index Name") in partial:
            continue
        named = re.findall(r"\((?:\w+\.)?(\w+) >?= ", scan.get("Index Cond", ""))
        if not set(named) - {"account_id", "symbol", "entity", "kind", "consumer", "broker"}:
            grows.append((scan["Node Type"], scan.get("Relation Name"), scan.get("Index Name"), scan.get("Index Cond")))
    return grows
