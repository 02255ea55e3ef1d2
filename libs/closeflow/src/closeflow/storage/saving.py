"""Write what decisions changed: one statement per table and set of changed columns, whatever the number of books.

Only changed columns are written, so a service needs no grant on a column that is another's to change.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Final, TypeVar

from sqlalchemy import Table, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from closeflow.domain.close.outcome import follow_overfill
from closeflow.domain.model import Book, Event, Incident, Order
from closeflow.domain.position import exposure
from closeflow.domain.retry import RetryPolicy
from closeflow.domain.transitions import IllegalMove, illegal_moves
from closeflow.storage import mapping, tables
from closeflow.storage.books import lock_books
from closeflow.storage.direct import change
from closeflow.storage.overfills import hold_overfills
from closeflow.storage.rows import insert_rows, rows_json, storable, update_rows

_K = TypeVar("_K")
_T = TypeVar("_T")
Row = dict[str, object]
Change = tuple[Book, Book]

SCHEMA_VERSION: Final = {
    "submit-order": "submit-order.v1",
    "position-events": "position-event.v1",
    "execution-events": "execution-event.v1",
}


class MoveRefused(Exception):
    """A decision tried a move that no row of the transition table allows; nothing was written."""

    def __init__(self, moves: Sequence[IllegalMove]) -> None:
        super().__init__("; ".join(map(str, moves)))
        self.moves = tuple(moves)


async def save_books(tx: AsyncConnection, *, changes: Sequence[Change]) -> None:
    """Write the difference between each book as loaded and as decided; raises MoveRefused before writing anything."""
    refused = [move for before, after in changes for move in illegal_moves(before, after)]
    if refused:
        raise MoveRefused(refused)
    orders = [pair for before, after in changes for pair in _pairs(before.orders, after.orders)]
    requests = [pair for before, after in changes for pair in _pairs(before.requests, after.requests)]
    await _write(tx, tables.close_requests, ("id",), requests, mapping.request_row)
    positions = [(before.position, after.position) for before, after in changes]
    await _write(tx, tables.positions, ("id",), positions, lambda one: {"id": one.id, **mapping.position_row(one)})
    await _write(tx, tables.orders, ("client_order_id",), orders, mapping.order_row)
    await _write_facts(tx, orders)
    beyond = {
        after.position.id: exposure.overfill(after)
        for before, after in changes
        if exposure.overfill(before) != exposure.overfill(after)
    }
    held = await hold_overfills(tx, overfills=beyond)
    await insert_events(tx, events=held.events)
    if held.at is not None and held.followed:
        await _follow(tx, held.followed, now=held.at)


async def _follow(tx: AsyncConnection, changed: Mapping[int, Decimal], *, now: datetime) -> None:
    """Rule Q for positions that hold an overfill and are being closed: by position id, how much they have changed."""
    books = await lock_books(tx, position_ids=changed)
    settled = {key: follow_overfill(books[key], delta, now=now, policy=RetryPolicy()) for key, delta in changed.items()}
    await save_books(tx, changes=[(books[key], one.book) for key, one in settled.items()])
    await insert_events(tx, events=[event for one in settled.values() for event in one.events])
    await report_incidents(tx, incidents=[incident for one in settled.values() for incident in one.incidents])


async def _write_facts(tx: AsyncConnection, orders: Sequence[tuple[Order | None, Order]]) -> None:
    executions: list[Row] = []
    aliases: list[Row] = []
    withheld: list[Row] = []
    statements: list[Row] = []
    sends: list[Row] = []
    for before, after in orders:
        known = {one.exec_id for one in before.executions} if before else set()
        executions += [mapping.execution_row(one, order=after) for one in after.executions if one.exec_id not in known]
        brokers = {one.exec_id: one.broker for one in after.executions}
        aliases += [
            {"broker": brokers[exec_id], "account_id": after.account_id, "alias_id": alias, "exec_id": exec_id}
            for alias, exec_id in after.aliases.items()
            if before is None or alias not in before.aliases
        ]
        old_withheld = before.withheld if before else ()
        withheld += [mapping.withheld_row(one, order=after) for one in after.withheld if one not in old_withheld]
        old_statements = before.statements if before else ()
        statements += [mapping.statement_row(one, order=after) for one in after.statements if one not in old_statements]
        old_sends = before.sends if before else ()
        sends += [mapping.send_row(one, order=after) for one in after.sends if one not in old_sends]
    await _insert(tx, tables.executions, executions)
    await _insert(tx, tables.execution_aliases, aliases)
    await _insert(tx, tables.withheld_executions, withheld)
    await _insert(tx, tables.order_statements, statements, key=("client_order_id", "kind"))
    await _insert(tx, tables.order_sends, sends, key=("client_order_id", "kind", "n"))


async def insert_events(tx: AsyncConnection, *, events: Sequence[Event]) -> None:
    """Add outbox rows; Debezium publishes them once the transaction has committed."""
    await _insert(
        tx,
        tables.outbox_events,
        [
            {
                "id": event.event_id,
                "emission": event.emission,
                "topic": event.topic,
                "key": event.key,
                "event_type": event.event_type,
                "schema_version": SCHEMA_VERSION[event.topic],
                "payload": event.payload,
                "traceparent": event.traceparent,
                "close_request_id": event.close_request_id,
                "attempt": event.attempt,
                "position_id": event.position_id,
                "position_version": event.position_version,
            }
            for event in events
        ],
    )


async def report_incidents(tx: AsyncConnection, *, incidents: Sequence[Incident]) -> None:
    """Open an incident per (kind, subject), or count on the open one, once for each that is given; in one order, so
    that transactions which report the same ones wait for each other and never in a circle."""
    merged: dict[tuple[object, ...], Row] = {}
    counts: Counter[tuple[object, ...]] = Counter()
    for one in incidents:
        row: Row = {
            "kind": one.kind,
            "severity": one.severity,
            "position_id": one.position_id,
            "close_request_id": one.close_request_id,
            "client_order_id": one.client_order_id,
            "detail": {"text": storable(one.detail), "subject": one.subject},
        }
        key = (one.kind, one.client_order_id or one.close_request_id or one.position_id or one.subject)
        merged[key] = row
        counts[key] += 1
    if merged:
        rows = [merged[key] | {"count": counts[key]} for key in sorted(merged, key=str)]
        await change(tx, _REPORT_INCIDENTS, {"rows": rows_json(rows)})


_REPORT_INCIDENTS: Final = text("""
    INSERT INTO incidents (kind, severity, position_id, close_request_id, client_order_id, detail, count)
    SELECT kind, severity, position_id, close_request_id, client_order_id, detail, count
    FROM jsonb_populate_recordset(NULL::incidents, CAST(:rows AS jsonb))
    ON CONFLICT (kind, subject) WHERE closed_at IS NULL
    DO UPDATE SET count = incidents.count + EXCLUDED.count, last_seen_at = closeflow_now(),
                  detail = incidents.detail || EXCLUDED.detail -- what others added to it stays
