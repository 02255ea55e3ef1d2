"""The queue in front of the database: a batch is what arrived while the one before it committed; no timer is added."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from prometheus_client import Gauge, Histogram

from closeflow.clock import timeout

Item = TypeVar("Item")
Answer = TypeVar("Answer")

BATCH_SIZE: Final = Histogram(
    "close_api_batch_size", "Closes decided in one transaction", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256)
)
WAITING: Final = Gauge("close_api_waiting_closes", "Closes in the queue that no batch has taken yet")


class Overloaded(Exception):
    """The queue is full; nothing was taken."""


@dataclass(slots=True)
class _Waiting(Generic[Item, Answer]):
    item: Item
    answer: asyncio.Future[Answer | Exception]


@dataclass(slots=True)
class Batches(Generic[Item, Answer]):
    """`work` gets up to `size` items and gives an answer, or the error to raise, for each in order; it never raises."""

    work: Callable[[Sequence[Item]], Awaitable[Sequence[Answer | Exception]]]
    capacity: int
    size: int
    in_flight: int
    _queue: asyncio.Queue[_Waiting[Item, Answer]] = field(init=False)

    def __post_init__(self) -> None:
        self._queue = asyncio.Queue(self.capacity)

    async def submit(self, item: Item, *, deadline_s: float) -> Answer:
        """The item's answer; raises Overloaded, or TimeoutError when no answer came in time.

        An item that no batch took before the deadline is dropped; one that was taken goes on to its end.
        """
        waiting: _Waiting[Item, Answer] = _Waiting(item, asyncio.get_running_loop().create_future())
        try:
            self._queue.put_nowait(waiting)
        except asyncio.QueueFull:
            raise Overloaded from None
        WAITING.set(self._queue.qsize())
        async with timeout(deadline_s):
            answer = await waiting.answer
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then to the end of the queue."""
        workers = [asyncio.create_task(self._work()) for _ in range(self.in_flight)]
        stopping = asyncio.create_task(stop.wait())
        try:
            done, _ = await asyncio.wait([stopping, *workers], return_when=asyncio.FIRST_COMPLETED)
            for one in done - {stopping}:
                one.result()  # A worker ends only by a defect, which ends the service.
            await self._queue.join()
        finally:
            for one in (stopping, *workers):
                one.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(stopping, *workers, return_exceptions=True)

    async def _work(self) -> None:
        while True:
            taken = [await self._queue.get()]
            while len(taken) < self.size and not self._queue.empty():
                taken.append(self._queue.get_nowait())
            WAITING.set(self._queue.qsize())
            wanted = [one for one in taken if not one.answer.done()]
            if wanted:
                BATCH_SIZE.observe(len(wanted))
                for one, answer in zip(wanted, await self.work([one.item for one in wanted]), strict=True):
                    if not one.answer.done():
                        one.answer.set_result(answer)
            for _ in taken:
                self._queue.task_done()
