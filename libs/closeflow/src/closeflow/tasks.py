"""Pauses between tries, and tasks that end for certain: a cancellation can be lost on its way.

Where a task is cancelled inside a statement of a database that does not answer, rolling back fails, and that error
takes the place of the cancellation. A loop that goes on after errors which pass by themselves then goes on after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

T = TypeVar("T")

CANCEL_AGAIN_S: Final = 10.0
"""Longer than anything in a task may take that was cancelled: leaving a consumer group, closing a client."""


@dataclass(slots=True)
class GrowingPause:
    """Doubles from one failure to the next, up to the cap."""

    first_s: float
    cap_s: float
    failures: int = 0

    def next_s(self) -> float:
        """Seconds to wait now: twice as long as before, up to the cap."""
        pause_s = min(self.cap_s, self.first_s * 2.0 ** min(self.failures, 32))
        self.failures += 1
        return pause_s

    def reset(self) -> None:
        """It went well: the next pause is the first one again."""
        self.failures = 0


def being_cancelled() -> bool:
    """Whether somebody has asked the current task to end, also by a time-out around what it does now."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def race(awaited: Awaitable[T], stop: asyncio.Event, *ends: Awaitable[None]) -> T | None:
    """What is awaited, or None where `stop` is set or one of `ends` comes before; what is awaited has then been
    cancelled, and has ended."""
    waiting = asyncio.ensure_future(awaited)
    others = [asyncio.ensure_future(one) for one in (stop.wait(), *ends)]
    try:
        await asyncio.wait((waiting, *others), return_when=asyncio.FIRST_COMPLETED)
        return waiting.result() if waiting.done() else None
    finally:
        await end_tasks((waiting, *others))


async def end_tasks(tasks: Iterable[asyncio.Future[Any]], *, again_s: float = CANCEL_AGAIN_S) -> None:
    """Cancel what has not ended, again and again until it has; whatever it ends with."""
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        ended, left = await asyncio.wait(left, timeout=again_s)
        for task in ended:
            if not task.cancelled():
                task.exception()  # Looked at, or asyncio reports it as never retrieved.