""")


def _pairs(before: Mapping[_K, _T], after: Mapping[_K, _T]) -> list[tuple[_T | None, _T]]:
    return [(before.get(key), one) for key, one in after.items() if before.get(key) is not one]


async def _write(
    tx: AsyncConnection,
    table: Table,
    key: tuple[str, ...],
    pairs: Iterable[tuple[_T | None, _T]],
    row_of: Callable[[_T], Row],
) -> None:
    """Insert what is new; update what changed, grouped by which columns did."""
    new: list[Row] = []
    changed: defaultdict[tuple[str, ...], list[Row]] = defaultdict(list)
    for before, after in pairs:
        row = row_of(after)
        if before is None:
            new.append(row)
            continue
        old = row_of(before)
        columns = tuple(name for name, value in row.items() if value != old[name])
        if columns:
            changed[columns].append({name: row[name] for name in (*key, *columns)})
    await _insert(tx, table, new)
    for columns, rows in changed.items():
        updated = await change(tx, _update(table, key, columns), {"rows": rows_json(rows)})
        if updated != len(rows):
            raise RuntimeError(f"{table.name}: {updated} of {len(rows)} rows were there to be updated")


async def _insert(tx: AsyncConnection, table: Table, rows: Sequence[Row], *, key: tuple[str, ...] = ()) -> None:
    """Insert rows of the same columns; with a key, a row that is there already takes the new values."""
    if rows:
        await change(tx, _upsert(table, tuple(rows[0]), key), {"rows": rows_json(rows)})


# Which columns change is known only at run time, so these statements are built at first use and kept.
@lru_cache(maxsize=512)
def _update(table: Table, key: tuple[str, ...], columns: tuple[str, ...]) -> TextClause:
    return update_rows(table, key, columns)


@lru_cache(maxsize=64)
def _upsert(table: Table, columns: tuple[str, ...], key: tuple[str, ...]) -> TextClause:
    others = ", ".join(f"{name} = EXCLUDED.{name}" for name in columns if name not in key)
    return insert_rows(table, columns, conflict=f"({', '.join(key)}) DO UPDATE SET {others}" if key else None)
