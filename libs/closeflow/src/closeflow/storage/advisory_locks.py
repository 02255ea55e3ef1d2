"""Locks of the database that keep a job or a gateway to one process at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, NoReturn

import psycopg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from closeflow.storage.core.engine import Database, driver_url
from closeflow.storage.job_cycles import count_cycle

_TRY_LOCK: Final = text("SELECT pg_try_advisory_lock(hashtext('closeflow'), hashtext(:name))")
_UNLOCK: Final = text("SELECT pg_advisory_unlock(hashtext('closeflow'), hashtext(:name))")


@asynccontextmanager
async def _locked(database: Database, name: str) -> AsyncIterator[AsyncConnection | None]:
    """The connection that holds the named session advisory lock, or None while another has it. What failed on it is
    rolled back first, since an aborted transaction could not give the lock back."""
    async with database.connect() as connection:
        mine = bool((await connection.execute(_TRY_LOCK, {"name": name})).scalar_one())
        await connection.commit()
        try:
            yield connection if mine else None
        finally:
            if mine:
                await connection.rollback()
                await connection.execute(_UNLOCK, {"name": name})
                await connection.commit()


@asynccontextmanager
async def try_advisory_lock(database: Database, name: str) -> AsyncIterator[bool]:
    """Whether this process may do what is named now; of several one may. The lock ends with the connection, so a
    process that dies gives it up."""
    async with _locked(database, name) as connection:
        yield connection is not None


@asynccontextmanager
async def cycle_alone(database: Database, job: str) -> AsyncIterator[bool]:
    """Whether this replica may do a cycle of the reconciler's job now. One that ends without an error has finished."""
    async with _locked(database, job) as connection:
        yield connection is not None
        if connection is not None:
            await count_cycle(connection, job=job)
            await connection.commit()


_TRY_SESSION_LOCK: Final = "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))"
_CONNECT_TIMEOUT_S: Final = 5
_PROBE_TIMEOUT_S: Final = 5.0


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
                found = await (await self._connection.execute(_TRY_SESSION_LOCK, (self._name,))).fetchone()
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
