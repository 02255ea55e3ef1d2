"""What the invariants are checked on, read in one snapshot: the books with their past; and how quiet it is.

The checks that SQL can make alone are in `verifying_checks` and its neighbours; what is compared with the topics and
the broker is in `verifying_state`. Everything here is read only and made for 100 000 rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

from sqlalchemy import text

from closeflow.domain.model import Book, Charge, CloseRequest, Execution, Order, Send, Statement
from closeflow.storage.book import mapping
from closeflow.storage.core.engine import Database, Transaction
from closeflow.storage.core.statements import Row, fetch

CHUNK: Final = 2000

_UNQUIET: Final = text("""
    SELECT (SELECT count(*) FROM close_requests WHERE status IN ('pending', 'submitted', 'retryable')) AS unfinished,
           (SELECT count(*) FROM orders WHERE stated_cum_qty > executed_qty) AS gaps,
           (SELECT count(*) FROM outbox_events e LEFT JOIN outbox_audit a ON a.day = e.created_on
            WHERE a.day IS NULL OR e.xact_id >= a.audited_through) AS unaudited,
           (SELECT count(*) FROM outbox_audit a CROSS JOIN LATERAL jsonb_array_elements(a.missing) m
            WHERE NOT EXISTS (SELECT FROM outbox_events e WHERE e.id = (m ->> 'id')::uuid
                              AND e.emission > (m ->> 'emission')::integer)) AS missing
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
_CHARGES: Final = text(f"""
    SELECT c.client_order_id, c.broker, c.charge_id AS kind, c.exec_id, c.commission AS quantity, c.fees AS price,
           c.currency AS side, c.occurred_at AS answered_at, c.source
    FROM execution_charges c JOIN orders o USING (client_order_id)
    WHERE o.{_OF_POSITIONS} ORDER BY c.recorded_at, c.charge_id
""")  # noqa: S608
_STATEMENTS: Final = text(f"""
    SELECT s.*, s.stated_at AS at, s.heard_at AS answered_at
    FROM order_statements s JOIN orders o USING (client_order_id)
    WHERE o.{_OF_POSITIONS} ORDER BY s.kind
""")  # noqa: S608
_SENDS: Final = text(f"""
    SELECT s.*, s.started_at AS at, s.sender AS source, jsonb_build_object('probe', s.probe) AS detail
    FROM order_sends s JOIN orders o USING (client_order_id)
    WHERE o.{_OF_POSITIONS} ORDER BY s.kind, s.n
""")  # noqa: S608
_ADJUSTMENTS: Final = text(f"SELECT position_id, delta, at FROM position_adjustments WHERE {_OF_POSITIONS}")  # noqa: S608
_MOVES: Final = text("""
    SELECT id, entity_id, from_status, to_status FROM status_history
    WHERE entity = 'order' AND entity_id = ANY(CAST(:ids AS text[])) ORDER BY id
""")
_OPEN_INCIDENTS: Final = text(
    "SELECT position_id, close_request_id, client_order_id FROM incidents WHERE closed_at IS NULL"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkInFlight:
    """What is still under way; all 0 when quiet. `unaudited`: outbox rows that the publication audit has not judged;
    `missing`: those that it misses in Kafka and that were not emitted again yet."""

    unfinished: int
    gaps: int
    unaudited: int
    missing: int

    @property
    def quiet(self) -> bool:
        """Whether nothing moves, so that what holds only then can be checked."""
        return not (self.unfinished or self.gaps or self.unaudited or self.missing)

    def __str__(self) -> str:
        return (
            f"{self.unfinished} unfinished close requests, {self.gaps} orders with fills that cannot be named yet, "
            f"{self.unaudited} outbox rows not audited yet, {self.missing} missing in Kafka"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenIncidents:
    """What a person has been told of: it explains what would else be a violation."""

    positions: frozenset[int]
    requests: frozenset[UUID]
    orders: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A change of an order's status. The ids give the order of the changes of one position, because its row is locked
    at each of them."""

    id: int
    before: str | None
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PastBook:
    """A book, and what is known of when it became so: when each execution was recorded (by its id), the adjustments
    with their times, and the moves of its orders where it has several."""

    book: Book
    recorded_at: Mapping[str, datetime]
    adjustments: tuple[tuple[datetime, Decimal], ...]
    moves: Mapping[str, tuple[Move, ...]]


@asynccontextmanager
async def snapshot(database: Database) -> AsyncIterator[Transaction]:
    """One read-only REPEATABLE READ transaction: every query inside sees the same state of the database."""
    async with database.connect() as connection:
        tx = await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        async with tx.begin():
            yield tx


async def work_in_flight(tx: Transaction) -> WorkInFlight:
    """How much is on its way in this snapshot."""
    row = (await tx.execute(_UNQUIET)).one()
    return WorkInFlight(unfinished=row.unfinished, gaps=row.gaps, unaudited=row.unaudited, missing=row.missing)


async def load_open_incidents(tx: Transaction) -> OpenIncidents:
    """The subjects of the incidents that are open in this snapshot."""
    rows = (await tx.execute(_OPEN_INCIDENTS)).all()
    return OpenIncidents(
        positions=frozenset(row.position_id for row in rows if row.position_id is not None),
        requests=frozenset(row.close_request_id for row in rows if row.close_request_id is not None),
        orders=frozenset(row.client_order_id for row in rows if row.client_order_id is not None),
    )


async def read_books(tx: Transaction) -> AsyncIterator[list[PastBook]]:
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


async def _books(tx: Transaction, rows: list[Row]) -> list[PastBook]:
    ids = {"ids": [row["id"] for row in rows]}
    requests: defaultdict[int, dict[UUID, CloseRequest]] = defaultdict(dict)
    for row in await fetch(tx, _REQUESTS, ids):
        requests[row["position_id"]][row["id"]] = mapping.request(row)
    executions: defaultdict[str, list[Execution]] = defaultdict(list)
    aliases: defaultdict[str, dict[str, str]] = defaultdict(dict)
    recorded_at: defaultdict[int, dict[str, datetime]] = defaultdict(dict)
    for row in await fetch(tx, _EXECUTIONS, ids):
        recorded_at[row["position_id"]][row["exec_id"]] = row["recorded_at"]
        executions[row["client_order_id"]].append(mapping.execution(row))
        aliases[row["client_order_id"]].update(dict.fromkeys(row["aliases"], row["exec_id"]))
    charges: defaultdict[str, list[Charge]] = defaultdict(list)
    for row in await fetch(tx, _CHARGES, ids):
        charges[row["client_order_id"]].append(mapping.charge(row))
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
            row,
            executions=executions[name],
            aliases=aliases[name],
            charges=charges[name],
            statements=statements[name],
            sends=sends[name],
        )
    adjustments: defaultdict[int, list[tuple[datetime, Decimal]]] = defaultdict(list)
    for row in await fetch(tx, _ADJUSTMENTS, ids):
        adjustments[row["position_id"]].append((row["at"], row["delta"]))
    moves = await _moves(tx, [name for of_position in orders.values() if len(of_position) > 1 for name in of_position])
    return [
        PastBook(
            book=Book(
                position=mapping.position(row),
                base_quantity=row["quantity"],
                ledger_quantity=row["quantity"],
                requests=requests[row["id"]],
                orders=orders[row["id"]],
            ),
            recorded_at=recorded_at[row["id"]],
            adjustments=tuple(adjustments[row["id"]]),
            moves={name: moves[name] for name in orders[row["id"]] if name in moves},
        )
        for row in rows
    ]


async def _moves(tx: Transaction, names: list[str]) -> Mapping[str, tuple[Move, ...]]:
    found: defaultdict[str, list[Move]] = defaultdict(list)
    if names:
        for row in await fetch(tx, _MOVES, {"ids": names}):
            found[row["entity_id"]].append(Move(id=row["id"], before=row["from_status"], after=row["to_status"]))
    return {name: tuple(moves) for name, moves in found.items()}
