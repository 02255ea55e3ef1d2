"""Writes that are sent together: what comes of them, and of one that fails among them."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from closeflow.storage.core.bulk import rows_json, update_rows
from closeflow.storage.core.engine import is_poison, make_engine, sqlstate, transaction
from closeflow.storage.core.statements import RowsMissing, fetch, one_round_trip, write
from closeflow.storage.schema import tables
from tests.conftest import Database
from tests.storage.seeding import add_position, owner

SET_VERSION = update_rows(tables.positions, ("id",), ("version",))
SET_SYMBOL = update_rows(tables.positions, ("id",), ("symbol",))
READ = text("SELECT version, symbol FROM positions WHERE id = :id")


@pytest.fixture
def position(database: Database) -> int:
    with owner(database.admin_dsn) as db:
        return add_position(db)


def of(position: int, **values: object) -> str:
    return rows_json([{"id": position, **values}])


async def test_a_read_sees_what_was_sent_before_it(engine: AsyncEngine, position: int) -> None:
    async with transaction(engine) as tx:
        async with one_round_trip(tx):
            await write(tx, SET_VERSION, of(position, version=7), exactly=1)
            assert await fetch(tx, READ, {"id": position}) == [{"version": 7, "symbol": "AAPL"}]
            async with one_round_trip(tx):
                await write(tx, SET_SYMBOL, of(position, symbol="MSFT"), exactly=1)
        assert await fetch(tx, READ, {"id": position}) == [{"version": 7, "symbol": "MSFT"}]


@pytest.mark.parametrize("together", [True, False], ids=["together", "alone"])
async def test_rows_that_were_not_there_are_told(engine: AsyncEngine, position: int, together: bool) -> None:
    async def change_another() -> None:
        async with transaction(engine) as tx, one_round_trip(tx) if together else nullcontext():
            await write(tx, SET_VERSION, of(position + 1, version=7), exactly=1)

    with pytest.raises(RowsMissing, match='0 of 1 rows were there: UPDATE "positions"'):
        await change_another()


@pytest.mark.parametrize("where", ["first", "between", "last"])
async def test_the_one_that_fails_is_told_and_nothing_is_written(
    engine: AsyncEngine, position: int, where: str
) -> None:
    bad = of(position, version=None)
    rows = {"first": [bad, None, None], "between": [None, bad, None], "last": [None, None, bad]}[where]

    async def change_all() -> None:
        async with transaction(engine) as tx, one_round_trip(tx):
            for one in rows:
                await write(tx, SET_VERSION, one or of(position, version=7), exactly=1)

    with pytest.raises(DBAPIError) as caught:
        await change_all()
    assert sqlstate(caught.value) == "23502", "what it refuses, and not that another one was not run"
    assert is_poison(caught.value)
    async with transaction(engine) as tx:
        assert await fetch(tx, READ, {"id": position}) == [{"version": 1, "symbol": "AAPL"}]


async def test_a_connection_that_is_lost_inside_is_thrown_away(engine: AsyncEngine, position: int) -> None:
    end = text("SELECT pg_terminate_backend(pg_backend_pid()), CAST(:rows AS text)")

    async def change_and_end() -> None:
        async with transaction(engine) as tx, one_round_trip(tx):
            await write(tx, end, "[]")
            await write(tx, SET_VERSION, of(position, version=7))

    with pytest.raises(DBAPIError) as caught:
        await change_and_end()
    assert caught.value.connection_invalidated
    async with transaction(engine) as tx:
        assert await fetch(tx, READ, {"id": position}) == [{"version": 1, "symbol": "AAPL"}]


async def test_few_rows_are_found_by_index_in_a_table_that_is_small(database: Database, position: int) -> None:
    engine = make_engine(database.admin_dsn, pool_size=1, application_name="t", by_index=True)
    try:
        async with transaction(engine) as tx:
            joined = "SELECT p.id FROM positions p JOIN generate_series(1, 3) AS n (id) USING (id)"
            plan = "\n".join(row["QUERY PLAN"] for row in await fetch(tx, text(f"EXPLAIN {joined}")))
    finally:
        await engine.dispose()
    assert "Index" in plan
    assert "Seq Scan" not in plan
    assert "Hash" not in plan


def test_history_joins_many_rows_by_hash_whatever_the_session_prefers(database: Database) -> None:
    with owner(database.admin_dsn) as db:
        found = db.execute(
            "SELECT proname, proconfig FROM pg_proc WHERE proname LIKE 'closeflow_%_updated' ORDER BY 1"
        ).fetchall()
    assert [name for name, _ in found] == [f"closeflow_{one}_updated" for one in ("close_request", "order", "position")]
    assert all("enable_hashjoin=on" in config for _, config in found)
