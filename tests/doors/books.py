"""Closes in every state, and the use cases over a pool of close-api's own role, in this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID

import psycopg

from close_api.auth.caller import Caller, Scope
from close_api.errors import Code, Problem
from closeflow.storage.core.engine import Database as Engine
from closeflow.storage.core.engine import make_engine
from tests.closectl.seeding import ACCOUNT, REQUESTS, Closes
from tests.conftest import Database

API: Final = "closeflow_close_api"
OPERATOR: Final = "closeflow_operator"
NOWHERE: Final = UUID("01978f6e-7a1c-7c3a-9f53-0d7c5b1f6a20")
TRACE: Final = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT: Final = f"00-{TRACE}-00f067aa0ba902b7-01"
COMPLETED, WORKING, PENDING, FAILED = REQUESTS[1], REQUESTS[3], REQUESTS[4], REQUESTS[5]
"""What `Closes.make_all` leaves; 2 is completed too, by two orders, and position 6 has no close yet."""


def caller(*accounts: str, subject: str = "desk", scopes: frozenset[Scope] = frozenset(Scope)) -> Caller:
    """Who may see these accounts."""
    return Caller(subject, frozenset(accounts), scopes)


MINE: Final = caller(ACCOUNT)
STRANGER: Final = caller("other")
EVERYONE: Final = Caller("chief", None, frozenset(Scope))


@asynccontextmanager
async def pool(database: Database, role: str = API, **options: Any) -> AsyncIterator[Engine]:
    """As close-api makes its own."""
    engine = make_engine(
        database.dsn(role),
        pool_size=6,
        application_name="close-api",
        by_index=role == API,
        lock_timeout_ms=500,
        **options,
    )
    try:
        yield engine
    finally:
        await engine.dispose()


@asynccontextmanager
async def closes(database: Database, *, make: bool = True) -> AsyncIterator[Closes]:
    """Closes of positions 1 to 6, to be moved on as the services would."""
    engine = make_engine(database.admin_dsn, pool_size=3, application_name="closeflow-tests")
    made = Closes(engine)
    try:
        if make:
            await made.make_all()
        yield made
    finally:
        await engine.dispose()


def run(database: Database, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """As the owner of the database; the rows, if there are any."""
    with psycopg.connect(database.admin_dsn, autocommit=True) as owner:
        cursor = owner.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []


def fields(problem: Problem) -> set[str]:
    """The names that `invalid_fields` complains of."""
    assert problem.code is Code.INVALID_FIELDS
    found = problem.extra["fields"]
    assert isinstance(found, list)
    return {one["field"] for one in found}


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for it, at most ten seconds."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        await asyncio.sleep(0.01)
