"""The API: one session and one transaction per request. `python -m bench.flow.usual.api`."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from bench.flow.served import serve
from bench.flow.usual.models import SUBMIT_ORDER, CloseRequest, Position, event, sessions

opened = sessions()
app = FastAPI()


class CloseAnswer(BaseModel):
    """What a caller is told of an accepted close."""

    close_request_id: str
    position_id: int
    position_status: str
    symbol: str
    side: str
    target_qty: Decimal
    created_at: datetime


async def session() -> AsyncIterator[AsyncSession]:
    """One session and transaction per request, committed before the answer is sent."""
    async with opened() as one, one.begin():
        yield one


@app.post("/v1/positions/{position_id}/close", status_code=201)
async def close(
    position_id: int,
    db: Annotated[AsyncSession, Depends(session, scope="function")],
    idempotency_key: Annotated[str, Header(min_length=1, max_length=100)],
) -> CloseAnswer:
    """Accept one close: lock the position, write the request and its outbox row, mark the position."""
    now = datetime.now(UTC)
    position = await db.scalar(select(Position).where(Position.id == position_id).with_for_update())
    if position is None:
        raise HTTPException(404)
    if position.status != "open":
        raise HTTPException(409)
    request = CloseRequest(
        id=str(uuid.uuid4()),
        position_id=position.id,
        idempotency_key=idempotency_key,
        status="pending",
        symbol=position.symbol,
        side="sell" if position.quantity > 0 else "buy",
        target_qty=abs(position.quantity),
        filled_qty=Decimal(0),
        created_at=now,
    )
    position.status = "closing"
    position.version += 1
    db.add_all([request, event(SUBMIT_ORDER, "SUBMIT_CLOSE_ORDER", request)])
    await db.flush()
    return CloseAnswer(
        close_request_id=request.id,
        position_id=position.id,
        position_status=position.status,
        symbol=request.symbol,
        side=request.side,
        target_qty=request.target_qty,
        created_at=request.created_at,
    )


if __name__ == "__main__":
    serve(app)
