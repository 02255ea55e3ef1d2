"""What a decision looks at is held until its transaction ends (rule R7): a second one waits, and sees it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from closeflow.storage.book.load import lock_books
from closeflow.storage.close_requests import lock_books_to_accept
from closeflow.storage.core.engine import StatementError, sqlstate, transaction
from tests.conftest import Database
from tests.storage.seeding import add_position, owner

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
    assert await is_held(engine, lambda tx: lock_books_to_accept(tx, keys=[(position_id, "k")]))
