"""The REST door: it reads a call, hands it to the use case, and writes the answer. It decides nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import orjson
import structlog
from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp

from close_api.doors import Doors
from close_api.errors import Code, Problem
from close_api.readiness import Readiness
from close_api.rest.closes import CloseRoutes, add_closes
from close_api.rest.openapi import describe
from close_api.rest.problems import ERROR_PAGE, error_page, problem_response
from close_api.rest.responses import json_response
from close_api.rest.routes import DirectRoute, Door
from close_api.rest.states import StateRoutes, add_states
from close_api.tracing import Traced, trace_of
from close_api.use_cases.closing import CLOSES

log = structlog.get_logger(__name__)

_LOOKS: Final = ["GET", "HEAD"]
"""Probes ask with either; the answer to HEAD is that to GET without its body."""


def build_app(doors: Doors) -> ASGIApp:
    """The application, with every answer named by its trace id."""
    return Traced(routed(doors))


def routed(doors: Doors) -> FastAPI:
    """The routes, as the OpenAPI describes them."""
    app = FastAPI(
        title="close-api",
        version="1",
        description="Accepts closes of trading positions, each once.",
        redirect_slashes=False,  # A redirect would repeat whatever host the caller named.
        openapi_url=None,
        exception_handlers={Problem: _on_problem, HTTPException: _on_http_error, Exception: _on_defect},
    )
    app.router.route_class = DirectRoute
    door = Door(doors.identity, doors.rates)
    add_closes(app, CloseRoutes(door, doors.closing, doors.cancelling, doors.deadline_s))
    add_states(app, StateRoutes(door, doors.reading, doors.stopping))
    _add_service(app, doors.ready)
    return app


def _add_service(app: FastAPI, ready: Callable[[], Awaitable[Readiness]]) -> None:
    @app.api_route("/healthz", methods=_LOOKS, summary="200 while the process turns", include_in_schema=False)
    async def healthz(_request: Request) -> Response:
        return json_response(b'{"status":"ok"}')

    @app.api_route("/readyz", methods=_LOOKS, summary="Whether closes can be accepted", include_in_schema=False)
    async def readyz(_request: Request) -> Response:
        state = await ready()
        body = orjson.dumps({"status": state.status, "reasons": state.reasons})
        return json_response(body, 503 if state.status == "unready" else 200)

    @app.api_route("/openapi.json", methods=_LOOKS, include_in_schema=False)
    async def openapi(_request: Request) -> Response:
        return json_response(orjson.dumps(describe(app)))

    @app.api_route("/metrics", methods=_LOOKS, include_in_schema=False)
    async def metrics(_request: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    @app.api_route(ERROR_PAGE, methods=_LOOKS, summary="What each error means", include_in_schema=False)
    async def errors(_request: Request) -> Response:
        return Response(error_page(), media_type="text/html")


async def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    if request.method == "POST":
        CLOSES.labels(error.code.value).inc()
    return problem_response(request, error)


async def _on_http_error(request: Request, error: Exception) -> Response:
    """What the router itself refuses: an unknown address, or a method that the address lacks."""
    assert isinstance(error, HTTPException)
    code = Code.METHOD_NOT_ALLOWED if error.status_code == 405 else Code.NOT_FOUND
    return problem_response(request, Problem(code, headers=error.headers))


async def _on_defect(request: Request, error: Exception) -> Response:
    log.error("request_failed", trace_id=trace_of(request).trace_id, path=request.url.path, exc_info=error)
    return problem_response(request, Problem(Code.INTERNAL_ERROR))
