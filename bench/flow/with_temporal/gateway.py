"""From the broker's stream to the workflows, as signals. `python -m bench.flow.with_temporal.gateway`."""

from __future__ import annotations

import asyncio
import os
from typing import Any, Final

import uvloop
from temporalio.client import Client

from bench.flow import closing
from bench.flow.trade_updates import trade_updates

AT_A_TIME: Final = 16
"""So many fills are handed to their workflows at once."""


async def run() -> None:
    """Signal every fill to the workflow of its order until the broker goes."""
    client = await Client.connect(os.environ["TEMPORAL_ADDRESS"])
    free = asyncio.Semaphore(AT_A_TIME)

    async def hand_over(update: dict[str, Any]) -> None:
        try:
            workflow_id = closing.workflow_id_of(update["client_order_id"])
            await client.get_workflow_handle(workflow_id).signal("fill", update)
        finally:
            free.release()

    async with asyncio.TaskGroup() as tasks:
        async for update in trade_updates(os.environ["TRADING_STREAM_URL"]):
            if update["event"] == "fill":
                await free.acquire()
                tasks.create_task(hand_over(update))


if __name__ == "__main__":
    uvloop.run(run())
