"""Records that wait for what they name: parked, due again, and released.

A record is parked because what it is about was not in the database, or because the database refused it. It can be
published again once that is over: its order or request is there, and no incident about the refusal is open. One with a
value that its reader does not know is apart: it waits for a newer reader, whatever it is about.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import text

from closeflow.contracts.record_headers import PARKED_SINCE
from closeflow.storage.core.bulk import insert_rows, rows_json, storable
from closeflow.storage.core.engine import Transaction
from closeflow.storage.core.statements import Row, change, fetch
from closeflow.storage.predicates import UNKNOWN_VALUE
from closeflow.storage.schema import tables

_OTHER_REASON: Final = f"NOT starts_with(p.reason, '{UNKNOWN_VALUE}')"

# An id of ours names its request; CASE, because the cast must not meet another text.
_REQUEST_OF: Final = """
    CASE WHEN p.client_order_id ~ '^cf-[0-9a-f]{32}-[0-9]+$'
         THEN CAST(substring(p.client_order_id FROM 4 FOR 32) AS uuid) END
"""
_DUE_UPDATES: Final = text(f"""
    SELECT p.topic, p.partition, p."offset", p.key, p.headers, p.bytes, p.client_order_id, p.reason
    FROM parked_records p JOIN orders o ON o.client_order_id = p.client_order_id
    WHERE p.released_at IS NULL AND p.topic = :topic AND {_OTHER_REASON}
      AND NOT EXISTS (SELECT FROM incidents i
                      WHERE i.kind = 'poison' AND i.subject = p.client_order_id AND i.closed_at IS NULL)
    ORDER BY p.parked_at, p.partition, p."offset" LIMIT :budget
""")  # noqa: S608 (a constant of ours)
_DUE_SUBMITS: Final = text(f"""
    SELECT p.topic, p.partition, p."offset", p.key, p.headers, p.bytes, p.client_order_id, p.reason
    FROM parked_records p JOIN close_requests r ON r.id = {_REQUEST_OF}
    WHERE p.released_at IS NULL AND p.topic = :topic AND {_OTHER_REASON}
      AND (r.frozen_reason IS NULL OR r.status IN ('completed', 'failed'))
    ORDER BY p.parked_at, p.partition, p."offset" LIMIT :budget
""")  # noqa: S608 (a constant of ours)
# Waiting since it was parked for as long as it had waited by then, or for an hour: a reader that still does not know
# the value gets the record ever rarer, and one that came to know it waits for it no longer than that.
_DUE_UNKNOWN: Final = f"""
    p.released_at IS NULL AND starts_with(p.reason, '{UNKNOWN_VALUE}')
    AND closeflow_now() - p.parked_at
        >= LEAST(p.parked_at - CAST(p.headers ->> '{PARKED_SINCE}' AS timestamptz), interval '1 hour')
"""
# A record of each reason, because a reader that knows the values of one knows those of all; by chance, so that of too
# many reasons each has its turn.
_UNKNOWN_VALUES: Final = text(f"""
    SELECT * FROM (
        SELECT DISTINCT ON (p.topic, p.reason) p.topic, p.partition, p."offset", p.key, p.headers, p.bytes,
               p.client_order_id, p.reason
        FROM parked_records p WHERE {_DUE_UNKNOWN}
        ORDER BY p.topic, p.reason, p.parked_at, p.partition, p."offset") each_reason
    ORDER BY random() LIMIT :budget
""")  # noqa: S608 (constants of ours)
_DUE_UNKNOWNS: Final = text(f"""
    SELECT p.topic, p.partition, p."offset", p.key, p.headers, p.bytes, p.client_order_id, p.reason
    FROM parked_records p WHERE {_DUE_UNKNOWN}
      AND (p.topic, p.reason) IN (SELECT r.topic, r.reason FROM jsonb_to_recordset(CAST(:rows AS jsonb))
                                  AS r (topic text, reason text))
    ORDER BY p.parked_at, p.topic, p.partition, p."offset" LIMIT :budget
""")  # noqa: S608 (constants of ours)
_RELEASE: Final = text("""
    UPDATE parked_records p SET released_at = closeflow_now()
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (topic text, partition integer, "offset" bigint)
    WHERE (p.topic, p.partition, p."offset") = (r.topic, r.partition, r."offset") AND p.released_at IS NULL
""")
_LOCK_REQUESTS: Final = text(
    "SELECT FROM close_requests WHERE id = ANY(CAST(:ids AS uuid[])) ORDER BY id FOR NO KEY UPDATE"
)
_CLOSE_UNKNOWN: Final = text("""
    UPDATE incidents SET closed_at = closeflow_now(), closed_by = 'reconciler',
           resolution = 'the order is known now; its update was published again'
    WHERE kind = 'unknown_order' AND closed_at IS NULL AND subject = ANY(CAST(:orders AS text[]))
