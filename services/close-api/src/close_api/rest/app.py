"""The REST door: it reads a call, hands it to the use case, and writes the answer. It decides nothing."""

from __future__ import annotations

import structlog
from fastapi import FastAPI, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp

from close_api.doors import Doors
from close_api.errors import Code, Problem
from close_api.rest.closes import CLOSING, CloseRoutes, add_closes
from close_api.rest.documented import DESCRIPTION
from close_api.rest.operator import OperatorRoutes, add_operator_routes
from close_api.rest.overview import OverviewRoutes, add_overview
from close_api.rest.problems import problem_response
from close_api.rest.routes import DirectRoute, Door
from close_api.rest.service import add_service
from close_api.rest.states import StateRoutes, add_states
from close_api.tracing import Traced, trace_of
from close_api.use_cases.closing import CLOSES

log = structlog.get_logger(__name__)


def build_app(doors: Doors) -> ASGIApp:
    """The application, with every answer named by its trace id."""
    return Traced(routed(doors))


def routed(doors: Doors) -> FastAPI:
    """The routes, as the OpenAPI describes them."""
    app = FastAPI(
        title="close-api",
        version="1",
        description=DESCRIPTION,
        redirect_slashes=False,  # A redirect would repeat whatever host the caller named.
        openapi_url=None,
        generate_unique_id_function=_operation_id,
        exception_handlers={Problem: _on_problem, HTTPException: _on_http_error, Exception: _on_defect},
    )
    app.router.route_class = DirectRoute
    door = Door(doors.identity, doors.rates)
    add_closes(app, CloseRoutes(door, doors.closing, doors.cancelling, doors.deadline_s))
    add_states(app, StateRoutes(door, doors.reading, doors.stopping))
    add_overview(app, OverviewRoutes(door, doors.overview))
    add_operator_routes(app, OperatorRoutes(door, doors.operating, doors.deadline_s))
    add_service(app, doors.ready)
    return app


def _operation_id(route: APIRoute) -> str:
    return route.name


async def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    if getattr(request.scope.get("route"), "name", None) in CLOSING:
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
