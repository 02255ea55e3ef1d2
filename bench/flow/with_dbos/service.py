"""The API, the workflows and the reader of the broker's stream. `python -m bench.flow.with_dbos.service`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import httpx
from dbos import DBOS, AsyncSQLAlchemyDatasource, DBOSConfig, SetWorkflowID
from fastapi import FastAPI, Header

from bench.flow import closing
from bench.flow.served import serve
from bench.flow.trade_updates import trade_updates

POOL: Final = 16
AT_A_TIME: Final = 16
"""So many fills are handed to their workflows at once."""
FILL: Final = "fill"
FILL_WITHIN_S: Final = 600.0


class Means:
    """What the steps work with; set before the first workflow runs."""

    books: AsyncSQLAlchemyDatasource
    broker: httpx.AsyncClient


@DBOS.workflow()
async def close(workflow_id: str, position_id: int, accepted_at: str) -> None:
    """One close: the order is planned, sent, awaited and booked, each once."""
    order = await _transaction(plan, workflow_id, position_id, accepted_at)
    await send(order)
    fill = await DBOS.recv_async(FILL, timeout_seconds=FILL_WITHIN_S)
    if fill is None:
        raise TimeoutError(f"no fill of {order['client_order_id']}")
    await _transaction(book, order, fill)


async def _transaction(step: Any, *arguments: Any) -> Any:
    options = {"name": step.__name__, "isolation_level": "READ COMMITTED"}
    return await Means.books.run_tx_step_async(options, step, *arguments)


async def plan(workflow_id: str, position_id: int, accepted_at: str) -> dict[str, Any]:
    """Lock the position, write the request and its order, mark the position; returns the order."""
    connection = await Means.books.sql_session().connection()
    row = (await connection.exec_driver_sql(closing.POSITION, {"position_id": position_id})).one()
    order = closing.planned(workflow_id, position_id, accepted_at, row)
    for statement in (closing.REQUEST, closing.ORDER, closing.CLOSING):
        await connection.exec_driver_sql(statement, order)
    return order


@DBOS.step()
async def send(order: dict[str, Any]) -> dict[str, Any]:
    """The call to the broker; returns its answer."""
    answer = await Means.broker.post("/v2/orders", json=closing.ticket(order))
    answer.raise_for_status()
    told: dict[str, Any] = answer.json()
    return told


async def book(order: dict[str, Any], fill: dict[str, Any]) -> None:
    """Write the execution and, where it is new, what it changes."""
    connection = await Means.books.sql_session().connection()
    values = {**order, **fill}
    if (await connection.exec_driver_sql(closing.EXECUTION, values)).rowcount:
        for statement in (closing.FILLED, closing.COMPLETED, closing.CLOSED):
            await connection.exec_driver_sql(statement, values)


async def forward() -> None:
    """Hand every fill on the broker's stream to its workflow, several at a time."""
    free = asyncio.Semaphore(AT_A_TIME)

    async def hand_over(update: dict[str, Any]) -> None:
        try:
            workflow_id = closing.workflow_id_of(update["client_order_id"])
            await DBOS.send_async(workflow_id, update, FILL, idempotency_key=update["execution_id"])
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
    config: DBOSConfig = {"name": "closes", "system_database_url": dsn, "log_level": "WARNING"}
    DBOS(config=config)
    Means.books = await AsyncSQLAlchemyDatasource.create(dsn, {"pool_size": POOL, "max_overflow": 0})
    DBOS.launch()
    async with httpx.AsyncClient(base_url=os.environ["TRADING_URL"]) as Means.broker:
        forwarding = asyncio.create_task(forward())
        try:
            yield
        finally:
            forwarding.cancel()
            await asyncio.gather(forwarding, return_exceptions=True)
    DBOS.destroy()


app = FastAPI(lifespan=running)


@app.post("/v1/positions/{position_id}/close", status_code=201)
async def accept(position_id: int, idempotency_key: Annotated[str, Header()]) -> dict[str, str]:
    """Start the workflow under the key; it is durable when this is answered, and a repetition starts no other."""
    with SetWorkflowID(idempotency_key):
        handle = await DBOS.start_workflow_async(close, idempotency_key, position_id, datetime.now(UTC).isoformat())
    return {"close_request_id": handle.get_workflow_id()}


if __name__ == "__main__":
    serve(app)
