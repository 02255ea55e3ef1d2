"""The REST door: it reads a call, hands it to the use-case, and writes the answer. It decides nothing."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST, Counter, generate_latest
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from close_api.auth import Caller, identify
from close_api.batching import Batches, Overloaded
from close_api.errors import Code, Problem, problem_of
from close_api.readiness import look
from close_api.rest.request_body import (
    MAX_POSITION_ID,
    CloseBody,
    read_close,
    read_key,
    read_position_id,
    read_request_id,
)
from close_api.rest.responses import (
    CloseAnswer,
    ErrorAnswer,
    PositionAnswer,
    close_json,
    json_response,
    position_json,
    problem_response,
)
from close_api.rest.unread_input import refuse_what_is_not_read
from close_api.tracing import Traced, trace_of
from closeflow.clock import timeout, utc_now
from closeflow.contracts.ids import new_close_request_id
from closeflow.domain.close.accept import Accepted, CloseCommand, Decision, Replayed
from closeflow.domain.model import AssetType
from closeflow.storage.close_requests import (
    DatabaseAway,
    Engine,
    LockedElsewhere,
    RowRefused,
    Tx,
    find_position,
    find_request,
    transact,
)
from closeflow.storage.core.engine import CommitUnknown

CLOSES: Final = Counter("close_api_closes_total", "Calls to close a position, by the answer", ["answer"])

log = structlog.get_logger(__name__)

_POSITION_PARAMETER: Final = {
    "name": "position_id",
    "in": "path",
    "required": True,
    "schema": {"type": "integer", "format": "int64", "minimum": 1, "maximum": MAX_POSITION_ID},
}
_LOOKS: Final = ["GET", "HEAD"]
"""Probes ask with either; the answer to HEAD is that to GET without its body."""
_REQUEST_PARAMETER: Final = {
    "name": "close_request_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "format": "uuid"},
}
_CLOSE_CALL: Final[dict[str, Any]] = {
    "parameters": [
        _POSITION_PARAMETER,
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": True,
            "description": "One value per close that is meant; bare or in double quotes.",
            "schema": {"type": "string", "minLength": 1, "maxLength": 102},
        },
    ],
    "requestBody": {"required": False, "content": {"application/json": {"schema": CloseBody.model_json_schema()}}},
}


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorAnswer} for status in statuses}


_CLOSE_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"model": CloseAnswer, "description": "The key was used for this close before; its state now"},
    201: {"model": CloseAnswer, "description": "Accepted"},
    **_errors(400, 404, 408, 409, 411, 413, 415, 417, 422, 503),
}


@dataclass(frozen=True, slots=True)
class Api:
    """What the routes need; `deadline_s` bounds the reading of a body, and again the wait for an answer."""

    engine: Engine
    closes: Batches[CloseCommand, Decision]
    slot: str
    deadline_s: float

    async def close(self, request: Request, *, only: AssetType | None) -> Response:
        """Answer after the COMMIT: 201, or 200 for a replay. `only` is the asset type of the route. Raises Problem."""
        command = await self._read(request, await identify(request), only)
        try:
            decision = await self.closes.submit(command, deadline_s=self.deadline_s)
        except Overloaded:
            raise Problem(Code.OVERLOADED) from None
        except (DatabaseAway, LockedElsewhere, RowRefused, TimeoutError):
            raise Problem(Code.UNAVAILABLE) from None
        match decision:
            case Accepted(book=book, request=accepted):
                CLOSES.labels("accepted").inc()
                location = {"location": f"/v1/close-requests/{accepted.id}"}
                return json_response(close_json(accepted, book.position), 201, location)
            case Replayed(position=position, request=first):
                CLOSES.labels("replayed").inc()
                return json_response(close_json(first, position), 200, {"idempotency-replayed": "true"})
            case refused:
                raise problem_of(refused)

    async def _read(self, request: Request, caller: Caller, only: AssetType | None) -> CloseCommand:
        position_id = read_position_id(request.path_params["position_id"])
        key = read_key(request)
        body = await read_close(request, deadline_s=self.deadline_s)
        return CloseCommand(
            request_id=new_close_request_id(utc_now(), os.urandom(10)),
            position_id=position_id,
            idempotency_key=key,
            requested_by=caller.subject,
            accounts=caller.accounts,
            only=only,
            quantity=body.quantity,
            order_type=body.order_type,
            limit_price=body.limit_price,
            traceparent=trace_of(request).header(),
        )

    async def close_request(self, request: Request) -> Response:
        """The request's state now. Another account's is not found, in the same bytes. Raises Problem."""
        caller = await identify(request)
        request_id = read_request_id(request.path_params["close_request_id"])

        async def work(tx: Tx) -> Response:
            found = await find_request(tx, request_id=request_id)
            if found is None or not caller.may_see(found[0].account_id):
                raise Problem(Code.NOT_FOUND)
            return json_response(close_json(*found))

        return await self._show(work)

    async def position(self, request: Request) -> Response:
        """The position's state now. Another account's is not found, in the same bytes. Raises Problem."""
        caller = await identify(request)
        position_id = read_position_id(request.path_params["position_id"])

        async def work(tx: Tx) -> Response:
            found = await find_position(tx, position_id=position_id)
            if found is None or not caller.may_see(found.account_id):
                raise Problem(Code.NOT_FOUND)
            return json_response(position_json(found))

        return await self._show(work)

    async def ready(self) -> Response:
        """200 while closes can be accepted, degraded or not, else 503; the reasons are in the body."""
        state = await look(self.engine, slot=self.slot)
        body = orjson.dumps({"status": state.status, "reasons": state.reasons})
        return json_response(body, 503 if state.status == "unready" else 200)

    async def _show(self, work: Callable[[Tx], Awaitable[Response]]) -> Response:
        try:
            async with timeout(self.deadline_s):
                return await transact(self.engine, work)
        except (DatabaseAway, CommitUnknown, TimeoutError):
            raise Problem(Code.UNAVAILABLE) from None


class DirectRoute(APIRoute):
    """A route whose endpoint takes the request alone and reads it by itself; what it would not read is refused before.
    FastAPI then has nothing to solve for each call (a quarter of a close's CPU, measured), and still describes the
    route in the OpenAPI."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        """The endpoint itself, behind the check that nothing is left unread."""
        endpoint = self.endpoint

        async def handle(request: Request) -> Response:
            refuse_what_is_not_read(request)
            answer: Response = await endpoint(request)
            return answer

        return handle


def build_app(api: Api) -> ASGIApp:
    """The application, with every answer named by its trace id."""
    app = FastAPI(
        title="close-api",
        version="1",
        description="Accepts closes of trading positions, each once.",
        redirect_slashes=False,  # A redirect would repeat whatever host the caller named.
        openapi_url=None,
        exception_handlers={Problem: _on_problem, HTTPException: _on_http_error, Exception: _on_defect},
    )
    app.router.route_class = DirectRoute
    _add_closes(app, api)
    _add_states(app, api)
    _add_service(app, api)
    return Traced(app)


def _add_closes(app: FastAPI, api: Api) -> None:
    @app.post(
        "/api/options/{position_id}/close",
        summary="Close an option position",
        status_code=201,
        responses=_CLOSE_ANSWERS,
        openapi_extra=_CLOSE_CALL,
    )
    async def close_option(request: Request) -> Response:
        return await api.close(request, only=AssetType.OPTION)

    @app.post(
        "/v1/positions/{position_id}/close",
        summary="Close a position, fully or partly",
        status_code=201,
        responses=_CLOSE_ANSWERS,
        openapi_extra=_CLOSE_CALL,
    )
    async def close_position(request: Request) -> Response:
        return await api.close(request, only=None)


def _add_states(app: FastAPI, api: Api) -> None:
    @app.get(
        "/v1/close-requests/{close_request_id}",
        summary="A close request as it is now",
        responses={200: {"model": CloseAnswer}, **_errors(400, 404, 417, 422, 503)},
        openapi_extra={"parameters": [_REQUEST_PARAMETER]},
    )
    async def close_request(request: Request) -> Response:
        return await api.close_request(request)

    @app.get(
        "/v1/positions/{position_id}",
        summary="A position as it is now",
        responses={200: {"model": PositionAnswer}, **_errors(400, 404, 417, 422, 503)},
        openapi_extra={"parameters": [_POSITION_PARAMETER]},
    )
    async def position(request: Request) -> Response:
        return await api.position(request)


def _add_service(app: FastAPI, api: Api) -> None:
    @app.api_route("/healthz", methods=_LOOKS, summary="200 while the process turns", include_in_schema=False)
    async def healthz(_request: Request) -> Response:
        return json_response(b'{"status":"ok"}')

    @app.api_route("/readyz", methods=_LOOKS, summary="Whether closes can be accepted", include_in_schema=False)
    async def readyz(_request: Request) -> Response:
        return await api.ready()

    @app.api_route("/openapi.json", methods=_LOOKS, include_in_schema=False)
    async def openapi(_request: Request) -> Response:
        return json_response(orjson.dumps(app.openapi()))

    @app.api_route("/metrics", methods=_LOOKS, include_in_schema=False)
    async def metrics(_request: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


async def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    if request.method == "POST":
        CLOSES.labels(error.code.value).inc()
    return problem_response(error)


async def _on_http_error(_request: Request, error: Exception) -> Response:
    """What the router itself refuses: an unknown address, or a method that the address lacks."""
    assert isinstance(error, HTTPException)
    code = Code.METHOD_NOT_ALLOWED if error.status_code == 405 else Code.NOT_FOUND
    return problem_response(Problem(code, headers=error.headers))


async def _on_defect(request: Request, error: Exception) -> Response:
    log.error("request_failed", trace_id=trace_of(request).trace_id, path=request.url.path, exc_info=error)
    return problem_response(Problem(Code.INTERNAL_ERROR))