""")
_CLOSE_PARKED: Final = text("""
    UPDATE incidents i SET closed_at = closeflow_now(), closed_by = 'reconciler',
           resolution = 'the request is there now; its event was published again'
    WHERE i.kind = 'submit_order_parked' AND i.closed_at IS NULL
      AND i.subject = ANY(SELECT CAST(unnest(CAST(:ids AS uuid[])) AS text))
      AND NOT EXISTS (SELECT FROM close_requests r
                      WHERE r.id = i.close_request_id AND r.frozen_reason = 'submit_order_parked')
""")
_LIST: Final = text("""
    SELECT topic, partition, "offset", client_order_id, reason, parked_at, released_at FROM parked_records
    WHERE (CAST(:released AS boolean) OR released_at IS NULL) AND (CAST(:topic AS text) IS NULL OR topic = :topic)
    ORDER BY parked_at DESC, topic, partition, "offset" LIMIT :limit
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class DueRecord:
    """A parked record as it is to be published again."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    headers: Mapping[str, str]
    value: bytes | None
    client_order_id: str | None
    reason: str


async def due_updates(tx: Transaction, *, topic: str, budget: int) -> list[DueRecord]:
    """Broker updates whose order is in the database, but for those that the database still refuses; by client order
    id and never by symbol. The oldest first."""
    return [_due(row) for row in await fetch(tx, _DUE_UPDATES, {"topic": topic, "budget": budget})]


async def due_submits(tx: Transaction, *, topic: str, budget: int) -> list[DueRecord]:
    """Events of requests that can be seen and are not frozen. The oldest first."""
    return [_due(row) for row in await fetch(tx, _DUE_SUBMITS, {"topic": topic, "budget": budget})]


async def unknown_values(tx: Transaction, *, budget: int) -> list[DueRecord]:
    """Of the records that wait for a reader which knows their values, and are due: the oldest of each topic and reason,
    of at most `budget` reasons. One that was parked again is due only after as long as it had been waiting, or an hour.
    """
    return [_due(row) for row in await fetch(tx, _UNKNOWN_VALUES, {"budget": budget})]


async def due_unknown_values(tx: Transaction, *, known: Sequence[DueRecord], budget: int) -> list[DueRecord]:
    """Those that are due and lack what one of `known` lacked. The oldest first."""
    rows = [{"topic": one.topic, "reason": one.reason} for one in known]
    given = {"rows": rows_json(rows), "budget": budget}
    return [_due(row) for row in await fetch(tx, _DUE_UNKNOWNS, given)] if rows else []


async def release(
    tx: Transaction, *, records: Sequence[DueRecord], orders: Collection[str], requests: Collection[UUID]
) -> None:
    """Records that Kafka has again; the incidents about their unknown orders and invisible requests are closed.

    An incident that froze its request stays open: only a person closes it (rule R11).
    """
    rows = [{"topic": one.topic, "partition": one.partition, "offset": one.offset} for one in records]
    # Locked first (rule R7): a request that is being frozen just now is seen frozen by the statement that closes.
    await change(tx, _LOCK_REQUESTS, {"ids": sorted(requests)})
    await change(tx, _RELEASE, {"rows": rows_json(rows)})
    await change(tx, _CLOSE_UNKNOWN, {"orders": sorted(orders)})
    await change(tx, _CLOSE_PARKED, {"ids": sorted(requests)})


async def list_parked(tx: Transaction, *, topic: str | None, released: bool, limit: int) -> list[Row]:
    """Parked records, the newest first; with `released` also those that were published again."""
    return await fetch(tx, _LIST, {"topic": topic, "released": released, "limit": limit})


def _due(row: Row) -> DueRecord:
    return DueRecord(
        topic=row["topic"],
        partition=row["partition"],
        offset=row["offset"],
        key=row["key"],
        headers=row["headers"] or {},
        value=row["bytes"],
        client_order_id=row["client_order_id"],
        reason=row["reason"],
    )


_PARK: Final = insert_rows(
    tables.parked_records,
    ["topic", "partition", "offset", "key", "headers", "bytes", "reason", "client_order_id", "parked_at"],
    conflict="DO NOTHING",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedRecord:
    """A record that cannot be applied now, kept whole."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    headers: Mapping[str, str]
    value: bytes | None
    reason: str
    client_order_id: str | None


async def park_records(tx: Transaction, *, records: Sequence[ParkedRecord], now: datetime) -> None:
    """Keep the records, each once: one that is parked already stays as it is."""
    if not records:
        return
    rows = [
        {
            "topic": one.topic,
            "partition": one.partition,
            "offset": one.offset,
            "key": one.key,
            "headers": {storable(name): storable(value) for name, value in one.headers.items()},
            "bytes": one.value,
            "reason": storable(one.reason),
            "client_order_id": one.client_order_id,
            "parked_at": now,
        }
        for one in records
    ]
    await change(tx, _PARK, {"rows": rows_json(rows)})
