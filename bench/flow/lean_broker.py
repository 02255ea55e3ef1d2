"""A broker that costs next to nothing: Alpaca's shapes, everything in memory, orders fill at once.

Run as a process: `lean_broker.py <port> <stream port> <seconds per order call>`; the symbols come on stdin, apart by
blanks. Each is a stock that is held ten times and quoted 99.99 to 100.01. `GET /sent` says how many orders came, and
how many came twice.
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, cast
from urllib.parse import parse_qs, unquote, urlsplit

import orjson
import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

HELD: Final = 10
PRICE: Final = "100"
_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"


def now() -> str:
    """RFC 3339 with microseconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Book:
    """Orders by both ids, executions in their order, and what is held."""

    def __init__(self, symbols: Sequence[str]) -> None:
        self.held = dict.fromkeys(symbols, HELD)
        self.orders: dict[str, dict[str, Any]] = {}
        self.by_client_id: dict[str, dict[str, Any]] = {}
        self.fills: list[dict[str, str]] = []
        self.places: dict[str, int] = {}
        """By an execution's id, where it is in `fills`."""
        self.repeated = 0
        self.listeners: set[ServerConnection] = set()

    def take(self, ticket: Mapping[str, str]) -> dict[str, Any] | None:
        """The order as accepted; None where its client order id is taken."""
        if ticket["client_order_id"] in self.by_client_id:
            self.repeated += 1
            return None
        at = now()
        order: dict[str, Any] = {
            "id": str(uuid.uuid4()),
            "asset_class": "us_equity",
            "created_at": at,
            "submitted_at": at,
            "updated_at": at,
            "filled_at": None,
            "filled_qty": "0",
            "filled_avg_price": None,
            "status": "pending_new",
            **ticket,
        }
        self.orders[order["id"]] = self.by_client_id[order["client_order_id"]] = order
        return order

    def fill(self, order: dict[str, Any]) -> None:
        """Move it to new and to filled, and tell the listeners of both."""
        order |= {"status": "new", "updated_at": now()}
        self._tell({"event": "new", "timestamp": order["updated_at"], "order": order})
        sells = order["side"] == "sell"
        self.held[order["symbol"]] = held = self.held.get(order["symbol"], 0) + int(order["qty"]) * (-1 if sells else 1)
        at, execution = now(), str(uuid.uuid4())
        order |= {"filled_qty": order["qty"], "filled_avg_price": PRICE, "filled_at": at, "updated_at": at}
        order["status"] = "filled"
        self.places[execution] = len(self.fills)
        self.fills.append(
            {
                "id": execution,
                "activity_type": "FILL",
                "type": "fill",
                "transaction_time": at,
                "order_id": order["id"],
                "symbol": order["symbol"],
                "side": order["side"],
                "qty": order["qty"],
                "price": PRICE,
                "cum_qty": order["qty"],
                "leaves_qty": "0",
            }
        )
        said = {"execution_id": execution, "qty": order["qty"], "price": PRICE, "position_qty": str(held)}
        self._tell({"event": "fill", "timestamp": at, "order": order, **said})

    def _tell(self, data: Mapping[str, object]) -> None:
        broadcast(self.listeners, orjson.dumps({"stream": "trade_updates", "data": data}))

    def answer(self, path: str, query: Mapping[str, list[str]]) -> object:
        """What a GET shows; None where there is nothing."""
        head, _, name = path.rpartition("/")
        match head:
            case "/v2/stocks/quotes" | "/v2/stocks/trades":
                one = {"t": now(), "bp": 99.99, "ap": 100.01, "p": 100.0}
                return {head.rpartition("/")[2]: dict.fromkeys(query["symbols"][0].split(","), one)}
            case "/v2/orders":
                return self.orders.get(name)
            case "/v2/positions":
                return _position(name, self.held[name]) if self.held.get(name) else None
            case "/v2/assets":
                return {"symbol": name, "status": "active"}
        match path:
            case "/v2/clock":
                later = (datetime.now(UTC) + timedelta(hours=4)).isoformat()
                return {"timestamp": now(), "is_open": True, "next_open": later, "next_close": later}
            case "/v2/orders:by_client_order_id":
                return self.by_client_id.get(query["client_order_id"][0])
            case "/v2/orders":
                ended = query.get("status") != ["open"]
                newest = (one for one in reversed(self.orders.values()) if ended or one["status"] != "filled")
                return [one for one, _ in zip(newest, range(500), strict=False)]
            case "/v2/positions":
                return [_position(symbol, held) for symbol, held in self.held.items() if held]
            case "/v2/account/activities/FILL":
                return self._fills_after(query)
            case "/v2/account/activities":
                return []
            case "/sent":
                return {"orders": len(self.orders), "repeated": self.repeated}
        return None

    def _fills_after(self, query: Mapping[str, list[str]]) -> list[dict[str, str]]:
        size = int(query.get("page_size", ["100"])[0])
        after = datetime.fromisoformat(query["after"][0]).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        begin = bisect_right(self.fills, after, key=lambda one: one["transaction_time"])
        if "page_token" in query:
            begin = max(begin, 1 + self.places[query["page_token"][0]])
        return self.fills[begin : begin + size]


