"""Receipts: which record has been taken already, and which execution ids are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import text

from closeflow.domain.model import BrokerUpdate
from closeflow.storage.core.bulk import insert_rows, rows_json
from closeflow.storage.core.engine import Transaction
from closeflow.storage.core.statements import fetch, write
from closeflow.storage.schema import tables

_CONTEXT: Final = text("""
    SELECT closeflow_now() AS now,
           ARRAY(SELECT event_id FROM inbox WHERE consumer = :consumer AND event_id = ANY(CAST(:ids AS uuid[]))
                   AND outcome = 'applied') AS applied,
           (SELECT jsonb_agg(jsonb_build_array(e.broker, e.account_id, e.exec_id, e.client_order_id))
            FROM executions e
            JOIN jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (broker text, account_id text, exec_id text)
              ON (e.broker, e.account_id, e.exec_id) = (r.broker, r.account_id, r.exec_id)) AS taken
""")
_RECEIVED: Final = insert_rows(
    tables.inbox,
    ["consumer", "event_id", "received_at", "outcome"],
    conflict="(consumer, event_id) DO UPDATE SET outcome = EXCLUDED.outcome, received_at = EXCLUDED.received_at",
)

ExecutionKey = tuple[str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What the database knows of a batch's updates, besides the books. An event that was parked or ignored is not
    `applied` (rule R9); `taken` is the client order id under which an execution id is booked."""

    now: datetime
    applied: frozenset[UUID]
    taken: Mapping[ExecutionKey, str]


async def load_context(tx: Transaction, *, consumer: str, updates: Sequence[BrokerUpdate]) -> Context:
    """What is known of these updates: which were taken before, and which execution ids are booked, and where."""
    executions = [
        {"broker": one.broker, "account_id": one.account_id, "exec_id": one.exec_id}
        for one in updates
        if one.exec_id is not None
    ]
    ids = [one.event_id for one in updates]
    parameters = {"consumer": consumer, "ids": ids, "rows": rows_json(executions)}
    (row,) = await fetch(tx, _CONTEXT, parameters)
    taken = {(broker, account, exec_id): order for broker, account, exec_id, order in row["taken"] or ()}
    return Context(now=row["now"], applied=frozenset(row["applied"]), taken=taken)


async def record_receipts(tx: Transaction, *, consumer: str, outcomes: Mapping[UUID, str], now: datetime) -> None:
    """One inbox row per event, ids ascending (rule R7)."""
    rows = [
        {"consumer": consumer, "event_id": event_id, "received_at": now, "outcome": outcomes[event_id]}
        for event_id in sorted(outcomes)
    ]
    if rows:
        await write(tx, _RECEIVED, rows_json(rows))
