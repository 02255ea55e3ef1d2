"""One span per request: read from `traceparent` or begun here, and named to the caller in the header `trace-id`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from closeflow.telemetry import TraceContext, next_span, parse_traceparent

_KEY: Final = "closeflow.trace"
_HEADERS: Final = "closeflow.headers"
_TRACEPARENT: Final = b"traceparent"
_HEADER: Final = b"trace-id"


class Traced:
    """An ASGI application whose every HTTP answer has the header `trace-id`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Put the span into the scope, where `trace_of` finds it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == _TRACEPARENT), None)
        trace = next_span(parse_traceparent(given.decode("latin-1") if given else None), os.urandom(24))
        scope[_KEY] = trace
        headers = scope[_HEADERS] = [(_HEADER, trace.trace_id.encode())]

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *headers]
            await send(message)

        await self._app(scope, receive, named)


def trace_of(request: Request) -> TraceContext:
    """The span of the call, which `Traced` has put there."""
    trace: TraceContext = request.scope[_KEY]
    return trace


def answer_with(request: Request, headers: Mapping[str, str]) -> None:
    """These headers go with the answer, whatever it will be."""
    request.scope[_HEADERS] += [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
