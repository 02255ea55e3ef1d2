"""The Faust agent that books what the broker said: one transaction per event."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import faust
from sqlalchemy.ext.asyncio import AsyncSession

from bench.flow.usual.models import (
    AT_A_TIME,
    BROKER_FILL,
    POSITION_EVENTS,
    CloseRequest,
    Execution,
    Order,
    Position,
    event,
    sessions,
)

app = faust.App("usual-fills", broker=os.environ["FAUST_BROKER"])
topic = app.topic(BROKER_FILL, value_serializer="json")
opened = sessions()


@app.agent(topic, concurrency=AT_A_TIME)
async def book(updates: faust.StreamT[dict[str, Any]]) -> None:
    """Book each update once: an older one than the order has seen, or one that comes again, changes nothing."""
    async for update in updates:
        async with opened() as db, db.begin():
            await apply(db, update)


async def apply(db: AsyncSession, update: dict[str, Any]) -> None:
    """What one update changes of the order, its request and its position, with the event of a closed position."""
    order = await db.get_one(Order, update["client_order_id"], with_for_update=True)
    filled = Decimal(update["filled_qty"])
    now = datetime.now(UTC)
    if update["event"] != "fill":
        if order.filled_qty == 0:
            order.status = update["event"]
            order.updated_at = now
        return
    if filled <= order.filled_qty:
        return
    quantity = Decimal(update["qty"])
    db.add(
        Execution(
            id=update["execution_id"],
            client_order_id=order.client_order_id,
            quantity=quantity,
            price=Decimal(update["price"]),
            executed_at=datetime.fromisoformat(update["at"]),
        )
    )
    request = await db.get_one(CloseRequest, order.close_request_id, with_for_update=True)
    position = await db.get_one(Position, request.position_id, with_for_update=True)
    order.filled_qty = request.filled_qty = filled
    order.updated_at = now
    position.quantity -= quantity if order.side == "sell" else -quantity
    position.version += 1
    if filled == order.quantity:
        order.status = "filled"
        request.status = "completed"
        request.completed_at = position.closed_at = now
        position.status = "closed"
        db.add(event(POSITION_EVENTS, "POSITION_CLOSED", request, position_version=position.version))
