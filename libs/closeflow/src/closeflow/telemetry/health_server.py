"""`/healthz`, `/readyz` and `/metrics` of a service that has no web server of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

import orjson

from closeflow.telemetry.metrics import EXPOSITION, exposed

Readiness = Callable[[], Awaitable[Mapping[str, str | None]]]
"""What the service needs, by name: None when it is there, else what is wrong with it."""

_READ_DEADLINE_S: Final = 5.0
_LOOK_DEADLINE_S: Final = 2.0
_MAX_REQUEST_BYTES: Final = 8192
_JSON: Final = "application/json"


async def always_ready() -> Mapping[str, str | None]:
    """For a service whose readiness is that it runs."""
    return {}


@asynccontextmanager
async def serve_health(host: str, port: int, readiness: Readiness = always_ready) -> AsyncIterator[int]:
    """Serve while the context is open; gives the port, which differs from `port` when that is 0.

    `/healthz` is 200 while the event loop turns; `/readyz` is 503 with the reasons when something needed is missing.
    """
    looks = _Looks(readiness)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_READ_DEADLINE_S):
                request = await reader.readuntil(b"\r\n\r\n")
                writer.write(_response(request, *await _route(request, looks)))
                await writer.drain()
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # A caller that does not finish its request gets no answer.
        finally:
            writer.close()

    server = await asyncio.start_server(answer, host, port, limit=_MAX_REQUEST_BYTES)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


class _Looks:
    """One look at a time: one that hangs, because a server is frozen, is an answer too, and others do not join it."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness
        self._look: asyncio.Future[Mapping[str, str | None]] | None = None

    async def missing(self) -> dict[str, str]:
        if self._look is None or self._look.done():
            self._look = asyncio.ensure_future(self._readiness())
        look = self._look  # Another caller may begin the next one while this is waited for.
        done, _ = await asyncio.wait({look}, timeout=_LOOK_DEADLINE_S)
        if not done:
            return {"readiness": f"what it asks has not answered for {_LOOK_DEADLINE_S:.0f} s"}
        if look.cancelled() or (error := look.exception()) is not None:
            return {"readiness": "cannot be told" if look.cancelled() else f"{type(error).__name__}: {error}"}
        return {name: why for name, why in look.result().items() if why is not None}


async def _route(request: bytes, looks: _Looks) -> tuple[str, str, bytes]:
    method, target, *_ = [*request.split(b"\r\n", 1)[0].split(b" "), b"", b""]
    if method not in (b"GET", b"HEAD"):
        return "405 Method Not Allowed", _JSON, b'{"error":"only GET and HEAD are answered here"}'
    match target.split(b"?", 1)[0]:
        case b"/healthz":
            return "200 OK", _JSON, b'{"status":"ok"}'
        case b"/readyz":
            missing = await looks.missing()
            if missing:
                return "503 Service Unavailable", _JSON, orjson.dumps({"status": "unready", "missing": missing})
            return "200 OK", _JSON, b'{"status":"ready"}'
        case b"/metrics":
            return "200 OK", EXPOSITION, exposed()
        case _:
            return "404 Not Found", _JSON, b'{"error":"try /healthz, /readyz or /metrics"}'


def _response(request: bytes, status: str, content_type: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if request.startswith(b"HEAD ") else body)
