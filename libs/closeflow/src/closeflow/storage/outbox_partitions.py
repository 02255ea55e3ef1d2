"""The daily partitions of the outbox: made ahead, and dropped when every row is known to be published."""

from __future__ import annotations

from datetime import date
from typing import Final
from uuid import UUID

from sqlalchemy import text

from closeflow.domain.outbox.publication_audit import AuditedDay
from closeflow.storage.core.engine import Transaction

# A day whose partition was missing is audited like any other: its rows are in the DEFAULT partition meanwhile. A day to
# come has rows if a clock was ahead.
_DAYS: Final = text("""
    SELECT d.day, CAST(COALESCE(a.audited_through, '0'::xid8) AS text) AS through, COALESCE(a.missing, '[]') AS missing
    FROM (SELECT CAST(to_date(substring(c.relname FROM '[0-9]{8}$'), 'YYYYMMDD') AS date) AS day
          FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
          WHERE i.inhparent = 'outbox_events'::regclass AND c.relname ~ '[0-9]{8}$'
          UNION SELECT created_on FROM outbox_events_default) d
    LEFT JOIN outbox_audit a ON a.day = d.day
    WHERE d.day <= CAST(closeflow_now() AT TIME ZONE 'UTC' AS date)
       OR EXISTS (SELECT FROM outbox_events e WHERE e.created_on = d.day)
    ORDER BY d.day
""")


_ENSURE: Final = text("SELECT closeflow_ensure_outbox_partitions(:days)")
_DROP: Final = text("SELECT closeflow_drop_outbox_partition(:day)")
_STRAYS: Final = text("SELECT count(*) FROM outbox_events_default")


async def outbox_days(tx: Transaction) -> list[AuditedDay]:
    """Every day that has a partition, up to today, oldest first, with its mark (0 when it has none)."""
    return [
        AuditedDay(row.day, int(row.through), frozenset((UUID(one["id"]), int(one["emission"])) for one in row.missing))
        for row in await tx.execute(_DAYS)
    ]


async def ensure_partitions(tx: Transaction, *, days_ahead: int) -> int:
    """Make the partitions of today and the days ahead; returns how many were missing."""
    return int((await tx.execute(_ENSURE, {"days": days_ahead})).scalar_one())


async def drop_partition(tx: Transaction, *, day: date) -> bool:
    """Drop one day; the database itself refuses while an event of it is not known to be published."""
    return bool((await tx.execute(_DROP, {"day": day})).scalar_one())


async def default_partition_rows(tx: Transaction) -> int:
    """Rows that fell into the DEFAULT partition, which should be empty."""
    return int((await tx.execute(_STRAYS)).scalar_one())
