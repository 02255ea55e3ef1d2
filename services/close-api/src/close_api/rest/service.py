"""The routes for those who run the service: whether it can accept, its figures, and what it says of itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Literal

import orjson
from fastapi import FastAPI, Response
from fastapi.responses import HTMLResponse, PlainTextResponse
from pydantic import BaseModel
from starlette.requests import Request

from close_api.readiness import Readiness
from close_api.rest.documented import ANY, SERVICE, Described, headers_of, problems
from close_api.rest.openapi import describe
from close_api.rest.problems import ERROR_PAGE, error_page
from close_api.rest.responses import json_response
from closeflow.telemetry.metrics import EXPOSITION, exposed


class HealthAnswer(BaseModel):
    """The process answers."""

    status: Literal["ok"]


class ReadinessAnswer(BaseModel):
    """Whether closes can be accepted. `degraded` is ready: they are kept, and published later."""

    status: Literal["ready", "degraded", "unready"]
    reasons: list[str]


_TRACED: Final[Described] = {"headers": headers_of("Trace-Id")}


def add_service(app: FastAPI, ready: Callable[[], Awaitable[Readiness]]) -> None:
    """Probes ask with GET or with HEAD, whose answer is that to GET without its body."""

    @app.head("/healthz", include_in_schema=False)
    @app.get(
        "/healthz",
        tags=[SERVICE],
        summary="Whether the process answers",
        responses={200: {"description": "It does", "model": HealthAnswer, **_TRACED}, **problems(*ANY)},
    )
    async def get_health(_request: Request) -> Response:
        return json_response(b'{"status":"ok"}')

    @app.head("/readyz", include_in_schema=False)
    @app.get(
        "/readyz",
        tags=[SERVICE],
        summary="Whether closes can be accepted",
        responses={
            200: {"description": "They can", "model": ReadinessAnswer, **_TRACED},
            503: {"description": "They cannot; the reasons say why", "model": ReadinessAnswer, **_TRACED},
            **problems(*ANY),
        },
    )
    async def get_readiness(_request: Request) -> Response:
        state = await ready()
        body = orjson.dumps({"status": state.status, "reasons": state.reasons})
        return json_response(body, 503 if state.status == "unready" else 200)

    _add_pages(app)


def _add_pages(app: FastAPI) -> None:
    document: list[bytes] = []

    @app.head("/openapi.json", include_in_schema=False)
    @app.get(
        "/openapi.json",
        tags=[SERVICE],
        summary="This document",
        responses={200: {"description": "OpenAPI 3.1", **_TRACED}, **problems(*ANY)},
    )
    async def get_openapi(_request: Request) -> Response:
        if not document:
            document.append(orjson.dumps(describe(app)))
        return json_response(document[0])

    @app.head("/metrics", include_in_schema=False)
    @app.get(
        "/metrics",
        tags=[SERVICE],
        summary="Figures for Prometheus",
        response_class=PlainTextResponse,
        responses={200: {"description": "Every metric now", **_TRACED}, **problems(*ANY)},
    )
    async def get_metrics(_request: Request) -> Response:
        return Response(exposed(), media_type=EXPOSITION)

    @app.head(ERROR_PAGE, include_in_schema=False)
    @app.get(
        ERROR_PAGE,
        tags=[SERVICE],
        summary="What each error code means",
        response_class=HTMLResponse,
        responses={200: {"description": "A table, with the codes as anchors", **_TRACED}, **problems(*ANY)},
    )
    async def get_errors(_request: Request) -> Response:
        return Response(error_page(), media_type="text/html")
