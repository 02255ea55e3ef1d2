"""The queue: bounded, drained, and one item's trouble is not another's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from close_api.batching import Batches, Overloaded


class Doubling:
    """Work that waits for permission, remembers its batches and answers with twice the item; 13 is an error."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.allowed = asyncio.Event()
        self._taken = asyncio.Semaphore(0)

    async def __call__(self, items: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(items))
        self._taken.release()
        await self.allowed.wait()
        return [ValueError("unlucky") if item == 13 else 2 * item for item in items]

    async def first_taken(self) -> None:
        async with asyncio.timeout(5):
            await self._taken.acquire()


@asynccontextmanager
async def running(work: Doubling, *, capacity: int = 100, size: int = 4) -> AsyncIterator[Batches[int, int]]:
    batches: Batches[int, int] = Batches(work=work, capacity=capacity, size=size, in_flight=1)
    stop = asyncio.Event()
    task = asyncio.create_task(batches.run(stop))
    try:
        yield batches
    finally:
        work.allowed.set()
        stop.set()
        await task


async def test_what_waits_while_a_batch_is_at_work_is_the_next_batch() -> None:
    work = Doubling()
    async with running(work) as batches:
        first = asyncio.create_task(batches.submit(0, deadline_s=5))
        await work.first_taken()
        others = [asyncio.create_task(batches.submit(n, deadline_s=5)) for n in range(1, 7)]
        await asyncio.sleep(0)
        work.allowed.set()
        assert await asyncio.gather(first, *others) == [0, 2, 4, 6, 8, 10, 12]
    assert work.batches == [[0], [1, 2, 3, 4], [5, 6]]


async def test_a_full_queue_refuses_at_once() -> None:
    work = Doubling()
    async with running(work, capacity=2) as batches:
        tasks = [asyncio.create_task(batches.submit(0, deadline_s=5))]
        await work.first_taken()
        tasks += [asyncio.create_task(batches.submit(n, deadline_s=5)) for n in (1, 2)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await batches.submit(3, deadline_s=5)
        work.allowed.set()
        assert await asyncio.gather(*tasks) == [0, 2, 4]


async def test_one_items_error_is_raised_to_its_caller_only() -> None:
    work = Doubling()
    work.allowed.set()
    async with running(work) as batches:
        found = await asyncio.gather(*(batches.submit(n, deadline_s=5) for n in (12, 13, 14)), return_exceptions=True)
    assert (found[0], found[2]) == (24, 28)
    assert isinstance(found[1], ValueError)


async def test_an_item_that_nobody_waits_for_any_more_is_not_worked_on() -> None:
    work = Doubling()
    async with running(work) as batches:
        first = asyncio.create_task(batches.submit(0, deadline_s=5))
        await work.first_taken()
        with pytest.raises(TimeoutError):
            await batches.submit(1, deadline_s=0)
        second = asyncio.create_task(batches.submit(2, deadline_s=5))
        await asyncio.sleep(0)
        work.allowed.set()
        assert [await first, await second] == [0, 4]
    assert work.batches == [[0], [2]]


async def test_stopping_finishes_what_was_taken_in() -> None:
    work = Doubling()
    async with running(work) as batches:
        tasks = [asyncio.create_task(batches.submit(n, deadline_s=5)) for n in range(6)]
        await work.first_taken()
    assert await asyncio.gather(*tasks) == [0, 2, 4, 6, 8, 10]
