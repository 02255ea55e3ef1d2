"""The publication audit's view of the outbox, and the daily partitions.

The mark of a day is a transaction id: every row below it has been judged. Rows are judged only below
`pg_snapshot_xmin`, because a row of an older transaction that commits late must not fall under the mark.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final
from uuid import UUID

from sqlalchemy import text

from closeflow.domain.publication import EventKey, OutboxRow
from closeflow.storage.engine import Transaction
from closeflow.storage.rows import rows_json

_XMIN: Final = text("SELECT CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text)")
_DAYS: Final = text("""
    SELECT d.day, CAST(COALESCE(a.audited_through, '0'::xid8) AS text) AS through, COALESCE(a.missing, '[]') AS missing
    FROM (SELECT CAST(to_date(substring(c.relname FROM '[0-9]{8}$'), 'YYYYMMDD') AS date) AS day
          FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
          WHERE i.inhparent = 'outbox_events'::regclass AND c.relname ~ '[0-9]{8}$') d
    LEFT JOIN outbox_audit a ON a.day = d.day
    WHERE d.day <= CAST(closeflow_now() AT TIME ZONE 'UTC' AS date)
    ORDER BY d.day
""")
_UNJUDGED: Final = text("""
    SELECT id, emission, position_id, CAST(xact_id AS text) AS xact_id, occurred_at FROM outbox_events
    WHERE created_on = :day AND xact_id >= CAST(:through AS xid8) AND xact_id < CAST(:below AS xid8)
    ORDER BY xact_id, id, emission LIMIT :budget
""")
_OLDEST: Final = text("""
    SELECT min(e.occurred_at) FROM outbox_events e LEFT JOIN outbox_audit a ON a.day = e.created_on
    WHERE a.day IS NULL OR e.xact_id >= a.audited_through OR a.missing <> '[]'
""")
_MARK: Final = text("""
    INSERT INTO outbox_audit (day, audited_through, missing)
    SELECT day, audited_through, missing FROM jsonb_populate_recordset(NULL::outbox_audit, CAST(:rows AS jsonb))
    ON CONFLICT (day) DO UPDATE SET audited_through = EXCLUDED.audited_through, missing = EXCLUDED.missing
    WHERE outbox_audit.audited_through = CAST(CAST(:before AS jsonb) ->> CAST(EXCLUDED.day AS text) AS xid8)
""")
_ENSURE: Final = text("SELECT closeflow_ensure_outbox_partitions(:days)")
_DROP: Final = text("SELECT closeflow_drop_outbox_partition(:day)")
_STRAYS: Final = text("SELECT count(*) FROM outbox_events_default")


@dataclass(frozen=True, slots=True)
class AuditedDay:
    day: date
    through: int
    missing: frozenset[EventKey]


async def snapshot_xmin(tx: Transaction) -> int:
    """Every transaction below it has ended."""
    return int((await tx.execute(_XMIN)).scalar_one())


async def outbox_days(tx: Transaction) -> list[AuditedDay]:
    """Every day that has a partition, up to today, oldest first, with its mark (0 when it has none)."""
    return [
        AuditedDay(row.day, int(row.through), frozenset((UUID(one["id"]), int(one["emission"])) for one in row.missing))
        for row in await tx.execute(_DAYS)
    ]


async def unjudged_rows(tx: Transaction, *, day: date, through: int, below: int, budget: int) -> list[OutboxRow]:
    """The day's rows from the mark on, below the snapshot's xmin, in the order of their transactions."""
    parameters = {"day": day, "through": str(through), "below": str(below), "budget": budget}
    return [
        OutboxRow((row.id, row.emission), row.position_id, int(row.xact_id), row.occurred_at)
        for row in await tx.execute(_UNJUDGED, parameters)
    ]


async def oldest_unjudged_at(tx: Transaction) -> datetime | None:
    """From when on the topics have to be read; None when the outbox has nothing to judge."""
    found: datetime | None = (await tx.execute(_OLDEST)).scalar_one_or_none()
    return found


class AuditedElsewhere(Exception):
    """Another process has moved a mark: this one no longer audits alone."""


async def save_marks(tx: Transaction, *, days: Sequence[AuditedDay], before: Mapping[date, int]) -> None:
    """Move marks from where they were `before`; raises AuditedElsewhere when one of them is not there any more.

    A mark that somebody else took back would have rows judged again that its owner has forgotten seeing.
    """
    rows = [
        {
            "day": one.day.isoformat(),
            "audited_through": str(one.through),
            "missing": [{"id": str(event_id), "emission": emission} for event_id, emission in sorted(one.missing)],
        }
        for one in days
    ]
    if not rows:
        return
    marks = json.dumps({day.isoformat(): str(through) for day, through in before.items()})
    saved = await tx.execute(_MARK, {"rows": rows_json(rows), "before": marks})
    if saved.rowcount != len(rows):
        raise AuditedElsewhere(f"{len(rows) - saved.rowcount} of {len(rows)} marks were moved by another process")


async def ensure_partitions(tx: Transaction, *, days_ahead: int) -> int:
    """Make the partitions of today and the days ahead; returns how many were missing."""
    return int((await tx.execute(_ENSURE, {"days": days_ahead})).scalar_one())


async def drop_partition(tx: Transaction, *, day: date) -> bool:
    """Drop one day; the database itself refuses while an event of it is not known to be published."""
    return bool((await tx.execute(_DROP, {"day": day})).scalar_one())


async def stray_rows(tx: Transaction) -> int:
    """Rows that fell into the DEFAULT partition, which should be empty."""
    return int((await tx.execute(_STRAYS)).scalar_one())
