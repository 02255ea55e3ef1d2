"""How many orders are planned at a time: as many as can be sent, where that is known soon."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import cast

from closeflow.broker import Broker
from closeflow.domain.model import SendKind
from order_submitter.sending.breaker import Breaker, BreakerRules, BreakerState
from order_submitter.sending.pool import PoolLimits, Publish, SenderPool, Sends

RULES = BreakerRules(failures=2, refusals=9, probe_s=5)


def a_pool(*, rate_per_s: float = 1000) -> SenderPool:
    """Of eight slots; nothing is sent."""
    limits = PoolLimits(in_flight=8, rate_per_s=rate_per_s, lease_s=30, breaker=RULES)
    return SenderPool(cast(Broker, None), cast(Publish, None), cast(Sends, None), limits)


async def test_who_plans_waits_for_a_good_part_of_the_slots() -> None:
    pool = a_pool()
    assert await pool.room(100, within_s=5) == 8
    assert all(pool.reserve(SendKind.SUBMIT) for _ in range(7))
    assert await pool.room(1, within_s=5) == 1, "one is enough for one"
    waiting = asyncio.create_task(pool.room(100, within_s=30))
    await asyncio.sleep(0)
    assert not waiting.done()
    pool.release(1)
    assert await asyncio.wait_for(waiting, 5) == 2


async def test_whoever_waited_long_enough_plans_them_all() -> None:
    pool = a_pool()
    assert all(pool.reserve(SendKind.SUBMIT) for _ in range(8))
    assert await asyncio.wait_for(pool.room(100, within_s=0.05), 5) == 100


async def test_a_turn_of_the_rate_limit_is_room_too() -> None:
    pool = a_pool(rate_per_s=3)
    assert await pool.room(3, within_s=0.05) == 3
    assert all(pool.reserve(SendKind.SUBMIT) for _ in range(3))
    assert await asyncio.wait_for(pool.room(2, within_s=30), 5) == 2, "two turns come within a second"


async def test_nobody_waits_for_slots_that_nothing_can_use() -> None:
    pool = a_pool()
    pool.breaker = Breaker(state=BreakerState.OPEN, probe_at=monotonic() + 60)
    assert await asyncio.wait_for(pool.room(100, within_s=30), 5) == 100
