"""The queue in front of the database: a batch is what arrived while the one before it committed; no timer is added.

Everybody whose closes wait has a queue of their own and they take turns, so that one who asks for thousands holds up
nobody else: of a batch each gets an even share, the last batch that may run is never of somebody who is in a running
one, and where there is no room left it is the longest queue that gives way.

One batch's statements then run while another one's closes are decided. Somebody who is in a running batch begins another
one only when it is full: closes that come one by one are cheaper together than in two halves.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
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


def _one_for_all(_item: object) -> Hashable:
    return None


class Overloaded(Exception):
    """There is no room; nothing was taken."""


@dataclass(slots=True)
class _Call(Generic[Answer]):
    """What waits together for its answers."""

    answers: list[Answer | Exception | None]
    left: int
    done: asyncio.Future[None]

    def answer(self, index: int, answer: Answer | Exception) -> None:
        if self.answers[index] is not None or self.done.done():
            return
        self.answers[index] = answer
        self.left -= 1
        if not self.left:
            self.done.set_result(None)


@dataclass(slots=True)
class _Waiting(Generic[Item, Answer]):
    item: Item
    call: _Call[Answer]
    index: int


@dataclass(slots=True)
class Batches(Generic[Item, Answer]):
    """`work` gets up to `size` items and gives an answer, or the error to raise, for each in order; it never raises.

    `capacity` is how many may wait, and `in_flight` how many batches run at once. Items with one `key` are worked on in
    the order in which they came: together, or one batch after the other; by default all have one.
    """

    work: Callable[[Sequence[Item]], Awaitable[Sequence[Answer | Exception]]]
    capacity: int
    size: int
    in_flight: int
    key: Callable[[Item], Hashable] = _one_for_all
    _queues: OrderedDict[str, deque[_Waiting[Item, Answer]]] = field(init=False, default_factory=OrderedDict)
    _waiting: int = field(init=False, default=0)
    _running: Counter[str] = field(init=False, default_factory=Counter)
    """How many batches somebody is in that run."""
    _busy: set[Hashable] = field(init=False, default_factory=set)
    """The keys of running batches."""
    _changed: asyncio.Event = field(init=False, default_factory=asyncio.Event)

    async def submit(self, item: Item, *, whose: str, deadline_s: float) -> Answer:
        """The item's answer; raises Overloaded, or TimeoutError when no answer came in time.

        An item that no batch took before the deadline is dropped; one that was taken goes on to its end.
        """
        (answer,) = await self.submit_many([(whose, item)], deadline_s=deadline_s)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def submit_many(self, items: Sequence[tuple[str, Item]], *, deadline_s: float) -> list[Answer | Exception]:
        """The answer to each item, or its error as of `submit`; `items` are whose it is and what it is."""
        call: _Call[Answer] = _Call([None] * len(items), len(items), asyncio.get_running_loop().create_future())
        for index, (whose, item) in enumerate(items):
            if self._waiting >= self.capacity and not self._make_room(whose):
                call.answer(index, Overloaded())
                continue
            self._queues.setdefault(whose, deque()).append(_Waiting(item, call, index))
            self._waiting += 1
        WAITING.set(self._waiting)
        self._changed.set()
        try:
            async with timeout(deadline_s):
                await call.done
        except TimeoutError:
            call.done.cancel()
        return [TimeoutError() if answer is None else answer for answer in call.answers]

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then to the end of the queue."""
        workers = [asyncio.create_task(self._work()) for _ in range(self.in_flight)]
        stopping = asyncio.create_task(stop.wait())
        try:
            done, _ = await asyncio.wait([stopping, *workers], return_when=asyncio.FIRST_COMPLETED)
            for one in done - {stopping}:
                one.result()  # A worker ends only by a defect, which ends the service.
            await self._until(lambda: not self._waiting and not self._running)
        finally:
            for one in (stopping, *workers):
                one.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(stopping, *workers, return_exceptions=True)

    async def _work(self) -> None:
        while True:
            await self._until(self._may_begin)
            taken = self._take()
            wanted = [one for _, one in taken if not one.call.done.done()]
            if wanted:
                BATCH_SIZE.observe(len(wanted))
                for one, answer in zip(wanted, await self.work([one.item for one in wanted]), strict=True):
                    one.call.answer(one.index, answer)
            self._busy.difference_update(self.key(one.item) for _, one in taken)
            self._running.subtract({whose for whose, _ in taken})
            self._running += Counter()  # Without those who are in none any more.
            self._changed.set()

    async def _until(self, met: Callable[[], bool]) -> None:
        """Wait for a condition of the queues; nothing happens between its being met and the return."""
        while not met():
            self._changed.clear()
            await self._changed.wait()

    def _may_begin(self) -> bool:
        return any(self._is_free(whose, queue) for whose, queue in self._queues.items())

    def _is_free(self, whose: str, queue: deque[_Waiting[Item, Answer]]) -> bool:
        """Whether a batch may begin with it now."""
        if self.key(queue[0].item) in self._busy:
            return False
        running = self._running[whose]
        return running == 0 or (running < self.in_flight - 1 and len(queue) >= self.size)

    def _take(self) -> list[tuple[str, _Waiting[Item, Answer]]]:
        """One of each queue in turn, until the batch is full; those that are not free wait for a running one's end."""
        free = OrderedDict((whose, queue) for whose, queue in self._queues.items() if self._is_free(whose, queue))
        taken: list[tuple[str, _Waiting[Item, Answer]]] = []
        while free and len(taken) < self.size:
            whose, queue = free.popitem(last=False)
            taken.append((whose, queue.popleft()))
            if not queue:
                del self._queues[whose]
                continue
            self._queues.move_to_end(whose)
            if self.key(queue[0].item) not in self._busy:
                free[whose] = queue
        self._busy.update(self.key(one.item) for _, one in taken)
        self._running.update({whose for whose, _ in taken})
        self._waiting -= len(taken)
        WAITING.set(self._waiting)
        return taken

    def _make_room(self, whose: str) -> bool:
        """Whether the newest of the longest queue gave way, which it does for a queue that is shorter by two."""
        longest = max(self._queues.values(), key=len)
        if len(self._queues.get(whose, ())) + 1 >= len(longest):
            return False
        given_up = longest.pop()
        given_up.call.answer(given_up.index, Overloaded())
        self._waiting -= 1
        return True
