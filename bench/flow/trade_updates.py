"""The broker's stream as the alternatives read it: Alpaca's trade updates over a websocket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import orjson
from websockets.asyncio.client import connect

LISTENING: Final = "listening to the broker"


async def trade_updates(url: str) -> AsyncIterator[dict[str, Any]]:
    """Every update from now on: event, the client order id, what is filled of the order, and of a fill its execution.
    It ends when the broker goes. Prints LISTENING once nothing can be missed."""
    async with connect(url, compression=None) as stream:
        await stream.send(orjson.dumps({"action": "auth", "key": "bench", "secret": "bench"}))
        await stream.recv()
        await stream.send(orjson.dumps({"action": "listen", "data": {"streams": ["trade_updates"]}}))
        await stream.recv()
        print(LISTENING, flush=True)
        async for message in stream:
            data = orjson.loads(message)["data"]
            order = data["order"]
            yield {
                "event": data["event"],
                "at": data["timestamp"],
                "client_order_id": order["client_order_id"],
                "broker_order_id": order["id"],
                "filled_qty": order["filled_qty"],
                "execution_id": data.get("execution_id"),
                "qty": data.get("qty"),
                "price": data.get("price"),
            }
