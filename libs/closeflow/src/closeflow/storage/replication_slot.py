"""The replication slot as the database sees it, and the record of what was done to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from closeflow.domain.outbox.replication_slot import Slot
from closeflow.storage.core.engine import Transaction

_SLOT: Final = text("""
    SELECT active, wal_status, invalidation_reason, safe_wal_size,
           CAST(COALESCE(pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn), 0) AS bigint) AS lag
    FROM pg_replication_slots WHERE slot_name = :name AND database = current_database()
""")
_CONFIRMED: Final = text("""
    SELECT CAST(pg_wal_lsn_diff(confirmed_flush_lsn, '0/0') AS bigint) FROM pg_replication_slots
    WHERE slot_name = :name AND database = current_database() AND wal_status <> 'lost'
""")
_WRITTEN: Final = text("SELECT CAST(pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0') AS bigint)")
_HEARTBEAT: Final = text("SELECT at, closeflow_now() - at AS age FROM debezium_heartbeat ORDER BY at DESC LIMIT 1")
_DROP: Final = text("SELECT closeflow_drop_lost_slot(CAST(:name AS name))")
_RECORD: Final = text("""
    INSERT INTO operator_actions (by, action, subject, reason, before, after)
    VALUES ('reconciler', :action, :subject, :reason, CAST(:before AS jsonb), CAST(:after AS jsonb))
""")


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Debezium's last row; `age` by the database's clock."""

    at: datetime
    age: timedelta


async def slot_state(tx: Transaction, *, name: str) -> Slot | None:
    """The slot of this database; None when there is no such slot."""
    row = (await tx.execute(_SLOT, {"name": name})).one_or_none()
    if row is None:
        return None
    return Slot(
        active=row.active,
        wal_status=row.wal_status or "lost",
        invalidation=row.invalidation_reason,
        lag_bytes=row.lag,
        wal_kept_bytes_left=row.safe_wal_size,
    )


async def confirmed_through(tx: Transaction, *, name: str) -> int | None:
    """Up to which byte of the WAL nothing is read from the slot any more: published, or passed over for ever. None
    without a slot that can be read from."""
    found: int | None = (await tx.execute(_CONFIRMED, {"name": name})).scalar_one_or_none()
    return found


async def written_through(tx: Transaction) -> int:
    """The byte of the WAL behind everything that is committed and visible now."""
    return int((await tx.execute(_WRITTEN)).scalar_one())


async def last_heartbeat(tx: Transaction) -> Heartbeat | None:
    """When Debezium last wrote its heartbeat row, and how old that is; None before the first."""
    row = (await tx.execute(_HEARTBEAT)).one_or_none()
    return None if row is None else Heartbeat(row.at, row.age)


async def drop_lost_slot(tx: Transaction, *, name: str) -> bool:
    """Drop a slot whose WAL is gone; false when there is none. The database refuses (55000) one that can still be read
    from, and (55006) one that is in use."""
    return bool((await tx.execute(_DROP, {"name": name})).scalar_one())


async def record_action(
    tx: Transaction,
    *,
    action: str,
    subject: str,
    reason: str,
    before: Mapping[str, object],
    after: Mapping[str, object],
) -> None:
    """Keep what the reconciler did by itself where the operators' actions are kept."""
    await tx.execute(
        _RECORD,
        {
            "action": action,
            "subject": subject,
            "reason": reason,
            "before": json.dumps(before),
            "after": json.dumps(after),
        },
    )


_ACTIVE: Final = text("SELECT active FROM pg_replication_slots WHERE slot_name = :name")


async def slot_is_active(tx: AsyncConnection, *, name: str) -> bool | None:
    """Whether something reads the replication slot now; None when there is no such slot."""
    active: bool | None = (await tx.execute(_ACTIVE, {"name": name})).scalar_one_or_none()
    return active
