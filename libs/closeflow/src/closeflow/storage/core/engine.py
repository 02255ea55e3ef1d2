"""Connections and transactions: how one is opened, repeated, and what its failure means."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from functools import partial
from json import loads
from types import SimpleNamespace
from typing import Final, TypeVar

import psycopg
import sqlalchemy.pool.base
from sqlalchemy import URL, make_url, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from closeflow.storage.core.statements import fetch
from closeflow.telemetry.metrics import histogram

T = TypeVar("T")
POOL_WAIT: Final = histogram("closeflow_database_pool_wait_seconds")

# What callers outside this package name, so that they need not import SQLAlchemy themselves.
Database = AsyncEngine
Transaction = AsyncConnection
StatementError = DBAPIError
DatabaseError = SQLAlchemyError
DriverError = psycopg.Error

REPEATABLE: Final = frozenset({"40001", "40P01"})
"""Serialization failure and deadlock: PostgreSQL chose this transaction as a victim; the work may be done again."""
LOCK_NOT_AVAILABLE: Final = "55P03"
LOCKED: Final = frozenset({LOCK_NOT_AVAILABLE, "57014"})
"""SQLSTATEs of a wait for somebody's lock that took too long: its own limit, or that of the statement."""
"""A lock was not to be had within `lock_timeout`, or not at once."""
POISON_CLASSES: Final = frozenset({"22", "23"})
"""Data exception and integrity violation: the statement fails again however often it is repeated."""
_CONNECTION_LOST_CLASSES: Final = frozenset({"08", "57"})
_CHECK_VIOLATION: Final = "23514"
_FIRST_PAUSE_S: Final = 0.005


# A pool compares when a connection was made with when it last threw all away after a disconnect. Had the host's clock
# been ahead then, every use would make a new connection until it has caught up; behind, dead ones would be handed out.
sqlalchemy.pool.base.time = SimpleNamespace(time=time.monotonic)  # type: ignore[assignment, attr-defined]


class CommitUnknown(Exception):
    """The connection was lost inside COMMIT: the work is there or it is not. Read back by key before doing it again."""


def driver_url(dsn: str) -> URL:
    """A plain `postgresql://` DSN (or a full SQLAlchemy URL) with the driver that this package uses."""
    return make_url(dsn).set(drivername="postgresql+psycopg")


def make_engine(
    dsn: str,
    *,
    pool_size: int,
    application_name: str,
    pool_timeout_s: float = 5.0,
    connect_timeout_s: int = 5,
    statement_timeout_ms: int = 10_000,
    idle_in_transaction_timeout_ms: int = 10_000,
    lock_timeout_ms: int = 10_000,
    by_index: bool = False,
) -> AsyncEngine:
    """An engine with at most `pool_size` connections; a longer wait than `pool_timeout_s` is SQLAlchemy's TimeoutError.

    A connection is not probed before use: the first statement on a dead one fails with a disconnect, which throws the
    whole pool away, so the caller's own repetition meets a new one. A session that idles inside a transaction is ended
    by the server, so a paused process cannot hold its locks for ever. Times come back in UTC.
    Numbers with a point inside `jsonb` come back as Decimal.

    `by_index` is for sessions whose statements all touch few rows: each row is found through an index, whatever the
    statistics say. Otherwise a table that was small when a plan was made is read as a whole by each statement of a
    burst, until statistics are gathered again: seen on tables of 2000 orders, 3 ms of 4.
    """
    options = (
        f"-c statement_timeout={statement_timeout_ms}"
        f" -c idle_in_transaction_session_timeout={idle_in_transaction_timeout_ms}"
        f" -c lock_timeout={lock_timeout_ms}"
        " -c timezone=UTC -c jit=off"
    )
    if by_index:
        options += " -c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off"
        options += " -c plan_cache_mode=force_generic_plan"
    return create_async_engine(
        driver_url(dsn),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=pool_timeout_s,
        pool_pre_ping=False,
        pool_use_lifo=True,
        json_deserializer=partial(loads, parse_float=Decimal),
        connect_args={
            "application_name": application_name,
            "connect_timeout": connect_timeout_s,
            "options": options,
        },
    )


def sqlstate(error: BaseException) -> str | None:
    """The five-character SQLSTATE behind a SQLAlchemy or psycopg error; None when the server did not answer."""
    found = getattr(error.orig if isinstance(error, DBAPIError) else error, "sqlstate", None)
    return found if isinstance(found, str) else None


def first_line(error: BaseException) -> str:
    """What the driver or the server said, without the statement."""
    said = str(error.orig if isinstance(error, DBAPIError) else error).strip()
    return said.partition("\n")[0] or type(error).__name__


def is_poison(error: BaseException) -> bool:
    """Whether the data is at fault: this item fails alone and for ever, the next one need not."""
    return (sqlstate(error) or "")[:2] in POISON_CLASSES and not _met_a_new_partition(error)


def is_repeatable(error: BaseException) -> bool:
    """Whether the transaction may succeed when it is run again as it is: a serialization failure, a deadlock, or a row
    whose partition was made while it waited."""
    return sqlstate(error) in REPEATABLE or _met_a_new_partition(error)


def _met_a_new_partition(error: BaseException) -> bool:
    """A row on its way into the DEFAULT partition waits where its own one is being attached, and no longer fits then.
    The server names the table then, and no constraint: the bound of a partition has no name, every other check has."""
    told = getattr(error.orig if isinstance(error, DBAPIError) else error, "diag", None)
    if sqlstate(error) != _CHECK_VIOLATION or told is None:
        return False
    return told.table_name is not None and told.constraint_name is None


@asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """One READ COMMITTED transaction: committed when the block ends, rolled back when it raises.

    Raises CommitUnknown when the connection is lost inside COMMIT. An error that the server answered to COMMIT (a
    deadlock, a deferred constraint) is raised as it is: then nothing was committed.
    """
    asked_at = time.monotonic()
    async with engine.connect() as tx:
        POOL_WAIT.observe(time.monotonic() - asked_at)
        await tx.begin()
        yield tx
        try:
            await tx.commit()
        except DBAPIError as error:
            state = sqlstate(error)
            if state is None or state[:2] in _CONNECTION_LOST_CLASSES:
                raise CommitUnknown("the connection was lost inside COMMIT") from error
            raise


async def retrying(engine: AsyncEngine, work: Callable[[AsyncConnection], Awaitable[T]], *, attempts: int = 5) -> T:
    """Run `work` in a transaction, and the whole of it again when PostgreSQL made it the victim (REPEATABLE).

    `work` must therefore start from the database and keep nothing of an earlier try. Any other error, and the last of
    `attempts` victims, is raised. The pause is random, so that two victims of each other do not meet again.
    """
    for attempt in range(1, attempts):
        try:
            async with transaction(engine) as tx:
                return await work(tx)
        except DBAPIError as error:
            if not is_repeatable(error):
                raise
        await asyncio.sleep(random.uniform(0, _FIRST_PAUSE_S * 2**attempt))
    async with transaction(engine) as tx:
        return await work(tx)


_NOW: Final = text("SELECT closeflow_now() AS now")


async def database_now(tx: Transaction) -> datetime:
    """The one clock (`closeflow_now()`), which a test may shift. Ask after the locks: what this transaction waited for
    is then earlier."""
    now: datetime = (await fetch(tx, _NOW))[0]["now"]
    return now
