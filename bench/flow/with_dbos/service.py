"""The API, the workflows and the reader of the broker's stream. `python -m bench.flow.with_dbos.service`.

Of what was tried this closes the most per second: functions that block, on threads (coroutines closed two thirds of
it), and transactions as steps that may run again (DBOS's own data source, with its checkpoints, closed less).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import httpx
from dbos import DBOS, DBOSConfig, SetWorkflowID
from fastapi import FastAPI, Header
from psycopg_pool import ConnectionPool

from bench.flow import closing
from bench.flow.served import serve
from bench.flow.trade_updates import trade_updates

POOL: Final = 16
THREADS: Final = 32
"""So many workflows run at once; 12 and 100 closed fewer per second."""
AT_A_TIME: Final = 16
"""So many fills are handed to their workflows at once."""
FILL: Final = "fill"
FILL_WITHIN_S: Final = 600.0


class Means:
    """What the steps work with; set before the first workflow runs."""

    books: ConnectionPool
    broker: httpx.Client


@DBOS.workflow()
def close(workflow_id: str, position_id: int, accepted_at: str) -> None:
    """One close: the order is planned, sent, awaited and booked, each once."""
    order = plan(workflow_id, position_id, accepted_at)
    send(order)
    fill = DBOS.recv(FILL, timeout_seconds=FILL_WITHIN_S)
    if fill is None:
        raise TimeoutError(f"no fill of {order['client_order_id']}")
    book(order, fill)


@DBOS.step()
def plan(workflow_id: str, position_id: int, accepted_at: str) -> dict[str, Any]:
    """Lock the position, write the request and its order, mark the position; returns the order."""
    with Means.books.connection() as connection:
        row = connection.execute(closing.POSITION, {"position_id": position_id}).fetchone()
        order = closing.planned(workflow_id, position_id, accepted_at, row)
        if connection.execute(closing.REQUEST, order).rowcount:
            connection.execute(closing.ORDER, order)
            connection.execute(closing.CLOSING, order)
    return order


@DBOS.step()
def send(order: dict[str, Any]) -> dict[str, Any]:
    """The call to the broker; returns its answer."""
    answer = Means.broker.post("/v2/orders", json=closing.ticket(order))
    answer.raise_for_status()
    told: dict[str, Any] = answer.json()
    return told


@DBOS.step()
def book(order: dict[str, Any], fill: dict[str, Any]) -> None:
    """Write the execution and, where it is new, what it changes."""
    values = {**order, **fill}
    with Means.books.connection() as connection:
        if connection.execute(closing.EXECUTION, values).rowcount:
            for statement in (closing.FILLED, closing.COMPLETED, closing.CLOSED):
                connection.execute(statement, values)


async def forward() -> None:
    """Hand every fill on the broker's stream to its workflow, several at a time."""
    free = asyncio.Semaphore(AT_A_TIME)

    async def hand_over(update: dict[str, Any]) -> None:
        try:
            workflow_id = closing.workflow_id_of(update["client_order_id"])
            await asyncio.to_thread(DBOS.send, workflow_id, update, FILL, idempotency_key=update["execution_id"])
        finally:
            free.release()

    async with asyncio.TaskGroup() as tasks:
        async for update in trade_updates(os.environ["TRADING_STREAM_URL"]):
            if update["event"] == "fill":
                await free.acquire()
                tasks.create_task(hand_over(update))


@asynccontextmanager
async def running(_app: FastAPI) -> AsyncIterator[None]:
    """DBOS is launched before the first request and destroyed after the last."""
    dsn = os.environ["POSTGRES_DSN"]
    config = DBOSConfig(name="closes", system_database_url=dsn, log_level="WARNING", max_executor_threads=THREADS)
    DBOS(config=config)
    DBOS.launch()
    with (
        ConnectionPool(dsn, min_size=POOL, max_size=POOL) as Means.books,
        httpx.Client(base_url=os.environ["TRADING_URL"]) as Means.broker,
    ):
        forwarding = asyncio.create_task(forward())
        try:
            yield
        finally:
            forwarding.cancel()
            await asyncio.gather(forwarding, return_exceptions=True)
    DBOS.destroy()


app = FastAPI(lifespan=running)


@app.post("/v1/positions/{position_id}/close", status_code=201)
def accept(position_id: int, idempotency_key: Annotated[str, Header()]) -> dict[str, str]:
    """Start the workflow under the key; it is durable when this is answered, and a repetition starts no other."""
    with SetWorkflowID(idempotency_key):
        handle = DBOS.start_workflow(close, idempotency_key, position_id, datetime.now(UTC).isoformat())
    return {"close_request_id": handle.get_workflow_id()}


if __name__ == "__main__":
    serve(app)
