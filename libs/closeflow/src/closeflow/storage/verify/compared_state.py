"""What of the database is compared with the topics and with the broker, read in one snapshot."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

from sqlalchemy import text

from closeflow.domain.model import ExecKind, PositionStatus, Side
from closeflow.storage.core.engine import Transaction
from closeflow.storage.core.statements import fetch
from closeflow.storage.verify.book_invariants import COMMON, SNAPSHOT_AT

_NOW: Final = text(f"SELECT {SNAPSHOT_AT}")
_OUTBOX: Final = text("""
    SELECT id, emission, topic, event_type, position_id, position_version, occurred_at FROM outbox_events
    ORDER BY xact_id, id, emission
""")
_POSITIONS: Final = text("""
    SELECT p.id, p.account_id, p.symbol, p.quantity, p.status, p.version,
           EXISTS (SELECT FROM close_requests r
                   WHERE r.position_id = p.id AND r.status IN ('pending', 'submitted', 'retryable'))
           OR EXISTS (SELECT FROM orders o WHERE o.position_id = p.id AND (o.stated_cum_qty > o.executed_qty
                      OR o.status NOT IN ('denied', 'lost', 'filled', 'canceled', 'expired', 'rejected'))) AS busy
    FROM positions p ORDER BY p.id
""")
_MOVES: Final = text("""
    SELECT entity_id::bigint AS position_id, to_status FROM status_history WHERE entity = 'position' ORDER BY id
""")
_EXECUTIONS: Final = text(f"""
    {COMMON}
    SELECT e.broker, e.account_id, e.exec_id, e.kind, e.client_order_id, e.position_id, e.side, e.quantity, e.price,
           p.multiplier, e.recorded_at, f.stands IS NOT NULL AS stands,
           COALESCE(c.first_at, e.recorded_at) AS since, COALESCE(c.last_at, e.recorded_at) AS until
    FROM executions e JOIN positions p ON p.id = e.position_id
    LEFT JOIN (SELECT broker, account_id, exec_id, first_at,
                      max(recorded_at) OVER (PARTITION BY broker, account_id, trade) AS last_at FROM chain) c
        ON (c.broker, c.account_id, c.exec_id) = (e.broker, e.account_id, e.exec_id)
    LEFT JOIN effective f ON (f.broker, f.account_id, f.stands) = (e.broker, e.account_id, e.exec_id)
    ORDER BY e.recorded_at, e.exec_id
""")  # noqa: S608 (a constant of ours)
_ORDERS: Final = text("""
    SELECT o.client_order_id, o.account_id, o.symbol, o.side, o.quantity, o.created_at, o.status, o.broker_update_seq,
           o.stated_cum_qty AS stated,
           o.status IN ('denied', 'lost', 'filled', 'canceled', 'expired', 'rejected')
           AND o.stated_cum_qty = o.executed_qty AS settled,
           EXISTS (SELECT FROM order_sends s WHERE s.client_order_id = o.client_order_id AND s.kind = 'submit'
                   AND COALESCE(s.answer, '') NOT IN ('not_sent', 'not_accepted')) AS sent
    FROM orders o ORDER BY o.created_at, o.client_order_id
""")
_RECEIPTS: Final = text("SELECT consumer, event_id, outcome FROM inbox")
_PARKED: Final = text('SELECT topic, partition, "offset" FROM parked_records')
_NOTED: Final = text("SELECT DISTINCT client_order_id FROM incidents WHERE client_order_id IS NOT NULL")


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxEntry:
    """A row of the outbox, as far as it is compared with the topics."""

    event_id: UUID
    emission: int
    topic: str
    event_type: str
    position_id: int | None
    position_version: int | None
    occurred_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionState:
    """`busy`: a request is unfinished, or an order of it may still change the quantity. `moves`: every status that it
    had, the first one first."""

    id: int
    account_id: str
    symbol: str
    quantity: Decimal
    status: PositionStatus
    version: int
    busy: bool
    moves: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BookedExecution:
    """A row of the ledger. `stands`: it is what a trade is now, because nothing took its place. `since` and `until`:
    when the first and the last row were booked of those that name each other."""

    broker: str
    account_id: str
    exec_id: str
    kind: ExecKind
    client_order_id: str
    position_id: int
    side: Side
    quantity: Decimal | None
    price: Decimal | None
    multiplier: Decimal
    recorded_at: datetime
    stands: bool
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownOrder:
    """`settled`: ended with every fill named. `sent`: a send of it counts, so the broker may have seen it. `stated`:
    the highest cumulative quantity that the broker stated."""

    client_order_id: str
    account_id: str
    symbol: str
    side: Side
    quantity: Decimal
    created_at: datetime
    status: str
    broker_update_seq: int | None
    stated: Decimal
    settled: bool
    sent: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """All as it was at `at`, when the snapshot was opened. `receipts` are the inbox: by consumer, the outcome of each
    event; `parked` names records by topic, partition and offset; `noted` the orders that ever had an incident."""

    at: datetime
    outbox: tuple[OutboxEntry, ...]
    positions: tuple[PositionState, ...]
    executions: tuple[BookedExecution, ...]
    orders: tuple[KnownOrder, ...]
    receipts: Mapping[str, Mapping[UUID, str]] = field(default_factory=dict)
    parked: frozenset[tuple[str, int, int]] = frozenset()
    noted: frozenset[str] = frozenset()


async def load_state(tx: Transaction) -> State:
    """Everything that is compared, in the caller's snapshot."""
    moves: defaultdict[int, list[str]] = defaultdict(list)
    for row in await tx.execute(_MOVES):
        moves[row.position_id].append(row.to_status)
    receipts: defaultdict[str, dict[UUID, str]] = defaultdict(dict)
    for row in await tx.execute(_RECEIPTS):
        receipts[row.consumer][row.event_id] = row.outcome
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
            PositionState(**{**row, "status": PositionStatus(row["status"]), "moves": tuple(moves[row["id"]])})
            for row in await fetch(tx, _POSITIONS)
        ),
        executions=tuple(
            BookedExecution(**{**row, "side": Side(row["side"]), "kind": ExecKind(row["kind"])})
            for row in await fetch(tx, _EXECUTIONS)
        ),
        orders=tuple(KnownOrder(**{**row, "side": Side(row["side"])}) for row in await fetch(tx, _ORDERS)),
        receipts=dict(receipts),
        parked=frozenset((row.topic, row.partition, row.offset) for row in await tx.execute(_PARKED)),
        noted=frozenset((await tx.execute(_NOTED)).scalars()),
    )
