"""The worker: workflows and their activities. `python -m bench.flow.with_temporal.worker`."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any, Final

import httpx
import uvloop
from psycopg_pool import AsyncConnectionPool
from temporalio import activity
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from bench.flow import closing
from bench.flow.with_temporal.workflow import TASK_QUEUE, Close

POOL: Final = 16


class Activities:
    """The steps, on a pool of connections to the positions and one client of the broker."""

    def __init__(self, books: AsyncConnectionPool, broker: httpx.AsyncClient) -> None:
        self._books = books
        self._broker = broker

    @activity.defn
    async def plan(self, workflow_id: str, position_id: int, accepted_at: str) -> dict[str, Any]:
        """Lock the position, write the request and its order, mark the position; returns the order."""
        async with self._books.connection() as connection:
            row = await (await connection.execute(closing.POSITION, {"position_id": position_id})).fetchone()
            order = closing.planned(workflow_id, position_id, accepted_at, row)
            if (await connection.execute(closing.REQUEST, order)).rowcount:
                await connection.execute(closing.ORDER, order)
                await connection.execute(closing.CLOSING, order)
        return order

    @activity.defn
    async def send(self, order: dict[str, Any]) -> dict[str, Any]:
        """The call to the broker; returns its answer. One that was taken before is refused by the broker, and known."""
        answer = await self._broker.post("/v2/orders", json=closing.ticket(order))
        if answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY:
            known = {"client_order_id": order["client_order_id"]}
            answer = await self._broker.get("/v2/orders:by_client_order_id", params=known)
        answer.raise_for_status()
        told: dict[str, Any] = answer.json()
        return told

    @activity.defn
    async def book(self, order: dict[str, Any], fill: dict[str, Any]) -> None:
        """Write the execution and, where it is new, what it changes."""
        values = {**order, **fill}
        async with self._books.connection() as connection:
            if (await connection.execute(closing.EXECUTION, values)).rowcount:
                for statement in (closing.FILLED, closing.COMPLETED, closing.CLOSED):
                    await connection.execute(statement, values)


async def run() -> None:
    """Work until SIGTERM. Workflows run outside of the sandbox, which costs less."""
    client = await Client.connect(os.environ["TEMPORAL_ADDRESS"])
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with (
        AsyncConnectionPool(os.environ["POSTGRES_DSN"], min_size=POOL, max_size=POOL) as books,
        httpx.AsyncClient(base_url=os.environ["TRADING_URL"]) as broker,
    ):
        steps = Activities(books, broker)
        async with Worker(
            client,
            task_queue=TASK_QUEUE,
            workflows=[Close],
            activities=[steps.plan, steps.send, steps.book],
            workflow_runner=UnsandboxedWorkflowRunner(),
            max_cached_workflows=10_000,
        ):
            await ended.wait()


if __name__ == "__main__":
    uvloop.run(run())
