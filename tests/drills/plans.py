"""Every statement of the services on tables of 5 million rows: its plan, and how many rows it reads when it runs.

`DRILL_ROWS` is how many; 5 million take 20 GB of disk and most of an hour. 500 closes are under way among them. Each
statement is planned for any parameters, run with parameters that name 100 of the rows and limits of 500, and rolled
back. What it reads is the rows that its scans return or remove.
"""

from __future__ import annotations

import os
import time
from typing import Any, Final

import psycopg
from psycopg import sql
from sqlalchemy import TextClause

import devstack
from closeflow.storage.schema import migrate
from tests.conftest import with_database
from tests.drills.harness import DATABASE, INSTANCE, Lines, main
from tests.storage.planning import Connection, explained, growing, numbered, plan, scans, seed, statements

ROWS: Final = int(os.environ.get("DRILL_ROWS", "5000000"))
UNDER_WAY: Final = 500
MOST_READ: Final = 10 * UNDER_WAY
_UNDER_WAY: Final = """
    UPDATE positions
    SET status = 'closing', quantity = 10, closed_at = NULL, active_close_request_id = md5(id::text)::uuid
    WHERE id <= {under_way};
    UPDATE close_requests SET status = 'submitted', filled_qty = 0, completed_at = NULL
    WHERE position_id <= {under_way};
    UPDATE orders SET status = 'new', executed_qty = 0, stated_cum_qty = 0 WHERE position_id <= {under_way};
    DELETE FROM executions WHERE position_id <= {under_way};
    ANALYZE
"""
_OF_TYPE: Final = {
    "bigint": "1",
    "integer": "1",
    "smallint": "1",
    "numeric": "1",
    "boolean": "false",
    "uuid": "md5('1')::uuid",
    "text": "(SELECT client_order_id FROM orders WHERE position_id = 1)",
    "timestamp with time zone": "now()",
    "date": "current_date - 30",
    "date[]": "ARRAY[current_date - 30]",
    "name": "'closeflow'",
    "xid8": "pg_current_xact_id()",
    "interval": "interval '1 hour'",
    "jsonb": "'[]'",
    "json": "'[]'",
    "bigint[]": "ARRAY(SELECT generate_series(1, 100))",
    "integer[]": "ARRAY[1]",
    "uuid[]": "ARRAY(SELECT md5(n::text)::uuid FROM generate_series(1, 100) AS n)",
    "text[]": "ARRAY(SELECT client_order_id FROM orders WHERE position_id <= 100)",
    "double precision": "1",
    "double precision[]": "ARRAY[1]",
}
_OF_NAME: Final = {
    **dict.fromkeys(("limit", "budget", "most", "batch", "beyond"), str(UNDER_WAY)),
    "account_id": "'acc'",
    "accounts": "ARRAY['acc']",
    "broker": "'alpaca'",
    "symbol": "'S7'",
}


def values(db: Connection, name: str, names: list[str]) -> list[str]:
    found = db.execute("SELECT parameter_types::text[] FROM pg_prepared_statements WHERE name = %s", (name,)).fetchone()
    assert found is not None
    return [_OF_NAME.get(one) or _OF_TYPE[kind] for one, kind in zip(names, found[0], strict=True)]


def rows_read(db: Connection, statement: TextClause) -> tuple[int, dict[str, Any]]:
    """How many rows its scans read, and its plan."""
    text, names = numbered(statement)
    db.execute("DEALLOCATE ALL")
    with db.transaction(force_rollback=True):
        db.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        db.execute(f"PREPARE one AS {text}".encode())
        given = [db.execute(f"SELECT ({one})::text".encode()).fetchone() for one in values(db, "one", names)]
        literals = ", ".join("NULL" if one is None else sql.Literal(one[0]).as_string(db) for one in given)
        run = f"EXECUTE one({literals})" if names else "EXECUTE one"
        top = explained(db, f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {run}")
    read = sum(
        round((one["Actual Rows"] + one.get("Rows Removed by Filter", 0)) * one["Actual Loops"]) for one in scans(top)
    )
    return read, top


def shape(node: dict[str, Any]) -> str:
    """The scans of a plan in a line."""
    return ", ".join(f"{one['Node Type']} {one.get('Index Name') or one.get('Relation Name')}" for one in scans(node))


def drill(lines: Lines) -> None:
    stack = devstack.up(INSTANCE)
    with psycopg.connect(stack.admin_dsn, autocommit=True) as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {DATABASE}_plans".encode())
        admin.execute(f"CREATE DATABASE {DATABASE}_plans".encode())
    dsn = with_database(stack.admin_dsn, f"{DATABASE}_plans")
    migrate.upgrade(dsn)
    try:
        with psycopg.connect(dsn, autocommit=True) as db:
            began = time.monotonic()
            for what in seed(db, ROWS):
                print(f"{time.monotonic() - began:6.0f} s  {what}", flush=True)
            db.execute("SET session_replication_role = replica")
            for statement in _UNDER_WAY.format(under_way=UNDER_WAY).split(";"):
                db.execute(statement.encode())
            db.execute("SET session_replication_role = origin")
            explain_all(db, lines)
    finally:
        with psycopg.connect(stack.admin_dsn, autocommit=True) as admin:
            admin.execute(f"DROP DATABASE {DATABASE}_plans".encode())
        devstack.down(INSTANCE)


def explain_all(db: Connection, lines: Lines) -> None:
    most, grows, refused = 0, {}, {}
    for name, statement in statements():
        try:
            read, top = rows_read(db, statement)
            most = max(most, read)
            print(f"{read:7}  {name}: {shape(top)}", flush=True)
        except psycopg.Error as error:
            top = plan(db, statement)
            refused[name] = str(error).splitlines()[0]
            print(f"      -  {name}: {shape(top)} ({refused[name]})", flush=True)
        if found := growing(db, top):
            grows[name] = found
    print(f"planned, but not run, because they refuse such parameters: {', '.join(refused) or 'none'}")
    lines.check("no plan reads more as the tables grow", not grows, grows or "none")
    lines.check(f"no statement reads more than {MOST_READ} of {ROWS} rows", most <= MOST_READ, most)


if __name__ == "__main__":
    main(drill)
