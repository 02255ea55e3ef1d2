"""The ASGI application: Alpaca's routes behind the edge, the stream, and what is the simulator's own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from .answers import Json, refusal_answer
from .control_api import control_app
from .edge import Edge, Outages
from .errors import Refusal, no_such_endpoint
from .exchange import Exchange
from .market_data_api import MARKET_DATA_ROUTES
from .trading_api import TRADING_ROUTES

log = structlog.get_logger()


async def healthz(request: Request) -> Response:
    """200 while the process turns."""
    return Json({"status": "ok"})


async def stream(socket: WebSocket) -> None:
    """The trade updates, over a websocket."""
    await socket.app.state.exchange.stream.serve(socket)


async def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 404:
        return refusal_answer(no_such_endpoint(request.url.path))
    return refusal_answer(Refusal(status, status * 100_000, f"{request.method} {request.url.path}: not possible"))


async def _tick(exchange: Exchange, every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        exchange.tick()


def build_app(exchange: Exchange, *, key_id: str, secret_key: str, tick_s: float) -> Edge:
    """The whole application; orders are matched every `tick_s` seconds while it runs."""
    outages = Outages()

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        exchange.resume()
        ticking = asyncio.create_task(_tick(exchange, tick_s))
        try:
            yield
        finally:
            ticking.cancel()

    routes = [
        *TRADING_ROUTES,
        *MARKET_DATA_ROUTES,
        Route("/healthz", healthz),
        WebSocketRoute("/stream", stream),
        Mount("/control", control_app(exchange, outages)),
    ]
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: _http_error})
    app.state.exchange = exchange
    return Edge(app, exchange, outages, key_id=key_id, secret_key=secret_key)
