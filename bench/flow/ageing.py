"""Whether a close takes longer once millions are over: a burst on a young system, and one when it is old."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import psycopg

from demo.system import System
from tests.storage.planning import Connection, plan, scans, seed, statements

AIM: Final = 0.9
OUTBOX_AIM_BYTES: Final = 64 * 1024 * 1024
FAR: Final = 100_000_000
"""The ids of what is over begin there."""
CAUGHT_UP_WITHIN_S: Final = 3600.0
_BEHIND: Final = """
    SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), confirmed_flush_lsn)::bigint FROM pg_replication_slots
    WHERE slot_name = %s
"""
_BEHIND_AT_MOST: Final = 1024 * 1024
_OUTBOX: Final = """
    SELECT sum(pg_total_relation_size(inhrelid))::bigint FROM pg_inherits
    WHERE inhparent = 'outbox_events'::regclass
"""
_AS_SERVICES: Final = (
    "SET plan_cache_mode = force_generic_plan",
    "SET enable_seqscan = off",
    "SET enable_hashjoin = off",
    "SET enable_mergejoin = off",
)


def age(system: System, rows: int) -> None:
    """Fill every table that grows with so many closes that are over, before there is any other, and wait until Debezium
    has read past them."""
    with psycopg.connect(system.admin_dsn, autocommit=True) as database:
        database.execute("SELECT setval(pg_get_serial_sequence('positions', 'id'), %s)", (FAR,))
        began = time.monotonic()
        for what in seed(database, rows):
            print(f"  {time.monotonic() - began:6.0f} s  {what}", flush=True)
        while (behind := _number(database, _BEHIND, system.outbox.slot)) > _BEHIND_AT_MOST:
            if time.monotonic() > began + CAUGHT_UP_WITHIN_S:
                raise SystemExit(f"the slot is {behind} bytes behind")
            time.sleep(1)


def plans(system: System) -> Mapping[str, str]:
    """By statement, what its plan reads, in sessions that look few rows up."""
    with psycopg.connect(system.admin_dsn, autocommit=True) as database:
        for setting in _AS_SERVICES:
            database.execute(setting.encode())
        return {name: _shape(plan(database, statement)) for name, statement in statements()}


def outbox_bytes(system: System) -> int:
    """Of every partition, with its indexes."""
    with psycopg.connect(system.admin_dsn, autocommit=True) as database:
        return _number(database, _OUTBOX)


def _shape(top: dict[str, Any]) -> str:
    found = {f"{one['Node Type']} {one.get('Index Name') or one.get('Relation Name')}" for one in scans(top)}
    return ", ".join(sorted(found))


def _number(database: Connection, query: str, *values: object) -> int:
    row = database.execute(query.encode(), values).fetchone()
    assert row is not None
    return int(row[0] or 0)
