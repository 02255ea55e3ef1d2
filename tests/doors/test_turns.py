"""Whose turn a close takes: never that of an account that its caller may not see."""

from __future__ import annotations

import asyncio
from operator import attrgetter
from uuid import UUID

from close_api.auth.caller import Caller, Scope
from close_api.batching import Batches
from close_api.errors import Problem
from close_api.use_cases.closing import Closing
from closeflow.domain.close.accept import Accepted, CloseCommand, Decision

from .books import until
from .in_memory import Positions

OWNER = Caller("desk", frozenset({"ACC"}), frozenset(Scope))
STRANGER = Caller("stranger", frozenset({"OTHER"}), frozenset(Scope))


def command(caller: Caller, position_id: int, n: int) -> CloseCommand:
    return CloseCommand(
        request_id=UUID(int=n),
        position_id=position_id,
        idempotency_key=f"{n}",
        requested_by=caller.subject,
        accounts=caller.accounts,
    )


async def test_who_asks_for_what_is_not_his_holds_up_nobody_elses_closes() -> None:
    positions, stop = Positions(), asyncio.Event()
    closes: Batches[CloseCommand, Decision] = Batches(
        work=positions.decide, capacity=100, size=4, in_flight=2, key=attrgetter("position_id")
    )
    closing = Closing(closes, 5.0)
    running = asyncio.create_task(closes.run(stop))
    assert isinstance(await closing.close(OWNER, command(OWNER, 1, 1)), Accepted)  # Whose it is, is known from now on.
    positions.open.clear()
    flood = asyncio.create_task(closing.close_many(STRANGER, [command(STRANGER, 1, n) for n in range(2, 14)]))
    await until(lambda: len(positions.batches) == 2, "the flood's first batch")
    own = asyncio.create_task(closing.close(OWNER, command(OWNER, 2, 14)))
    try:
        await until(lambda: len(positions.batches) == 3, "a batch of the owner's, beside it")
        assert positions.asked[-1].requested_by == OWNER.subject
    finally:
        positions.open.set()
        assert isinstance(await own, Accepted)
        assert [type(one) for one in await flood] == [Problem] * 12
        stop.set()
        await running
