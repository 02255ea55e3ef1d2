"""The Faust agent that sends orders: per event a transaction with the order, a call, a transaction with the answer."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import faust
import httpx

from bench.flow.usual.models import AT_A_TIME, SUBMIT_ORDER, CloseRequest, Order, sessions

app = faust.App("usual-submitter", broker=os.environ["FAUST_BROKER"])
topic = app.topic(SUBMIT_ORDER, value_serializer="json")
opened = sessions()
broker = httpx.AsyncClient(base_url=os.environ["TRADING_URL"])


@app.agent(topic, concurrency=AT_A_TIME)
async def submit(events: faust.StreamT[dict[str, Any]]) -> None:
    """Send each close once; an event that comes again finds its order sent."""
    async for event in events:
        order = await plan(event["close_request_id"])
        if order is None:
            continue
        answer = await broker.post(
            "/v2/orders",
            json={
                "symbol": event["symbol"],
                "qty": str(order.quantity),
                "side": order.side,
                "type": "market",
                "time_in_force": "day",
                "client_order_id": order.client_order_id,
            },
        )
        answer.raise_for_status()
        await record(order.client_order_id, answer.json())


async def plan(close_request_id: str) -> Order | None:
    """The order of the request, durable before it is sent; None where it was answered before."""
    async with opened() as db, db.begin():
        client_order_id = f"cf-{close_request_id}"
        order = await db.get(Order, client_order_id, with_for_update=True)
        if order is None:
            request = await db.get_one(CloseRequest, close_request_id)
            now = datetime.now(UTC)
            order = Order(
                client_order_id=client_order_id,
                close_request_id=request.id,
                status="created",
                side=request.side,
                quantity=request.target_qty,
                filled_qty=Decimal(0),
                created_at=now,
                updated_at=now,
            )
            db.add(order)
        return order if order.broker_order_id is None else None


async def record(client_order_id: str, answer: dict[str, Any]) -> None:
    """Note the broker's id; the status only where the stream has not said more already."""
    async with opened() as db, db.begin():
        order = await db.get_one(Order, client_order_id, with_for_update=True)
        order.broker_order_id = answer["id"]
        if order.status == "created":
            order.status = "submitted"
            request = await db.get_one(CloseRequest, order.close_request_id, with_for_update=True)
            request.status = "submitted"
        order.updated_at = datetime.now(UTC)
