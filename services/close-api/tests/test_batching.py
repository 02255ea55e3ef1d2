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
async def running(
    work: Doubling, *, capacity: int = 100, size: int = 4, in_flight: int = 1
) -> AsyncIterator[Batches[int, int]]:
    batches: Batches[int, int] = Batches(
        work=work, capacity=capacity, size=size, in_flight=in_flight, key=lambda item: item % 100
    )
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
        first = asyncio.create_task(batches.submit(0, whose="desk", deadline_s=5))
        await work.first_taken()
        others = [asyncio.create_task(batches.submit(n, whose="desk", deadline_s=5)) for n in range(1, 7)]
        await asyncio.sleep(0)
        work.allowed.set()
        assert await asyncio.gather(first, *others) == [0, 2, 4, 6, 8, 10, 12]
    assert work.batches == [[0], [1, 2, 3, 4], [5, 6]]


async def test_a_full_queue_refuses_at_once() -> None:
    work = Doubling()
    async with running(work, capacity=2) as batches:
        tasks = [asyncio.create_task(batches.submit(0, whose="desk", deadline_s=5))]
        await work.first_taken()
        tasks += [asyncio.create_task(batches.submit(n, whose="desk", deadline_s=5)) for n in (1, 2)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await batches.submit(3, whose="desk", deadline_s=5)
        work.allowed.set()
        assert await asyncio.gather(*tasks) == [0, 2, 4]


async def test_one_items_error_is_raised_to_its_caller_only() -> None:
    work = Doubling()
    work.allowed.set()
    async with running(work) as batches:
        found = await asyncio.gather(
            *(batches.submit(n, whose="desk", deadline_s=5) for n in (12, 13, 14)), return_exceptions=True
        )
    assert (found[0], found[2]) == (24, 28)
    assert isinstance(found[1], ValueError)


async def test_an_item_that_nobody_waits_for_any_more_is_not_worked_on() -> None:
    work = Doubling()
    async with running(work) as batches:
        first = asyncio.create_task(batches.submit(0, whose="desk", deadline_s=5))
        await work.first_taken()
        with pytest.raises(TimeoutError):
            await batches.submit(1, whose="desk", deadline_s=0)
        second = asyncio.create_task(batches.submit(2, whose="desk", deadline_s=5))
        await asyncio.sleep(0)
        work.allowed.set()
        assert [await first, await second] == [0, 4]
    assert work.batches == [[0], [2]]


async def test_stopping_finishes_what_was_taken_in() -> None:
    work = Doubling()
    async with running(work) as batches:
        tasks = [asyncio.create_task(batches.submit(n, whose="desk", deadline_s=5)) for n in range(6)]
        await work.first_taken()
    assert await asyncio.gather(*tasks) == [0, 2, 4, 6, 8, 10]


async def test_many_items_of_one_call_are_answered_in_order_and_each_by_itself() -> None:
    work = Doubling()
    work.allowed.set()
    async with running(work) as batches:
        found = await batches.submit_many([("desk", n) for n in (12, 13, 14, 15, 16)], deadline_s=5)
    assert [found[0], *found[2:]] == [24, 28, 30, 32]
    assert isinstance(found[1], ValueError)


async def test_of_a_call_that_does_not_fit_what_fits_is_taken() -> None:
    work = Doubling()
    async with running(work, capacity=2) as batches:
        first = asyncio.create_task(batches.submit(0, whose="desk", deadline_s=5))
        await work.first_taken()
        many = asyncio.create_task(batches.submit_many([("desk", n) for n in (1, 2, 3)], deadline_s=5))
        await asyncio.sleep(0)
        work.allowed.set()
        found = await many
        assert (await first, found[:2]) == (0, [2, 4])
        assert isinstance(found[2], Overloaded)


async def test_a_second_batch_begins_for_those_whose_closes_are_in_no_running_one() -> None:
    work = Doubling()
    async with running(work, in_flight=2) as batches:
        flood = asyncio.create_task(batches.submit_many([("flood", n) for n in range(8)], deadline_s=5))
        await work.first_taken()
        other = asyncio.create_task(batches.submit(50, whose="desk", deadline_s=5))
        await work.first_taken()
        assert work.batches == [[0, 1, 2, 3], [50]]
        work.allowed.set()
        await asyncio.gather(flood, other)


async def test_where_there_is_no_room_the_longest_queue_gives_way() -> None:
    work = Doubling()
    async with running(work, capacity=4) as batches:
        first = asyncio.create_task(batches.submit(0, whose="flood", deadline_s=5))
        await work.first_taken()
        flood = asyncio.create_task(batches.submit_many([("flood", n) for n in (1, 2, 3, 4)], deadline_s=5))
        await asyncio.sleep(0)
        others = asyncio.create_task(batches.submit_many([("desk", n) for n in (50, 51, 52)], deadline_s=5))
        await asyncio.sleep(0)
        work.allowed.set()
        flooded, other = await flood, await others
        assert [type(one) for one in flooded] == [int, int, Overloaded, Overloaded]
        assert [type(one) for one in other] == [int, int, Overloaded]
        assert await first == 0


async def test_another_batch_of_somebody_begins_when_it_is_full_and_one_is_left_for_others() -> None:
    work = Doubling()
    async with running(work, in_flight=3) as batches:
        flood = asyncio.create_task(batches.submit_many([("flood", n) for n in range(12)], deadline_s=5))
        for _ in range(2):
            await work.first_taken()
        assert work.batches == [[0, 1, 2, 3], [4, 5, 6, 7]]
        other = asyncio.create_task(batches.submit(50, whose="desk", deadline_s=5))
        await work.first_taken()
        assert work.batches[2] == [50]
        work.allowed.set()
        await asyncio.gather(flood, other)


async def test_who_asks_for_much_goes_on_after_a_moment_although_nothing_else_happens() -> None:
    work = Doubling()
    async with running(work, in_flight=3) as batches:
        little = asyncio.create_task(batches.submit(50, whose="desk", deadline_s=5))
        await work.first_taken()
        flood = asyncio.create_task(batches.submit_many([("flood", n) for n in range(4)], deadline_s=5))
        await work.first_taken()
        assert work.batches == [[50], [0, 1]]
        work.allowed.set()
        await asyncio.gather(little, flood)


async def test_those_who_waited_go_on_a_few_at_a_time() -> None:
    work = Doubling()
    work.allowed.set()
    order: list[object] = []
    begun = asyncio.Event()

    async def ask(n: int) -> None:
        await batches.submit(n, whose="desk", deadline_s=5)
        order.append(n)
        begun.set()

    async with running(work, size=20) as batches:
        asked = [asyncio.create_task(ask(n)) for n in range(20, 40)]
        await begun.wait()
        assert len(order) < 20, "others come in between"
        await asyncio.gather(*asked)
    assert order == list(range(20, 40))
