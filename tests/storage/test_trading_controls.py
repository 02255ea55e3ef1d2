"""The kill switch and the account limits as rows: there from the first moment, read and counted under a lock."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from closeflow.domain.account_limits import AccountLimits
from closeflow.domain.trading_controls import TradingState, counted
from closeflow.storage.core.engine import transaction
from closeflow.storage.operator_actions import record_action
from closeflow.storage.trading_controls import count_submits, lock_controls, lock_limits, set_state
from tests.conftest import Database
from tests.storage.seeding import owner

DEFAULTS = AccountLimits(
    max_order_quantity=Decimal(1_000_000), max_order_notional=Decimal(100_000_000), submits_per_minute=6000
)


def add_account(database: Database, account_id: str = "acc") -> None:
    with owner(database.admin_dsn) as db:
        db.execute("INSERT INTO accounts (account_id, broker) VALUES (%s, 'alpaca')", (account_id,))


async def test_a_new_account_has_finite_limits_and_trades(database: Database, engine: AsyncEngine) -> None:
    add_account(database)
    async with transaction(engine) as tx:
        found = (await lock_controls(tx, account_id="acc")).controls
    assert (found.state, found.limits) == (TradingState.ACTIVE, DEFAULTS)


async def test_without_the_global_row_everything_is_halted(database: Database, engine: AsyncEngine) -> None:
    add_account(database)
    with owner(database.admin_dsn) as db:
        db.execute("DELETE FROM trading_controls")
    async with transaction(engine) as tx:
        assert (await lock_controls(tx, account_id="acc")).controls.halted
        await set_state(tx, scope="global", state=TradingState.ACTIVE, reason="r", by="me")
        assert not (await lock_controls(tx, account_id="acc")).controls.halted


async def test_an_account_that_is_not_there_has_no_limits(engine: AsyncEngine) -> None:
    async with transaction(engine) as tx:
        assert (await lock_controls(tx, account_id="nobody")).controls.limits is None


async def test_a_halt_counts_as_soon_as_it_is_committed(database: Database, engine: AsyncEngine) -> None:
    """Also inside a transaction that began before it."""
    add_account(database)
    async with transaction(engine) as early:
        assert not (await lock_controls(early, account_id="acc")).controls.halted
        async with transaction(engine) as tx:
            await set_state(tx, scope="acc", state=TradingState.HALTED, reason="r", by="me")
            assert not (await lock_controls(early, account_id="acc")).controls.halted
        assert (await lock_controls(early, account_id="acc")).controls.halted


async def test_a_claim_is_later_than_the_release_that_it_saw(database: Database, engine: AsyncEngine) -> None:
    """Also one whose transaction began during the halt; the audit judges a send by these two times (invariant 18)."""
    add_account(database)
    async with transaction(engine) as early:
        assert not (await lock_controls(early, account_id="acc")).controls.halted
        async with transaction(engine) as tx:
            await release(tx)
        held = await lock_controls(early, account_id="acc")
        assert held.now > await last_deed_at(early)


async def test_a_claim_that_waited_is_later_than_what_it_waited_for(database: Database, engine: AsyncEngine) -> None:
    add_account(database)

    async def claim(held_up: asyncio.Event) -> datetime:
        async with transaction(engine) as tx:
            pid = (await tx.execute(text("SELECT pg_backend_pid()"))).scalar_one()
            asyncio.get_running_loop().create_task(notice(pid, held_up))
            return (await lock_controls(tx, account_id="acc")).now

    async def notice(pid: int, held_up: asyncio.Event) -> None:
        async with engine.connect() as other:
            waits = text("SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = :pid")
            while not (await other.execute(waits, {"pid": pid})).scalar_one():
                await other.rollback()
        held_up.set()

    held_up = asyncio.Event()
    async with transaction(engine) as tx:
        await lock_limits(tx, account_id="acc")
        waiting = asyncio.create_task(claim(held_up))
        await asyncio.wait_for(held_up.wait(), 20)
        await release(tx)
        at = await last_deed_at(tx)
    assert await waiting > at


async def release(tx: AsyncConnection) -> None:
    await set_state(tx, scope="acc", state=TradingState.ACTIVE, reason="r", by="me")
    await record_action(tx, by="me", action="release", subject="acc", reason="r", after={"state": "active"})


async def last_deed_at(tx: AsyncConnection) -> datetime:
    found: datetime = (await tx.execute(text("SELECT max(at) FROM operator_actions"))).scalar_one()
    return found


async def test_two_that_claim_at_once_count_one_after_the_other(database: Database, engine: AsyncEngine) -> None:
    add_account(database)

    async def claim() -> None:
        async with transaction(engine) as tx:
            held = await lock_controls(tx, account_id="acc")
            await tx.execute(text("SELECT pg_sleep(0.05)"))
            await count_submits(tx, controls=counted(held.controls, now=held.now))

    await asyncio.gather(claim(), claim(), claim())
    async with transaction(engine) as tx:
        limits = (await lock_controls(tx, account_id="acc")).controls.limits
    assert limits is not None
    assert limits == replace(DEFAULTS, window_started_at=limits.window_started_at, window_count=3)
