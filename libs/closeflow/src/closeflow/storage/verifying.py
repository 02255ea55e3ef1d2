"""What the invariants are checked on, read in one snapshot: books, outbox rows, executions; and how quiet it is.

The checks that SQL can make alone are in `verifying_checks`. Everything here is read only and made for 100 000 rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

from sqlalchemy import text

from closeflow.domain.model import Book, CloseRequest, Execution, Order, PositionStatus, Send, Side, Statement
from closeflow.storage import mapping
from closeflow.storage.direct import Row, fetch
from closeflow.storage.engine import Database, Transaction

CHUNK: Final = 2000

_NOW: Final = text("SELECT closeflow_now()")
_UNQUIET: Final = text("""
    SELECT (SELECT count(*) FROM close_requests WHERE status IN ('pending', 'submitted', 'retryable')) AS unfinished,
           (SELECT count(*) FROM orders WHERE stated_cum_qty > executed_qty) AS gaps,
           (SELECT count(*) FROM outbox_events e LEFT JOIN outbox_audit a ON a.day = e.created_on
            WHERE a.day IS NULL OR e.xact_id >= a.audited_through) AS unaudited
""")
_POSITIONS: Final = text("""
    SELECT * FROM positions p
    WHERE p.id > :after AND EXISTS (SELECT FROM orders o WHERE o.position_id = p.id) ORDER BY p.id LIMIT :limit
""")
_OF_POSITIONS: Final = "position_id = ANY(CAST(:ids AS bigint[]))"
_REQUESTS: Final = text(f"SELECT * FROM close_requests WHERE {_OF_POSITIONS} ORDER BY id")  # noqa: S608
_ORDERS: Final = text(f"SELECT * FROM orders WHERE {_OF_POSITIONS} ORDER BY client_order_id")  # noqa: S608
_EXECUTIONS: Final = text(f"""
    SELECT e.*, occurred_at AS at,
           ARRAY(SELECT a.alias_id FROM execution_aliases a
                 WHERE (a.broker, a.account_id, a.exec_id) = (e.broker, e.account_id, e.exec_id)) AS aliases
    FROM executions e WHERE {_OF_POSITIONS} ORDER BY recorded_at, exec_id
""")  # noqa: S608 (a constant of ours)
_STATEMENTS: Final = text(f"""
    SELECT s.*, s.stated_at AS at FROM order_statements s JOIN orders o USING (client_order_id)
    WHERE o.{_OF_POSITIONS} ORDER BY s.kind
""")  # noqa: S608
_SENDS: Final = text(f"""
    SELECT s.*, s.started_at AS at, s.sender AS source FROM order_sends s JOIN orders o USING (client_order_id)
    WHERE o.{_OF_POSITIONS} ORDER BY s.kind, s.n
""")  # noqa: S608
_OPEN_INCIDENTS: Final = text(
    "SELECT position_id, close_request_id, client_order_id FROM incidents WHERE closed_at IS NULL"
)
_OUTBOX: Final = text("""
    SELECT id, emission, topic, event_type, position_id, position_version, occurred_at FROM outbox_events
    ORDER BY xact_id, id, emission
""")
_ALL_POSITIONS: Final = text("""
    SELECT p.id, p.account_id, p.symbol, p.quantity, p.status, p.version,
           EXISTS (SELECT FROM close_requests r
                   WHERE r.position_id = p.id AND r.status IN ('pending', 'submitted', 'retryable'))
           OR EXISTS (SELECT FROM orders o WHERE o.position_id = p.id AND (o.stated_cum_qty > o.executed_qty
                      OR o.status NOT IN ('denied', 'lost', 'filled', 'canceled', 'expired', 'rejected'))) AS busy
    FROM positions p ORDER BY p.id
""")
_ALL_EXECUTIONS: Final = text("""
    SELECT e.broker, e.account_id, e.exec_id, e.client_order_id, e.position_id, e.side, e.quantity, e.price,
           e.recorded_at
    FROM executions e WHERE e.kind = 'trade' ORDER BY e.recorded_at, e.exec_id
