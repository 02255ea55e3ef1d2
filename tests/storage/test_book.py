"""What a decision gets to see of a position."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncEngine

from closeflow.domain.position import exposure
from closeflow.storage.book.load import lock_books
from closeflow.storage.book.save import save_books
from closeflow.storage.core.engine import database_now, transaction
from tests.conftest import Database
from tests.storage.seeding import add_order, add_position, add_request, owner

WITHHELD = (
    "INSERT INTO withheld_executions (broker, account_id, exec_id, client_order_id, side, quantity, price, occurred_at,"
    " source) VALUES ('alpaca', 'acc', %s, %s, 'sell', 10, 1.5, now(), 'backfill')"
)
BUST = (
    "INSERT INTO executions (broker, account_id, exec_id, client_order_id, position_id, kind, ref_exec_id, side,"
    " occurred_at, source) VALUES ('alpaca', 'acc', 'x1', %s, %s, 'bust', 'w1', 'sell', now(), 'backfill')"
)
CANCELED = (
    "INSERT INTO order_statements (client_order_id, kind, cum_qty, stated_at, source)"
    " VALUES (%s, 'canceled', 0, now(), %s)"
)


async def test_an_order_that_is_over_is_there_while_a_trade_of_it_is_withheld(
    database: Database, engine: AsyncEngine
) -> None:
    with owner(database.admin_dsn) as db:
        position_id = add_position(db)
        request_id = add_request(db, position_id, status="failed")
        order_id = add_order(db, request_id, position_id, status="canceled")
        db.execute(CANCELED.encode(), (order_id, "stream"))

    async def clear() -> tuple[list[str], bool]:
        async with transaction(engine) as tx:
            book = (await lock_books(tx, position_ids=[position_id]))[position_id]
        return list(book.orders), exposure.is_clear(book)

    assert await clear() == ([], True)
    with owner(database.admin_dsn) as db:
        db.execute(WITHHELD.encode(), ("w1", order_id))
    assert await clear() == ([order_id], False)
    with owner(database.admin_dsn) as db:
        db.execute(BUST.encode(), (order_id, position_id))
    assert await clear() == ([], True)
    with owner(database.admin_dsn) as db:
        db.execute(b"DELETE FROM executions")
        db.execute(b"UPDATE order_statements SET source = 'operator'")
    assert await clear() == ([], True)


async def test_when_a_statement_was_heard_comes_back_and_may_be_missing(
    database: Database, engine: AsyncEngine
) -> None:
    with owner(database.admin_dsn) as db:
        position_id = add_position(db)
        request_id = add_request(db, position_id, status="submitted")
        order_id = add_order(db, request_id, position_id, status="new")
        db.execute(CANCELED.encode(), (order_id, "stream"))
    async with transaction(engine) as tx:
        before = (await lock_books(tx, position_ids=[position_id]))[position_id]
        order = before.orders[order_id]
        (old,) = order.statements
        assert old.heard_at is None
        now = await database_now(tx)
        told = replace(order, statements=(replace(old, heard_at=now, stated_at=now - timedelta(hours=1)),))
        await save_books(tx, changes=[(before, replace(before, orders={order_id: told}))])
        after = (await lock_books(tx, position_ids=[position_id]))[position_id]
    assert after.orders[order_id].statements == told.statements