def _position(symbol: str, held: int) -> dict[str, str]:
    side = "long" if held > 0 else "short"
    return {"symbol": symbol, "asset_class": "us_equity", "qty": str(held), "side": side, "avg_entry_price": PRICE}


class Connection(asyncio.Protocol):
    """One keep-alive connection; requests that come while one waits are answered after it."""

    def __init__(self, book: Book, call_s: float) -> None:
        self._book = book
        self._call_s = call_s
        self._received = b""
        self._waits = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Answers go there."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Handle what is complete."""
        self._received += data
        while not self._waits:
            head, end, rest = self._received.partition(_END)
            if not end:
                return
            length = 0
            at = head.lower().find(_LENGTH)
            if at >= 0:
                length = int(head[at + len(_LENGTH) :].split(b"\r\n", 1)[0])
            if len(rest) < length:
                return
            self._received = rest[length:]
            self._handle(head, rest[:length])

    def _handle(self, head: bytes, body: bytes) -> None:
        method, target, _ = head.split(b" ", 2)
        if method == b"POST":
            self._waits = True
            if self._call_s:
                asyncio.get_running_loop().call_later(self._call_s, self._take, body)
            else:
                self._take(body)
            return
        if method == b"DELETE":
            self._reply(422, {"code": 42210000, "message": "order is not cancelable"})
            return
        url = urlsplit(target.decode())
        found = self._book.answer(unquote(url.path), parse_qs(url.query))
        if found is None:
            what = "position does not exist" if b"/positions/" in target else "order not found"
            self._reply(404, {"code": 40410000, "message": what})
        else:
            self._reply(200, found)

    def _take(self, body: bytes) -> None:
        order = self._book.take(orjson.loads(body))
        if order is None:
            self._reply(422, {"code": 40010001, "message": "client_order_id must be unique"})
        else:
            self._reply(200, order)
            self._book.fill(order)
        self._waits = False
        if self._received:
            self.data_received(b"")

    def _reply(self, status: int, content: object) -> None:
        body = orjson.dumps(content)
        self._transport.write(
            b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (status, len(body), body)
        )


async def listen(book: Book, socket: ServerConnection) -> None:
    """Alpaca's stream: any key is right, and there is one stream."""
    async for message in socket:
        said = orjson.loads(message)
        if said.get("action") == "auth":
            answer = {"stream": "authorization", "data": {"status": "authorized", "action": "authenticate"}}
        else:
            answer = {"stream": "listening", "data": {"streams": ["trade_updates"]}}
            book.listeners.add(socket)
        await socket.send(orjson.dumps(answer))
    book.listeners.discard(socket)


async def run(port: int, stream_port: int, call_s: float, symbols: Sequence[str]) -> None:
    """Until it is killed."""
    book = Book(symbols)
    loop = asyncio.get_running_loop()
    await loop.create_server(partial(Connection, book, call_s), "127.0.0.1", port)
    async with serve(partial(listen, book), "127.0.0.1", stream_port, compression=None):
        await asyncio.Future()


if __name__ == "__main__":
    port, stream_port, call_s = sys.argv[1:]
    uvloop.run(run(int(port), int(stream_port), float(call_s), sys.stdin.read().split()))
