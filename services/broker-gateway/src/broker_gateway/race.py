"""Several things that end together."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from closeflow.run import EndedUnasked
from closeflow.tasks import end_tasks


async def race(*entrants: Coroutine[Any, Any, None]) -> None:
    """Run them until the first ends, cancel the others, and end as the first did. Raises EndedUnasked where that was
    cancelled, which nobody but us may do."""
    tasks = [asyncio.ensure_future(entrant) for entrant in entrants]
    done: set[asyncio.Future[None]] = set()
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end_tasks(tasks)
    if any(task.cancelled() for task in done):
        raise EndedUnasked("cancelled by nobody of ours")
    for task in tasks:
        if not task.cancelled():
            task.result()
