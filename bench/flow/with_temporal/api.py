"""The API: it starts a workflow per close. `python -m bench.flow.with_temporal.api`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated

from fastapi import FastAPI, Header
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy

from bench.flow.served import serve
from bench.flow.with_temporal.workflow import TASK_QUEUE


@asynccontextmanager
async def connected(application: FastAPI) -> AsyncIterator[None]:
    """One client for all requests."""
    application.state.client = await Client.connect(os.environ["TEMPORAL_ADDRESS"])
    yield


app = FastAPI(lifespan=connected)


@app.post("/v1/positions/{position_id}/close", status_code=201)
async def accept(position_id: int, idempotency_key: Annotated[str, Header()]) -> dict[str, str]:
    """Start the workflow under the key; it is durable when this is answered, and a repetition starts no other."""
    client: Client = app.state.client
    handle = await client.start_workflow(
        "Close",
        args=[position_id, datetime.now(UTC).isoformat()],
        id=idempotency_key,
        task_queue=TASK_QUEUE,
        id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
    )
    return {"close_request_id": handle.id}


if __name__ == "__main__":
    serve(app)
