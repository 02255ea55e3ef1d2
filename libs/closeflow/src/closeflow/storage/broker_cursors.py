"""How far the broker has been read, account by account."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from sqlalchemy import text
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection

from closeflow.storage.core.engine import CommitUnknown

DATABASE_AWAY: Final = (OperationalError, InterfaceError, PoolTimeout, CommitUnknown)
"""What a use-case catches to try again later; any other error of the database is a mistake of ours."""

_CURSOR: Final = text(
    "SELECT position FROM broker_cursors WHERE (broker, account_id, feed) = (:broker, :account_id, :feed)"
)
# Positions are times in one fixed form, so that text order is their order.
_ADVANCE: Final = text("""
    INSERT INTO broker_cursors AS c (broker, account_id, feed, position)
    VALUES (:broker, :account_id, :feed, :position)
    ON CONFLICT (broker, account_id, feed) DO UPDATE SET position = EXCLUDED.position, at = closeflow_now()
    WHERE c.position < EXCLUDED.position OR c.position > CAST(:beyond AS text)
""")


async def read_cursor(tx: AsyncConnection, *, broker: str, account_id: str, feed: str) -> datetime | None:
    """The time of the newest message of the feed that Kafka is known to have."""
    found = await tx.execute(_CURSOR, {"broker": broker, "account_id": account_id, "feed": feed})
    position = found.scalar_one_or_none()
    return None if position is None else datetime.fromisoformat(position)


async def advance_cursor(
    tx: AsyncConnection,
    *,
    broker: str,
    account_id: str,
    feed: str,
    position: datetime,
    beyond: datetime | None = None,
) -> None:
    """Call only after Kafka's acknowledgement. Never goes back, whoever else advances it, but from a position beyond
    the broker's clock, if that is given: no message of the feed can have been there."""
    key = {"broker": broker, "account_id": account_id, "feed": feed}
    await tx.execute(_ADVANCE, {**key, "position": _place(position), "beyond": beyond and _place(beyond)})


def _place(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")
