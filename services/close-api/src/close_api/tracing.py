"""One span per request: read from `traceparent` or begun here, and named to the caller in the header `trace-id`."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from closeflow.telemetry import TraceContext, in_trace, parse_traceparent
from closeflow.telemetry.spans import Kind, Span, is_tracing, new_context

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
        caller = parse_traceparent(given.decode("latin-1") if given else None)
        trace = new_context(caller)
        scope[_KEY] = trace
        headers = scope[_HEADERS] = [(_HEADER, trace.trace_id.encode())]

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *headers]
            await send(message)

        with in_trace(trace):
            if not is_tracing():
                await self._app(scope, receive, named)
                return
            span = Span(name=scope["method"], context=trace, parent=caller, kind=Kind.SERVER)
            try:
                await self._app(scope, receive, _noting(named, span))
            finally:
                _end(span, scope)


def _noting(send: Send, span: Span) -> Send:
    async def noting(message: Message) -> None:
        if message["type"] == "http.response.start":
            span.attributes["http.response.status_code"] = message["status"]
        await send(message)

    return noting


def _end(span: Span, scope: Scope) -> None:
    span.attributes["http.request.method"] = scope["method"]
    span.attributes["url.scheme"] = scope["scheme"]
    route = getattr(scope.get("route"), "path", None)
    if route is not None:
        span.name = f"{scope['method']} {route}"
        span.attributes["http.route"] = route
    status = int(span.attributes.get("http.response.status_code", HTTPStatus.INTERNAL_SERVER_ERROR))
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        span.fail(f"answered {status}")
    span.end()


def trace_of(request: Request) -> TraceContext:
    """The span of the call, which `Traced` has put there."""
    trace: TraceContext = request.scope[_KEY]
    return trace


def answer_with(request: Request, headers: Mapping[str, str]) -> None:
    """These headers go with the answer, whatever it will be."""
    request.scope[_HEADERS] += [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
