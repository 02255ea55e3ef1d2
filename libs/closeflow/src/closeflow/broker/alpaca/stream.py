"""Alpaca's trade-update stream: one subscription over one websocket, until either side ends it.

The stream does not replay and does not number its messages, so whoever reads it has to ask the broker for everything
it may have missed, after subscribing (before it, a fill in between would be in neither).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from closeflow.broker.alpaca import parse
from closeflow.broker.alpaca.client import utc_now
from closeflow.broker.alpaca.wire import read_json
from closeflow.broker.trade_updates import Message, StreamDenied, StreamLost, Unreadable
from closeflow.telemetry.metrics import counter
from closeflow.tls import SYSTEM_AUTHORITIES, BadPem, ClientTls

log = structlog.get_logger()

STREAM_MESSAGES: Final = counter("closeflow_broker_stream_messages_total")

_MAX_MESSAGE_BYTES: Final = 1024 * 1024
_MESSAGES_BUFFERED: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamTarget:
    """Where to subscribe, for which account, and how long each step of it may take."""

    url: str
    key_id: str
    secret_key: str
    of: parse.Account
    tls: ClientTls = SYSTEM_AUTHORITIES
    open_timeout_s: float = 5.0
    """Limit of each: connecting, the answer to the key, the answer to the subscription."""
    ping_interval_s: float = 5.0
    ping_timeout_s: float = 5.0
    """A quiet account sends nothing for hours, so only pings tell silence from a dead connection."""


@asynccontextmanager
async def trade_updates(
    target: StreamTarget, *, now: Callable[[], datetime] = utc_now
) -> AsyncIterator[AsyncIterator[Message]]:
    """Entered once the broker has confirmed the subscription. Entering and iterating raise `StreamLost`; the iteration
    never just ends."""
    try:
        socket = await connect(
            target.url,
            open_timeout=target.open_timeout_s,
            close_timeout=1.0,
            ping_interval=target.ping_interval_s,
            ping_timeout=target.ping_timeout_s,
            max_size=_MAX_MESSAGE_BYTES,
            max_queue=_MESSAGES_BUFFERED,
            # A proxy from the environment would be a setting that nobody sees.
            proxy=None,
            ssl=target.tls.context() if target.url.startswith("wss:") else None,
        )
    except (WebSocketException, OSError, BadPem) as error:
        raise StreamLost(f"{target.url}: {type(error).__name__}: {error}") from error
    try:
        try:
            await _subscribe(socket, target)
        except (WebSocketException, OSError, ValueError) as error:
            raise StreamLost(f"no subscription: {type(error).__name__}: {error}") from error
        yield _messages(socket, target.of, now)
    finally:
        await socket.close()


async def _subscribe(socket: ClientConnection, target: StreamTarget) -> None:
    await socket.send(json.dumps({"action": "auth", "key": target.key_id, "secret": target.secret_key}))
    answer = await _answer(socket, "authorization", target.open_timeout_s)
    if answer.get("status") != "authorized":
        raise StreamDenied(f"the stream answered {answer.get('status')!r} to our key")
    await socket.send(json.dumps({"action": "listen", "data": {"streams": ["trade_updates"]}}))
    answer = await _answer(socket, "listening", target.open_timeout_s)
    streams = answer.get("streams")
    if not isinstance(streams, list) or "trade_updates" not in streams:
        raise StreamLost(f"subscribed to trade_updates, got {streams!r}")


async def _answer(socket: ClientConnection, stream: str, timeout_s: float) -> parse.Json:
    """The control message awaited, alone or in an array. Whatever else comes before it is not for us: no update can
    precede its subscription."""
    async with asyncio.timeout(timeout_s):
        while True:
            for message in _objects(_bytes(await socket.recv())):
                if message.get("stream") == stream:
                    return parse.as_object(message.get("data"), "data")


def _objects(frame: bytes) -> Iterator[parse.Json]:
    try:
        found = read_json(frame)
    except ValueError:
        return
    yield from (one for one in (found if isinstance(found, list) else [found]) if isinstance(one, dict))


async def _messages(socket: ClientConnection, of: parse.Account, now: Callable[[], datetime]) -> AsyncIterator[Message]:
    while True:
        try:
            frame = await socket.recv()
        except WebSocketException as error:
            raise StreamLost(f"{type(error).__name__}: {error}") from error
        for message in read_frame(_bytes(frame), of=of, received_at=now()):
            yield message


def read_frame(frame: bytes, *, of: parse.Account, received_at: datetime) -> list[Message]:
    """What one frame, text and binary alike, says of orders: it holds one message, or an array of them. Nothing for
    what is not about an order (control messages), and for what cannot be read of an order that is not ours."""
    try:
        found = read_json(frame)
    except ValueError as error:
        return [_unreadable(error, frame)]
    read = (
        _read_one(one, frame, of=of, received_at=received_at) for one in (found if isinstance(found, list) else [found])
    )
    return [message for message in read if message is not None]


def _read_one(found: object, frame: bytes, *, of: parse.Account, received_at: datetime) -> Message | None:
    order: object = None
    try:
        message = parse.as_object(found, "message")
        if message.get("stream") != "trade_updates":
            return None
        data = parse.as_object(message.get("data"), "data")
        order = data.get("order")
        update = parse.trade_update(data, of=of, received_at=received_at)
    except ValueError as error:
        if isinstance(order, dict) and parse.is_foreign(order):
            STREAM_MESSAGES.labels("foreign").inc()
            log.warning("foreign_update_passed_over", client_order_id=order["client_order_id"], reason=str(error))
            return None
        return _unreadable(error, frame)
    known = data["event"] in parse.EVENTS
    STREAM_MESSAGES.labels("read" if known else "unknown_event").inc()
    if not known:
        log.warning("trade_event_not_known", trade_event=data["event"], client_order_id=update.client_order_id)
    return update


def _unreadable(error: ValueError, frame: bytes) -> Unreadable:
    STREAM_MESSAGES.labels("unreadable").inc()
    log.error("trade_update_not_readable", reason=str(error), start=frame[:200].decode(errors="replace"))
    return Unreadable(str(error))


def _bytes(frame: str | bytes) -> bytes:
    return frame.encode() if isinstance(frame, str) else frame
