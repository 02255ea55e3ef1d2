"""An end of a transaction that was not heard, read back: for each caller what is his to see, and no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import psycopg

from close_api.accept import Outcome, accept_batch
from closeflow.domain.close.accept import Accepted, CloseCommand, NotFound, Replayed
from closeflow.domain.model import AssetType
from closeflow.storage.close_requests import Engine, LockedElsewhere

from .books import pool
from .conftest import FOREIGN, MINE, Desk

DEADLINE_S = 0.4
"""Shorter than the pool's lock time-out, so that it is what ends the first try."""


def command(position_id: int, n: int, account: str, *, only: AssetType | None = None) -> CloseCommand:
    return CloseCommand(
        request_id=UUID(int=n),
        position_id=position_id,
        idempotency_key="k",
        requested_by=account,
        accounts=frozenset({account}),
        only=only,
    )


@asynccontextmanager
async def locked(desk: Desk, position_id: int) -> AsyncIterator[None]:
    async with await psycopg.AsyncConnection.connect(desk.database.admin_dsn) as other:
        await other.execute("SELECT FROM positions WHERE id = %s FOR UPDATE", (position_id,))
        yield


async def read_back(desk: Desk, engine: Engine, position_id: int, *commands: CloseCommand) -> list[Outcome]:
    """What `accept_batch` gives when its first try is cut off at the deadline and its second one is not."""
    async with locked(desk, position_id):
        accepting = asyncio.create_task(accept_batch(engine, commands, deadline_s=DEADLINE_S))
        await asyncio.sleep(1.25 * DEADLINE_S)
    return await accepting


async def test_what_is_read_back_is_shown_to_whose_it_is_alone(desk: Desk) -> None:
    (position,) = desk.open_positions(1)
    async with pool(desk.database) as engine:
        (first,) = await accept_batch(engine, [command(position, 1, MINE)], deadline_s=5)
        assert isinstance(first, Accepted)
        own, strangers = await read_back(
            desk, engine, position, command(position, 2, MINE), command(position, 3, FOREIGN)
        )
        assert isinstance(own, Replayed)
        assert strangers == NotFound(position)


async def test_what_is_read_back_is_of_the_routes_asset_type(desk: Desk) -> None:
    (position,) = desk.open_positions(1)
    async with pool(desk.database) as engine:
        await accept_batch(engine, [command(position, 1, MINE)], deadline_s=5)
        (found,) = await read_back(desk, engine, position, command(position, 2, MINE, only=AssetType.OPTION))
        assert found == NotFound(position)


async def test_a_position_that_somebody_holds_is_still_not_there_for_a_stranger(desk: Desk) -> None:
    (position,) = desk.open_positions(1)
    async with pool(desk.database) as engine, locked(desk, position):
        own, strangers = await accept_batch(
            engine, [command(position, 1, MINE), command(position, 2, FOREIGN)], deadline_s=5
        )
        assert isinstance(own, LockedElsewhere)
        assert strangers == NotFound(position)
