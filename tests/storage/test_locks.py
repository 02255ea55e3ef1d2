"""What a decision looks at is held until its transaction ends (rule R7): a second one waits, and sees it."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from closeflow.storage.book.load import lock_books
from closeflow.storage.close_requests import lock_books_to_accept
from closeflow.storage.core.engine import StatementError, make_engine, sqlstate, transaction
from tests.conftest import Database
from tests.storage.planning import statements
from tests.storage.seeding import Owner, add_position, add_request, owner

LOCK_NOT_AVAILABLE = "55P03"


async def is_held(engine: AsyncEngine, hold: Callable[[AsyncConnection], Awaitable[object]]) -> bool:
    """Whether a second transaction that holds the same has to wait for the first."""
    async with transaction(engine) as first:
        await hold(first)
        with pytest.raises(StatementError) as refused:  # noqa: PT012
            async with transaction(engine) as second:
                await second.execute(text("SET LOCAL lock_timeout = '100ms'"))
                await hold(second)
                return False
    return sqlstate(refused.value) == LOCK_NOT_AVAILABLE


async def test_a_book_is_held_until_its_transaction_ends(database: Database, engine: AsyncEngine) -> None:
    with owner(database.admin_dsn) as db:
        position_id = add_position(db)
    assert await is_held(engine, lambda tx: lock_books(tx, position_ids=[position_id]))


async def test_a_position_to_be_closed_is_held_until_its_transaction_ends(
    database: Database, engine: AsyncEngine
) -> None:
    with owner(database.admin_dsn) as db:
        position_id = add_position(db)
    assert await is_held(
        engine, lambda tx: lock_books_to_accept(tx, keys=[(position_id, "k")], visible={position_id: None})
    )


LOCKING = {name: one.text for name, one in statements() if "FOR NO KEY UPDATE" in one.text}


@pytest.mark.parametrize("statement", LOCKING.values(), ids=LOCKING)
def test_what_locks_rows_finds_them_without_a_join(statement: str) -> None:
    locking = statement.partition("FOR NO KEY UPDATE")[0].rpartition("WITH ")[2]
    assert not re.search(r"\bJOIN\b|\bIN \(\s*SELECT\b", locking)


WAITERS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'waiter' AND wait_event_type = 'Lock'"


async def until_it_waits(db: Owner) -> None:
    deadline = time.monotonic() + 10
    while db.execute(WAITERS).fetchone() == (0,):
        assert time.monotonic() < deadline, "it does not wait for the rows"
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("by_index", [False, True], ids=["planned", "by index"])
@pytest.mark.parametrize("by_request", [False, True], ids=["positions", "requests"])
async def test_books_that_were_changed_while_they_were_waited_for_are_all_there(
    database: Database, by_index: bool, by_request: bool
) -> None:
    engine = make_engine(database.admin_dsn, pool_size=1, application_name="waiter", by_index=by_index)
    with owner(database.admin_dsn) as db, owner(database.admin_dsn) as other:
        positions = [add_position(db, f"S{number}") for number in range(40)]
        requests = [add_request(db, position_id) for position_id in positions]
        try:
            for _ in range(8):  # PostgreSQL makes another plan of a statement that is repeated.
                other.execute("BEGIN")
                other.execute("UPDATE positions SET version = version + 1 WHERE id = ANY(%s)", (positions[::2],))
                other.execute("UPDATE close_requests SET emission = emission + 1 WHERE id = ANY(%s)", (requests[::3],))
                async with transaction(engine) as tx:
                    named = {"request_ids": requests} if by_request else {"position_ids": positions}
                    locking = asyncio.create_task(lock_books(tx, **named))
                    await until_it_waits(db)
                    other.execute("COMMIT")
                    books = await locking
                assert sorted(books) == positions
                assert all(len(book.requests) == 1 for book in books.values())
        finally:
            await engine.dispose()
