"""The trade-update stream against a websocket server that behaves as Alpaca's, and as it should not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.server import ServerConnection, serve

from closeflow.broker.alpaca.parse import Account
from closeflow.broker.alpaca.stream import StreamTarget, trade_updates
from closeflow.broker.trade_updates import StreamDenied, StreamLost, Unreadable
from closeflow.domain.model import BrokerUpdate, ExecType

AUTHORIZED = {"stream": "authorization", "data": {"status": "authorized", "action": "authenticate"}}
UNAUTHORIZED = {"stream": "authorization", "data": {"status": "unauthorized", "action": "authenticate"}}
LISTENING = {"stream": "listening", "data": {"streams": ["trade_updates"]}}
NEW = {
    "stream": "trade_updates",
    "data": {
        "event": "new",
        "timestamp": "2026-03-02T15:00:00Z",
        "order": {
            "id": "order-1",
            "client_order_id": "mine",
            "symbol": "AAPL",
            "side": "sell",
            "qty": "1",
            "filled_qty": "0",
            "status": "new",
            "updated_at": "2026-03-02T15:00:00Z",
        },
    },
}

Talk = Callable[[ServerConnection], Awaitable[None]]


@asynccontextmanager
async def serving(talk: Talk, *, open_timeout_s: float = 30.0, ping_s: float = 30.0) -> AsyncIterator[StreamTarget]:
    """Time is short only where a test is about its end."""
    async with serve(talk, "127.0.0.1", 0, ping_interval=None, close_timeout=0.2) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield StreamTarget(
            url=f"ws://127.0.0.1:{port}/stream",
            key_id="key",
            secret_key="secret",
            of=Account(broker="alpaca", account_id="acc-1"),
            open_timeout_s=open_timeout_s,
            ping_interval_s=ping_s,
            ping_timeout_s=ping_s,
        )


async def subscribe(socket: ServerConnection) -> None:
    assert json.loads(await socket.recv()) == {"action": "auth", "key": "key", "secret": "secret"}
    await socket.send(json.dumps(AUTHORIZED).encode())
    assert json.loads(await socket.recv()) == {"action": "listen", "data": {"streams": ["trade_updates"]}}
    await socket.send(json.dumps(LISTENING).encode())


async def test_updates_come_from_text_and_binary_frames_until_the_stream_is_lost() -> None:
    async def talk(socket: ServerConnection) -> None:
        await subscribe(socket)
        await socket.send(json.dumps(NEW))
        await socket.send(json.dumps(NEW).encode())
        await socket.send("not json")
        await socket.close()

    async with serving(talk) as target, trade_updates(target) as messages:
        first, second, third = [await anext(messages) for _ in range(3)]
        assert isinstance(first, BrokerUpdate)
        assert isinstance(second, BrokerUpdate)
        assert first.exec_type is ExecType.NEW
        assert first.event_id == second.event_id
        assert isinstance(third, Unreadable)
        with pytest.raises(StreamLost):
            await anext(messages)


@pytest.mark.parametrize(
    "greeting",
    [
        [{"T": "success", "msg": "connected"}],
        [{"stream": "welcome"}, 1, None, [], "connected"],
        [],
        "connected",
        7,
        None,
        {"stream": None, "data": [1]},
        {"stream": "listening", "data": "not yet"},
    ],
)
async def test_frames_that_are_not_awaited_are_skipped(greeting: object) -> None:
    async def talk(socket: ServerConnection) -> None:
        await socket.send(json.dumps(greeting))
        await socket.send("hello")
        await socket.send(b"\xff\xfe")
        await socket.recv()
        await socket.send(json.dumps([greeting, AUTHORIZED]))
        await socket.recv()
        await socket.send(json.dumps([{"stream": "other"}, LISTENING]))
        await socket.send(json.dumps([{"stream": "other"}, NEW, NEW]))
        await socket.close()

    async with serving(talk) as target, trade_updates(target) as messages:
        first, second = [await anext(messages) for _ in range(2)]
        assert isinstance(first, BrokerUpdate)
        assert first == second or isinstance(second, BrokerUpdate)
        with pytest.raises(StreamLost):
            await anext(messages)


async def test_a_refused_key_is_told_apart_from_a_lost_stream() -> None:
    async def talk(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(json.dumps(UNAUTHORIZED))

    async with serving(talk) as target:
        with pytest.raises(StreamDenied):
            async with trade_updates(target):
                pytest.fail("entered without a subscription")


async def _no_answer(socket: ServerConnection) -> None:
    await socket.recv()
    await socket.wait_closed()


async def _hang_up(socket: ServerConnection) -> None:
    await socket.close()


async def _other_streams(socket: ServerConnection) -> None:
    await socket.recv()
    await socket.send(json.dumps(AUTHORIZED))
    await socket.recv()
    await socket.send(json.dumps({"stream": "listening", "data": {"streams": []}}))
    await socket.wait_closed()


@pytest.mark.parametrize("talk", [_no_answer, _hang_up, _other_streams])
async def test_without_a_confirmed_subscription_the_stream_is_lost(talk: Talk) -> None:
    async with serving(talk, open_timeout_s=0.5) as target:
        with pytest.raises(StreamLost):
            async with trade_updates(target):
                pytest.fail("entered without a subscription")


async def test_a_connection_that_answers_no_ping_is_lost() -> None:
    async def talk(socket: ServerConnection) -> None:
        await subscribe(socket)
        socket.transport.pause_reading()
        await socket.wait_closed()

    async with serving(talk, ping_s=0.5) as target:
        with pytest.raises(StreamLost, match="keepalive ping timeout"):
            async with asyncio.timeout(30), trade_updates(target) as messages:
                await anext(messages)


async def test_nobody_listening_is_a_lost_stream() -> None:
    async with serving(_hang_up) as target:
        pass
    with pytest.raises(StreamLost):
        async with trade_updates(target):
            pytest.fail("entered without a server")
