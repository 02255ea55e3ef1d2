"""The queue in front of the database: a batch is what arrived while the one before it committed; no timer is added.

Several run at once, so that the closes of one are decided while the statements of another run; `turns` says whose come
next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from close_api.turns import Batch, Turns
from closeflow.clock import monotonic, sleep, timeout
from closeflow.telemetry.metrics import gauge, histogram

Item = TypeVar("Item")
Answer = TypeVar("Answer")

BATCH_SIZE: Final = histogram("close_api_batch_size")
WAITING: Final = gauge("close_api_waiting_closes")


_GO_ON_TOGETHER: Final = 8


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

    def answer(self, index: int, answer: Answer | Exception) -> bool:
        """Whether that was the last one: who waits goes on now."""
        if self.answers[index] is not None or self.done.done():
            return False
        self.answers[index] = answer
        self.left -= 1
        if not self.left:
            self.done.set_result(None)
        return not self.left


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
    _turns: Turns[_Waiting[Item, Answer]] = field(init=False)
    _changed: asyncio.Event = field(init=False, default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._turns = Turns(self.capacity, self.size, self.in_flight, key=lambda one: self.key(one.item))

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
        now = monotonic()
        for index, (whose, item) in enumerate(items):
            given_up = self._turns.add(whose, _Waiting(item, call, index), now=now)
            if given_up is not None:
                given_up.call.answer(given_up.index, Overloaded())
        WAITING.set(self._turns.waiting)
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
            while not self._turns.is_idle:
                await self._change()
        finally:
            for one in (stopping, *workers):
                one.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(stopping, *workers, return_exceptions=True)

    async def _work(self) -> None:
        while True:
            batch = await self._next()
            wanted = [one for one in batch.items if not one.call.done.done()]
            if wanted:
                BATCH_SIZE.observe(len(wanted))
                await self._answer(wanted, await self.work([one.item for one in wanted]))
            self._turns.ended(batch)
            self._changed.set()

    async def _next(self) -> Batch[_Waiting[Item, Answer]]:
        """The next batch; nothing happens between its being taken and the return."""
        while (batch := self._turns.take(now=monotonic())) is None:
            again_at = self._turns.again_at
            with suppress(TimeoutError):
                async with timeout(None if again_at is None else max(0.0, again_at - monotonic())):
                    await self._change()
        WAITING.set(self._turns.waiting)
        return batch

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _answer(self, wanted: Sequence[_Waiting[Item, Answer]], answers: Sequence[Answer | Exception]) -> None:
        """Let those who waited go on, a few at a time: what others do comes in between."""
        gone_on = 0
        for one, answer in zip(wanted, answers, strict=True):
            gone_on += one.call.answer(one.index, answer)
            if gone_on == _GO_ON_TOGETHER:
                gone_on = 0
                await sleep(0)
