"""The websocket `/stream`: Alpaca's two forms of authentication, `listen`, and trade updates to every listener.

Like Alpaca's it does not replay: what happens while nobody listens is only in REST.
"""

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import orjson
import structlog
from starlette.websockets import WebSocket, WebSocketDisconnect

from .behaviour import StreamFaults

log = structlog.get_logger()

_QUEUE_LIMIT: Final = 100_000


@dataclass(eq=False, slots=True)
class Listener:
    """One connection; what it does not read in time fills its queue, and then it is cut off."""

    socket: WebSocket
    authorized: bool = False
    listening: bool = False
    outbox: asyncio.Queue[bytes] = field(default_factory=lambda: asyncio.Queue(_QUEUE_LIMIT))

    def cut(self) -> None:
        """Drop the connection without a closing handshake, as a failing network does."""
        transport: asyncio.Transport = self.socket.scope["state"]["transport"]
        transport.abort()


class TradeStream:
    """Everything that is told goes to each listener in one order; nothing is replayed."""

    def __init__(self, *, key_id: str, secret_key: str, frames: Literal["binary", "text"]) -> None:
        self._credentials = (key_id, secret_key)
        self._frames = frames
        self._listeners: set[Listener] = set()
        self._refuse_until = 0.0
        self._silent_until = 0.0
        self._delayed: deque[asyncio.TimerHandle] = deque(maxlen=_QUEUE_LIMIT)
        self._withheld: dict[str, list[tuple[bytes, StreamFaults]]] = {}

    @property
    def listeners(self) -> int:
        """How many connections are subscribed."""
        return sum(listener.listening for listener in self._listeners)

    def drop(self, refuse_for_s: float) -> int:
        """Cut every connection and refuse new ones for a while; returns how many were cut."""
        self._refuse_until = time.monotonic() + refuse_for_s
        cut = list(self._listeners)
        for listener in cut:
            listener.cut()
        log.info("stream_dropped", connections=len(cut), refuse_for_s=refuse_for_s)
        return len(cut)

    def silence(self, for_s: float) -> None:
        """Keep the connections, but lose every update for a while."""
        self._silent_until = time.monotonic() + for_s

    def heal(self) -> None:
        """End a drop or a silence now, and send what reordering still withholds."""
        self._refuse_until = self._silent_until = 0.0
        for order_id in list(self._withheld):
            self._release(order_id)

    def forget(self) -> None:
        """Drop what is withheld or delayed, and end every fault."""
        self._withheld.clear()
        for delayed in self._delayed:
            delayed.cancel()
        self._delayed.clear()
        self.heal()

    def publish(self, order_id: str, data: Mapping[str, object], faults: StreamFaults, *, order_done: bool) -> None:
        """Queue one update to every listener, as this order's faults say. Call after the commit."""
        if faults.lose:
            return
        message = orjson.dumps({"stream": "trade_updates", "data": data})
        if faults.reorder:
            withheld = self._withheld.setdefault(order_id, [])
            withheld.append((message, faults))
            if order_done:
                self._release(order_id)
            elif len(withheld) == 1:
                asyncio.get_running_loop().call_later(faults.hold_s, self._release, order_id)
        else:
            self._send(message, faults)

    def _release(self, order_id: str) -> None:
        for message, faults in reversed(self._withheld.pop(order_id, [])):
            self._send(message, faults)

    def _send(self, message: bytes, faults: StreamFaults) -> None:
        if faults.delay_s:
            loop = asyncio.get_running_loop()
            self._delayed.append(loop.call_later(faults.delay_s, self._queue, message, faults.copies))
        else:
            self._queue(message, faults.copies)

    def _queue(self, message: bytes, copies: int) -> None:
        if time.monotonic() < self._silent_until:
            return
        for listener in list(self._listeners):
            if listener.listening:
                for _ in range(copies):
                    self._put(listener, message)

    def _put(self, listener: Listener, message: bytes) -> None:
        try:
            listener.outbox.put_nowait(message)
        except asyncio.QueueFull:
            log.warning("slow_listener_cut", waiting=listener.outbox.qsize())
            listener.cut()

    async def serve(self, socket: WebSocket) -> None:
        """One connection, until it ends."""
        if time.monotonic() < self._refuse_until:
            await socket.close()
            return
        await socket.accept()
        listener = Listener(socket)
        self._listeners.add(listener)
        writer = asyncio.create_task(self._write(listener))
        try:
            while True:
                message = await socket.receive()
                if message["type"] == "websocket.disconnect":
                    break
                self._answer(listener, message.get("text") or message.get("bytes") or b"")
        finally:
            self._listeners.discard(listener)
            writer.cancel()

    async def _write(self, listener: Listener) -> None:
        try:
            while True:
                message = await listener.outbox.get()
                if self._frames == "binary":
                    await listener.socket.send_bytes(message)
                else:
                    await listener.socket.send_text(message.decode())
        except (WebSocketDisconnect, RuntimeError):
            self._listeners.discard(listener)

    def _answer(self, listener: Listener, text: str | bytes) -> None:
        try:
            request = orjson.loads(text)
        except orjson.JSONDecodeError:
            request = None
        action = request.get("action") if isinstance(request, dict) else None
        match action:
            case "auth":
                self._authorize(listener, request.get("key"), request.get("secret"))
            case "authenticate":
                data = _object(request.get("data"))
                self._authorize(listener, data.get("key_id"), data.get("secret_key"))
            case "listen" if listener.authorized:
                streams = _object(request.get("data")).get("streams")
                listener.listening = isinstance(streams, list) and "trade_updates" in streams
                log.info("listener_subscribed", listening=listener.listening)
                known = ["trade_updates"] if listener.listening else []
                self._put(listener, orjson.dumps({"stream": "listening", "data": {"streams": known}}))
            case "listen":
                self._put(listener, _authorization("listen", authorized=False))
            case _:
                error = {"action": "error", "data": {"error_message": "unknown action: use authenticate or listen"}}
                self._put(listener, orjson.dumps(error))

    def _authorize(self, listener: Listener, key_id: object, secret_key: object) -> None:
        listener.authorized = (key_id, secret_key) == self._credentials
        self._put(listener, _authorization("authenticate", authorized=listener.authorized))


def _authorization(action: str, *, authorized: bool) -> bytes:
    status = "authorized" if authorized else "unauthorized"
    return orjson.dumps({"stream": "authorization", "data": {"action": action, "status": status}})


def _object(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}
