"""What is usually written first: FastAPI, and an ORM session for each request. Same tables, same rows, same answer.

It does the work of close-api's good path and nothing more: lock the position, look for the key, insert the request
and its two outbox rows, move the position, commit.
"""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from closeflow.storage.schema import tables


class Base(DeclarativeBase):
    """The ORM's registry; the tables are those of the service."""


class Position(Base):
    """A row of `positions`, locked by the ORM while its close is accepted."""

    __table__ = tables.positions


class CloseRequest(Base):
    """A row of `close_requests`."""

    __table__ = tables.close_requests


class OutboxEvent(Base):
    """A row of `outbox_events`."""

    __table__ = tables.outbox_events


class CloseBody(BaseModel):
    """The body of a close, read with FastAPI's defaults."""

    quantity: Decimal | None = None
    order_type: str = "limit"
    limit_price: Decimal | None = None


class CloseAnswer(BaseModel):
    """The same answer body as close-api's."""

    close_request_id: uuid.UUID
    position_id: int
    position_status: str
    close_request_status: str
    symbol: str
    side: str
    target_qty: Decimal
    filled_qty: Decimal
    remaining_qty: Decimal
    retry_count: int
    created_at: datetime
    submitted_at: datetime | None
    completed_at: datetime | None
    reason: str | None


engine = create_async_engine(os.environ["BASELINE_DSN"], pool_size=16, max_overflow=0)
sessions = async_sessionmaker(engine, expire_on_commit=False)
app = FastAPI()


async def session() -> AsyncIterator[AsyncSession]:
    """One session and transaction per request, committed before the answer is sent."""
    async with sessions() as opened, opened.begin():
        yield opened


@app.post("/v1/positions/{position_id}/close", status_code=201)
async def close(
    position_id: int,
    body: CloseBody,
    db: Annotated[AsyncSession, Depends(session, scope="function")],
    idempotency_key: Annotated[str, Header(min_length=1, max_length=100)],
) -> CloseAnswer:
    """Accept one close as close-api does: same checks, same rows, one transaction."""
    position: Any = await db.scalar(
        select(Position).where(tables.positions.c.id == position_id).with_for_update(key_share=True)
    )
    if position is None:
        raise HTTPException(404)
    again = await db.scalar(
        select(CloseRequest).where(
            tables.close_requests.c.position_id == position_id,
            tables.close_requests.c.idempotency_key == idempotency_key,
        )
    )
    if again is not None or position.status != "open":
        raise HTTPException(409)
    request: Any = _request(position, body, idempotency_key)
    db.add(request)
    position.status = "closing"
    position.active_close_request_id = request.id
    position.version += 1
    await db.flush()
    db.add(_event(position, request, "submit-order", "SUBMIT_CLOSE_ORDER", "submit-order.v1"))
    db.add(_event(position, request, "position-events", "POSITION_CLOSING", "position-event.v1"))
    await db.flush()
    return CloseAnswer(
        close_request_id=request.id,
        position_id=position.id,
        position_status=position.status,
        close_request_status=request.status,
        symbol=request.symbol,
        side=request.side,
        target_qty=request.target_qty,
        filled_qty=request.filled_qty,
        remaining_qty=request.target_qty - request.filled_qty,
        retry_count=request.retry_count,
        created_at=request.created_at,
        submitted_at=None,
        completed_at=None,
        reason=None,
    )


def _request(position: Any, body: CloseBody, key: str) -> CloseRequest:
    return CloseRequest(
        id=uuid.uuid4(),
        position_id=position.id,
        account_id=position.account_id,
        idempotency_key=key,
        fingerprint=body.model_dump_json(),
        requested_by="anonymous",
        status="pending",
        symbol=position.symbol,
        side="sell" if position.quantity > 0 else "buy",
        asset_type=position.asset_type,
        target_qty=body.quantity or abs(position.quantity),
        filled_qty=Decimal(0),
        retry_count=0,
        order_type=body.order_type,
        limit_price=body.limit_price,
        time_in_force="day",
        created_at=datetime.now(UTC),
    )


def _event(position: Any, request: Any, topic: str, event_type: str, schema_version: str) -> OutboxEvent:
    now = datetime.now(UTC)
    return OutboxEvent(
        created_on=now.date(),
        id=uuid.uuid4(),
        emission=1,
        topic=topic,
        key=str(position.id),
        event_type=event_type,
        schema_version=schema_version,
        payload={
            "close_request_id": str(request.id),
            "position_id": str(position.id),
            "account_id": position.account_id,
            "symbol": position.symbol,
            "side": request.side,
            "quantity": str(request.target_qty),
            "position_version": position.version,
            "requested_at": now.isoformat(),
        },
        close_request_id=request.id,
        attempt=1,
        position_id=position.id,
        position_version=position.version,
    )


if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )
