"""A server that answers as the script says, and the adapter that speaks with it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal

from closeflow.broker.alpaca import AlpacaBroker
from closeflow.broker.budget import CallBudget
from closeflow.domain.model import OrderType, Side, TimeInForce
from closeflow.domain.sending.ticket import Ticket

TICKET = Ticket(
    client_order_id="cf-0190a1b2c3d47e5f8091a2b3c4d5e6f7-1",
    account_id="acc-1",
    symbol="AAPL",
    side=Side.SELL,
    quantity=Decimal("10.50"),
    order_type=OrderType.LIMIT,
    time_in_force=TimeInForce.DAY,
    limit_price=Decimal("1.9E+2"),
)
ORDER: dict[str, object] = {
    "id": "order-1",
    "client_order_id": TICKET.client_order_id,
    "symbol": "AAPL",
    "side": "sell",
    "qty": "10.5",
    "filled_qty": "0",
    "status": "new",
    "submitted_at": "2026-03-02T15:00:00Z",
    "updated_at": "2026-03-02T15:00:00Z",
}


@dataclass
class Server:
    """What it was asked, oldest first: the head of the request, then its body."""

    url: str
    requests: list[tuple[str, bytes]] = field(default_factory=list)

    def target(self, n: int = -1) -> str:
        return self.requests[n][0].split(" ")[1]


Step = Callable[[asyncio.StreamWriter], Awaitable[None]]


def answer(status: int, body: object = b"", *headers: str) -> Step:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = [f"HTTP/1.1 {status} x", f"Content-Length: {len(raw)}", *headers, "", ""]

    async def write(writer: asyncio.StreamWriter) -> None:
        writer.write("\r\n".join(head).encode() + raw)
        await writer.drain()

    return write


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def stay_silent(_: asyncio.StreamWriter) -> None:
    await asyncio.get_running_loop().create_future()


async def break_off(writer: asyncio.StreamWriter) -> None:
    writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"id": "order-1"')
    await writer.drain()
    writer.close()


async def trickle(writer: asyncio.StreamWriter) -> None:
    """A byte now and then: no single read ever times out."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")
    while not writer.is_closing():
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


@asynccontextmanager
async def serving(*steps: Step) -> AsyncIterator[Server]:
    """Answers the n-th request by the n-th step, later ones by the last."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not writer.is_closing():
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                sizes = [int(line.split(":")[1]) for line in head.lower().split("\r\n") if "content-length" in line]
                body = await reader.readexactly(sizes[0]) if sizes else b""
                state.requests.append((head, body))
                await steps[min(len(state.requests), len(steps)) - 1](writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(serve(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    state = Server(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    try:
        yield state
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)


@asynccontextmanager
async def broker_at(
    url: str, *, deadline_s: float = 5.0, connections: int = 4, budget: CallBudget | None = None
) -> AsyncIterator[AlpacaBroker]:
    broker = AlpacaBroker(
        base_url=url,
        market_data_url=url,
        key_id="key",
        secret_key="secret",
        account_id="acc-1",
        deadline_s=deadline_s,
        connections=connections,
        budget=budget,
    )
    try:
        yield broker
    finally:
        await broker.aclose()