""")
_ALL_ORDERS: Final = text("""
    SELECT o.client_order_id, o.account_id, o.created_at, o.status,
           o.status IN ('denied', 'lost', 'filled', 'canceled', 'expired', 'rejected')
           AND o.stated_cum_qty = o.executed_qty AS settled,
           EXISTS (SELECT FROM order_sends s WHERE s.client_order_id = o.client_order_id AND s.kind = 'submit'
                   AND COALESCE(s.answer, '') NOT IN ('not_sent', 'not_accepted')) AS sent
    FROM orders o ORDER BY o.created_at, o.client_order_id
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unquiet:
    """What is still under way; all 0 when quiet. `unaudited`: outbox rows that the publication audit has not judged."""

    unfinished: int
    gaps: int
    unaudited: int

    @property
    def quiet(self) -> bool:
        return not (self.unfinished or self.gaps or self.unaudited)

    def __str__(self) -> str:
        return (
            f"{self.unfinished} unfinished close requests, {self.gaps} orders with fills that cannot be named yet, "
            f"{self.unaudited} outbox rows not audited yet"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxEntry:
    event_id: UUID
    emission: int
    topic: str
    event_type: str
    position_id: int | None
    position_version: int | None
    occurred_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionState:
    """`busy`: a request is unfinished, or an order of it may still change the quantity."""

    id: int
    account_id: str
    symbol: str
    quantity: Decimal
    status: PositionStatus
    version: int
    busy: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BookedExecution:
    broker: str
    account_id: str
    exec_id: str
    client_order_id: str
    position_id: int
    side: Side
    quantity: Decimal
    price: Decimal
    recorded_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownOrder:
    """`settled`: ended with every fill named. `sent`: a send of it counts, so the broker may have seen it."""

    client_order_id: str
    account_id: str
    created_at: datetime
    status: str
    settled: bool
    sent: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenIncidents:
    positions: frozenset[int]
    requests: frozenset[UUID]
    orders: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What is compared with the topics and with the broker: all as it was at `at`, the database's time."""

    at: datetime
    outbox: tuple[OutboxEntry, ...]
    positions: tuple[PositionState, ...]
    executions: tuple[BookedExecution, ...]
    orders: tuple[KnownOrder, ...]


@asynccontextmanager
async def snapshot(database: Database) -> AsyncIterator[Transaction]:
    """One read-only REPEATABLE READ transaction: every query inside sees the same state of the database."""
    async with database.connect() as connection:
        tx = await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        async with tx.begin():
            yield tx


async def unquiet(tx: Transaction) -> Unquiet:
    row = (await tx.execute(_UNQUIET)).one()
    return Unquiet(unfinished=row.unfinished, gaps=row.gaps, unaudited=row.unaudited)


async def load_state(tx: Transaction) -> State:
    return State(
        at=(await tx.execute(_NOW)).scalar_one(),
        outbox=tuple(
            OutboxEntry(
                event_id=row.id,
                emission=row.emission,
                topic=row.topic,
                event_type=row.event_type,
                position_id=row.position_id,
                position_version=row.position_version,
                occurred_at=row.occurred_at,
            )
            for row in await tx.execute(_OUTBOX)
        ),
        positions=tuple(
            PositionState(**{**row, "status": PositionStatus(row["status"])}) for row in await fetch(tx, _ALL_POSITIONS)
        ),
        executions=tuple(
            BookedExecution(**{**row, "side": Side(row["side"])}) for row in await fetch(tx, _ALL_EXECUTIONS)
        ),
        orders=tuple(KnownOrder(**row) for row in await fetch(tx, _ALL_ORDERS)),
    )


async def load_open_incidents(tx: Transaction) -> OpenIncidents:
    rows = (await tx.execute(_OPEN_INCIDENTS)).all()
    return OpenIncidents(
        positions=frozenset(row.position_id for row in rows if row.position_id is not None),
        requests=frozenset(row.close_request_id for row in rows if row.close_request_id is not None),
        orders=frozenset(row.client_order_id for row in rows if row.client_order_id is not None),
    )


async def read_books(tx: Transaction) -> AsyncIterator[list[Book]]:
    """Every position that has an order, with all its requests and orders and their facts, in chunks and without locks.

    `ledger_quantity` is the position's own quantity here: that the two are equal is checked elsewhere.
    """
    after = 0
    while True:
        rows = await fetch(tx, _POSITIONS, {"after": after, "limit": CHUNK})
        if not rows:
            return
        after = rows[-1]["id"]
        yield await _books(tx, rows)


async def _books(tx: Transaction, rows: list[Row]) -> list[Book]:
    ids = {"ids": [row["id"] for row in rows]}
    requests: defaultdict[int, dict[UUID, CloseRequest]] = defaultdict(dict)
    for row in await fetch(tx, _REQUESTS, ids):
        requests[row["position_id"]][row["id"]] = mapping.request(row)
    executions: defaultdict[str, list[Execution]] = defaultdict(list)
    aliases: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for row in await fetch(tx, _EXECUTIONS, ids):
        executions[row["client_order_id"]].append(mapping.execution(row))
        aliases[row["client_order_id"]].update(dict.fromkeys(row["aliases"], row["exec_id"]))
    statements: defaultdict[str, list[Statement]] = defaultdict(list)
    for row in await fetch(tx, _STATEMENTS, ids):
        statements[row["client_order_id"]].append(mapping.statement(row))
    sends: defaultdict[str, list[Send]] = defaultdict(list)
    for row in await fetch(tx, _SENDS, ids):
        sends[row["client_order_id"]].append(mapping.send(row))
    orders: defaultdict[int, dict[str, Order]] = defaultdict(dict)
    for row in await fetch(tx, _ORDERS, ids):
        name = row["client_order_id"]
        orders[row["position_id"]][name] = mapping.order(
            row, executions=executions[name], aliases=aliases[name], statements=statements[name], sends=sends[name]
        )
    return [
        Book(
            position=mapping.position(row),
            base_quantity=row["quantity"],
            ledger_quantity=row["quantity"],
            requests=requests[row["id"]],
            orders=orders[row["id"]],
        )
        for row in rows
    ]
