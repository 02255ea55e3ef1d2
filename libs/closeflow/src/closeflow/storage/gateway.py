"""What broker-gateway needs of the database: which orders to ask about, how far it has read, and to be the only one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NoReturn

import psycopg
from sqlalchemy import text
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection

from closeflow.storage.engine import CommitUnknown, driver_url

DATABASE_AWAY: Final = (OperationalError, InterfaceError, PoolTimeout, CommitUnknown)
"""What a use-case catches to try again later; any other error of the database is a mistake of ours."""

# Each arm by its own partial index, and MATERIALIZED, so that the order is not looked for in the primary key: with
# an OR in one SELECT that is walked through every order that ever was (4.8 s at 5 million). A plan that no send may
# have taken to the broker is nothing to ask for; hundreds of them may wait for their turn.
_NOT_DONE: Final = text("""
    WITH working AS MATERIALIZED (
        SELECT client_order_id, created_at, account_id FROM orders o
        WHERE status NOT IN ('denied', 'lost', 'filled', 'canceled', 'expired', 'rejected')
          AND (status <> 'planned'
               OR EXISTS (SELECT FROM order_sends s
                          WHERE s.client_order_id = o.client_order_id AND s.kind = 'submit'
                            AND COALESCE(s.answer, '') NOT IN ('not_sent', 'not_accepted')))
    ), unnamed AS MATERIALIZED (
        SELECT client_order_id, created_at, account_id FROM orders WHERE stated_cum_qty > executed_qty
    )
    SELECT client_order_id, created_at FROM (SELECT * FROM working UNION SELECT * FROM unnamed) AS o
    WHERE account_id = :account_id AND client_order_id > :after
    ORDER BY client_order_id LIMIT :limit
""")
_LOST: Final = text("""
    SELECT client_order_id FROM orders WHERE client_order_id = ANY(CAST(:ids AS text[])) AND status = 'lost'
""")
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
_TRY_LOCK: Final = "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))"
_CONNECT_TIMEOUT_S: Final = 5
_PROBE_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class NotDone:
    """An order that may still change at the broker, or has fills that we cannot name."""

    client_order_id: str
    created_at: datetime


async def not_done_orders(tx: AsyncConnection, *, account_id: str, after: str, limit: int) -> list[NotDone]:
    """A page in the order of client order ids, from the first one behind `after`."""
    rows = await tx.execute(_NOT_DONE, {"account_id": account_id, "after": after, "limit": limit})
    return [NotDone(row.client_order_id, row.created_at) for row in rows]


async def lost_orders(tx: AsyncConnection, *, client_order_ids: Collection[str]) -> frozenset[str]:
    """Those of these orders that an operator declared lost."""
    return frozenset(row.client_order_id for row in await tx.execute(_LOST, {"ids": list(client_order_ids)}))


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


class LockLost(Exception):
    """The database is away, or ended the session that holds (or waits for) the lock."""


class SessionLock:
    """A PostgreSQL session advisory lock on a connection of its own: it is free when the process or connection ends."""

    def __init__(self, connection: psycopg.AsyncConnection[tuple[Any, ...]], name: str) -> None:
        self._connection = connection
        self._name = name

    async def acquire(self, *, poll_s: float) -> None:
        """Wait until nobody else holds it. Polls, because a blocked statement would show a dead server late."""
        while True:
            try:
                found = await (await self._connection.execute(_TRY_LOCK, (self._name,))).fetchone()
            except psycopg.Error as error:
                raise LockLost(str(error)) from error
            if found is not None and found[0]:
                return
            await asyncio.sleep(poll_s)

    async def watch(self, *, probe_s: float) -> NoReturn:
        """Raise `LockLost` as soon as the connection ends; a connection that is silently dead shows within a probe."""
        try:
            while True:
                # Waiting for notifications (there are none) is how the driver notices a closed socket at once.
                async for _ in self._connection.notifies(timeout=probe_s):
                    pass
                async with asyncio.timeout(_PROBE_TIMEOUT_S):
                    await self._connection.execute("SELECT 1")
        except (psycopg.Error, TimeoutError) as error:
            raise LockLost(str(error) or "the database did not answer in time") from error


@asynccontextmanager
async def session_lock(dsn: str, *, name: str, application_name: str) -> AsyncIterator[SessionLock]:
    """A connection on which the lock can be taken; its end gives the lock back. Raises `LockLost` if there is none."""
    plain = driver_url(dsn).set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        connection = await psycopg.AsyncConnection.connect(
            plain, autocommit=True, application_name=application_name, connect_timeout=_CONNECT_TIMEOUT_S
        )
    except psycopg.Error as error:
        raise LockLost(str(error)) from error
    try:
        yield SessionLock(connection, name)
    finally:
        await connection.close()
