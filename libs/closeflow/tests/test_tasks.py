"""Tasks that lose a cancellation."""

from __future__ import annotations

import asyncio

import pytest

from closeflow.tasks import being_cancelled, end_tasks, race


class Forgetful:
    """A loop that takes the cancellation of its first statements for an error that passes."""

    def __init__(self, loses: int) -> None:
        self.loses = loses
        self.asked = 0

    async def run(self) -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.asked += 1
                if self.asked > self.loses:
                    raise


async def test_a_task_that_loses_its_cancellation_is_cancelled_again() -> None:
    forgetful = Forgetful(2)
    tasks = [asyncio.create_task(forgetful.run()), asyncio.create_task(asyncio.sleep(0))]
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await end_tasks(tasks, again_s=0.01)
    assert forgetful.asked == 3
    assert tasks[0].cancelled()
    await end_tasks([])


async def test_a_task_knows_that_it_is_to_end() -> None:
    assert not being_cancelled()
    known = []
    try:
        async with asyncio.timeout(0):
            try:
                await asyncio.Event().wait()
            finally:
                known.append(being_cancelled())
    except TimeoutError:
        known.append(being_cancelled())
    assert known == [True, False]


async def test_a_race_gives_what_comes_before_the_stop_and_leaves_nothing_behind() -> None:
    stop = asyncio.Event()
    assert await race(asyncio.sleep(0, "found"), stop) == "found"
    waiting = asyncio.create_task(asyncio.sleep(3600, "late"))
    asyncio.get_running_loop().call_soon(stop.set)
    assert await race(waiting, stop) is None
    assert waiting.cancelled()


async def test_a_race_raises_what_was_awaited_raises() -> None:
    async def broken() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await race(broken(), asyncio.Event())
