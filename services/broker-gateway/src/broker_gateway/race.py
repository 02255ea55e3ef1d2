"""Several things that end together."""

import asyncio
from collections.abc import Coroutine
from typing import Any


async def race(*entrants: Coroutine[Any, Any, None]) -> None:
    """Run them until the first ends, cancel the others, and end as the first did."""
    tasks = [asyncio.ensure_future(entrant) for entrant in entrants]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        if not task.cancelled():
            task.result()
