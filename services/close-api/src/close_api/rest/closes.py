"""The routes that close and cancel: they read a call, hand it to the use case and write the answer."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import orjson
from fastapi import FastAPI, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from close_api.auth.caller import Caller
from close_api.close_body import (
    MAX_POSITION_ID,
    MAX_REASON,
    CloseBody,
    check_position_id,
    close_command,
    read_key_text,
    read_request_id,
    read_values,
    whole_within,
)
from close_api.errors import STATUSES, Code, FieldError, Problem, field_problem
from close_api.rest.documented import (
    CLOSE,
    CLOSE_REQUESTS,
    CLOSES,
    POSITION_PARAMETER,
    REQUEST_PARAMETER,
    WRITE,
    Described,
    answered,
    problems,
    takes,
)
from close_api.rest.problems import item_problem
from close_api.rest.request_body import (
    KEY_HEADER,
    MAX_BATCH_BYTES,
    parse_object,
    read_body,
    read_cancel,
    read_close,
    read_key,
    read_position_id,
    unknown_fields,
)
from close_api.rest.responses import (
    BatchAnswer,
    CloseAnswer,
    DryRunAnswer,
    close_json,
    close_members,
    json_response,
    plan_members,
)
from close_api.rest.routes import Door, reads
from close_api.tracing import trace_of
from close_api.use_cases.cancelling import Cancelling
from close_api.use_cases.closing import CLOSES as ANSWERED_CLOSES
from close_api.use_cases.closing import Answer, Closing
from closeflow.clock import sleep
from closeflow.domain.close.accept import Accepted, CloseCommand, Replayed
from closeflow.domain.model import AssetType

MAX_BATCH: Final = 500
CLOSING: Final = frozenset({"close_position", "close_option", "batch_close"})
"""The operations whose refusals count as answers to closes."""
_TOGETHER: Final = 25
"""Of a batch so many are read, or written, before others' calls go on."""
_VERSION: Final = re.compile(r'(")?([1-9][0-9]{0,17})(?(1)")')
_LONGEST_KEY: Final = 100
_BARE_KEY: Final = "^[ -~]{1,100}$"
_KEY_PATTERN: Final = r'^([!#-~]([ -~]{0,98}[!-~])?|"([ !#-\[\]-~]|\\["\\]){1,100}")$'


class BatchClose(CloseBody):
    """One close of a batch."""

    position_id: int = Field(ge=1, le=MAX_POSITION_ID)
    idempotency_key: str | None = Field(None, pattern=_BARE_KEY, description="1 to 100 printable ASCII characters.")


class BatchBody(BaseModel):
    """Up to 500 closes. One without a key of its own gets one that is made of the batch's key and its position."""

    model_config = ConfigDict(extra="forbid")

    closes: list[BatchClose] = Field(min_length=1, max_length=MAX_BATCH)


class CancelBody(BaseModel):
    """Everything may be left out."""

    model_config = ConfigDict(extra="forbid")

    reason: str | None = Field(
        None, min_length=1, max_length=MAX_REASON, description="Your own words, kept with the request."
    )


@dataclass(frozen=True, slots=True)
class CloseRoutes:
    """`deadline_s` bounds the reading of a body."""

    door: Door
    closing: Closing
    cancelling: Cancelling
    deadline_s: float

    async def close(self, request: Request, *, only: AssetType | None) -> Response:
        """201 after the COMMIT, 200 for a replay and a dry run. `only` is the asset type of the route."""
        position_id = read_position_id(request.path_params["position_id"])
        key = read_key(request)
        body = await read_close(request, deadline_s=self.deadline_s)
        version = _expected_version(request)
        caller = await self.door.admit(request, closes=1)
        command = close_command(
            caller,
            position_id=position_id,
            key=key,
            body=body,
            traceparent=trace_of(request).header(),
            only=only,
            expected_version=version,
        )
        return _close_response(command, await self.closing.close(caller, command))

    async def batch(self, request: Request) -> Response:
        """200 with one result for each close, in order."""
        raw = await read_body(request, deadline_s=self.deadline_s, at_most=MAX_BATCH_BYTES)
        values = parse_object(raw)
        items = values.pop("closes", None)
        if values:
            raise unknown_fields(values)
        if not isinstance(items, list) or not 1 <= len(items) <= MAX_BATCH:
            raise field_problem(FieldError("closes", f"must be a list of 1 to {MAX_BATCH} closes"))
        batch_key = read_key(request) if request.headers.getlist(KEY_HEADER) else None
        caller = await self.door.admit(request, closes=len(items))
        read: list[CloseCommand | Problem] = []
        for item in items:
            read.append(_read_item(caller, item, batch_key, trace_of(request).header()))
            if len(read) % _TOGETHER == 0:
                await sleep(0)
        answers = iter(await self.closing.close_many(caller, [one for one in read if isinstance(one, CloseCommand)]))
        trace_id = trace_of(request).trace_id
        results: list[dict[str, object]] = []
        for item, one in zip(items, read, strict=True):
            answer = next(answers) if isinstance(one, CloseCommand) else one
            results.append(_item_result(item, one, answer, batch_key, trace_id))
            if len(results) % _TOGETHER == 0:
                await sleep(0)
        return json_response(orjson.dumps({"results": results}))

    async def cancel(self, request: Request) -> Response:
        """200 with the close request as it is after the cancel was asked for."""
        request_id = read_request_id(request.path_params["close_request_id"])
        reason = await read_cancel(request, deadline_s=self.deadline_s)
        caller = await self.door.admit(request, closes=1)
        state = await self.cancelling.cancel(caller, request_id, reason=reason, traceparent=trace_of(request).header())
        return json_response(close_json(*state))


def _close_response(command: CloseCommand, answer: Answer) -> Response:
    match answer:
        case Replayed(position=position, request=first):
            return json_response(close_json(first, position), 200, {"idempotency-replayed": "true"})
        case Accepted(book=book, request=accepted) if command.dry_run:
            return json_response(orjson.dumps(plan_members(accepted, book.position)))
        case Accepted(book=book, request=accepted):
            location = {"location": f"/v1/close-requests/{accepted.id}"}
            return json_response(close_json(accepted, book.position), 201, location)


def _expected_version(request: Request) -> int | None:
    """The version in If-Match (RFC 9110 section 13.1.1); `*` asks only that the position is there."""
    given = request.headers.getlist("if-match")
    if not given or given == ["*"]:
        return None
    found = _VERSION.fullmatch(given[0].strip()) if len(given) == 1 else None
    if found is None:
        raise field_problem(FieldError("if-match", 'must be one ETag of the position, such as "7", or *'))
    return int(found[2])


def _read_item(caller: Caller, item: object, batch_key: str | None, traceparent: str) -> CloseCommand | Problem:
    try:
        if not isinstance(item, dict):
            return Problem(Code.MALFORMED_BODY, extra={"reason": "not an object"})
        fields = {name: value for name, value in item.items() if name not in ("position_id", "idempotency_key")}
        position_id = check_position_id(item.get("position_id"))
        key = _item_key(item, position_id, batch_key)
        return close_command(
            caller, position_id=position_id, key=key, body=read_values(fields), traceparent=traceparent
        )
    except Problem as problem:
        return problem


def _item_key(item: Mapping[str, object], position_id: int, batch_key: str | None) -> str:
    if "idempotency_key" in item:
        key = item["idempotency_key"]
        if not isinstance(key, str):
            raise Problem(Code.IDEMPOTENCY_KEY_INVALID)
        return read_key_text(key)
    if batch_key is None:
        raise Problem(Code.IDEMPOTENCY_KEY_MISSING)
    return derived_key(batch_key, position_id)


def derived_key(batch_key: str, position_id: int) -> str:
    """The key of a batch's close that has none of its own: the same whenever the batch is repeated."""
    key = f"{batch_key}/{position_id}"
    return key if len(key) <= _LONGEST_KEY else f"sha256-{hashlib.sha256(key.encode()).hexdigest()}"


def _item_result(
    item: object, command: CloseCommand | Problem, answer: Answer | Problem, batch_key: str | None, trace_id: str
) -> dict[str, object]:
    position_id, key = None, None
    if isinstance(command, CloseCommand):
        position_id, key = command.position_id, command.idempotency_key
    elif isinstance(item, dict):
        position_id, key = _shown_id(item.get("position_id")), item.get("idempotency_key")
        key = key if isinstance(key, str) else None
    told: dict[str, object] = {"position_id": position_id, "idempotency_key": key}
    match answer:
        case Problem():
            ANSWERED_CLOSES.labels(answer.code.value).inc()
            shown = item_problem(answer, trace_id)
            return {**told, "status": STATUSES[answer.code].http, "replayed": False, "error": shown}
        case Replayed(position=position, request=first):
            return {**told, "status": 200, "replayed": True, "close_request": close_members(first, position)}
        case Accepted(book=book, request=accepted) if isinstance(command, CloseCommand) and command.dry_run:
            return {**told, "status": 200, "replayed": False, "dry_run": plan_members(accepted, book.position)}
        case Accepted(book=book, request=accepted):
            shown = close_members(accepted, book.position)
            return {**told, "status": 201, "replayed": False, "close_request": shown}


def _shown_id(value: object) -> int | None:
    """As it was given, where it can be shown: a whole number that JSON readers take."""
    return whole_within(value, MAX_POSITION_ID) if isinstance(value, Decimal) else None


_KEY_PARAMETER: Final[Described] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": True,
    "description": "One value per close that is meant, 1 to 100 printable ASCII characters; bare, or in double quotes "
    "with \\ before what is a quote or a \\ itself (RFC 8941).",
    "schema": {"type": "string", "pattern": _KEY_PATTERN},
    "example": "rebalance-2026-03-02/4711",
}
_IF_MATCH: Final[Described] = {
    "name": "If-Match",
    "in": "header",
    "required": False,
    "description": "The ETag of the position as the caller knows it; another version is refused with 412.",
    "schema": {"type": "string", "pattern": '^("[1-9][0-9]{0,17}"|\\*)$'},
    "example": '"3"',
}
_CLOSES: Final[dict[str, object]] = {
    "all of it": {},
    "half of it, at a price": {"percentage": 50, "limit_price": 101.5, "time_in_force": "day"},
    "so many, if nothing changed": {
        "quantity": 4,
        "max_slippage_bps": 20,
        "expected_quantity": 10,
        "deadline": "2026-03-02T20:45:00Z",
        "reason": "reduce before earnings",
    },
    "only to see the plan": {"dry_run": True},
}
_BATCHES: Final[dict[str, object]] = {
    "three, one with a key of its own": {
        "closes": [
            {"position_id": 4711},
            {"position_id": 4712, "percentage": 50},
            {"position_id": 4713, "idempotency_key": "stop-loss-4713"},
        ]
    }
}
_CANCELS: Final[dict[str, object]] = {"with a reason": {"reason": "the client called it off"}}


def add_closes(app: FastAPI, routes: CloseRoutes) -> None:
    """The routes that write."""
    _add_close(app, routes)

    @app.post(
        "/v1/positions:batchClose",
        tags=[CLOSES],
        summary="Close up to 500 positions, each by itself",
        description="Each close has its own key, status, body and error, and fails or succeeds by itself; the "
        "answer is 200 and has one result for each, in order. One without a key gets one made of the header's and its "
        "position, so that the whole batch can be repeated.",
        responses={
            200: answered("One result for each close", model=BatchAnswer),
            **problems(*WRITE, Code.IDEMPOTENCY_KEY_INVALID),
        },
        openapi_extra={
            "parameters": [{**_KEY_PARAMETER, "required": False}],
            "requestBody": takes(BatchBody, _BATCHES, required=True),
        },
    )
    async def batch_close(request: Request) -> Response:
        return await routes.batch(request)

    @app.post(
        "/v1/close-requests/{close_request_id}/cancel",
        tags=[CLOSE_REQUESTS],
        summary="Stop a close: withdraw it, or cancel its order at the broker",
        description="It is withdrawn if no order of it was sent; else its order is cancelled at the broker, which may "
        "have filled it by then: follow the request until it is over. Repeating it is harmless, and it needs no key.",
        responses={
            200: answered("The request now", model=CloseAnswer),
            **problems(*WRITE, Code.NOT_FOUND, Code.CLOSE_REQUEST_FINISHED, Code.UNAVAILABLE),
        },
        openapi_extra={"parameters": [REQUEST_PARAMETER], "requestBody": takes(CancelBody, _CANCELS)},
    )
    async def cancel_close_request(request: Request) -> Response:
        return await routes.cancel(request)


def _add_close(app: FastAPI, routes: CloseRoutes) -> None:
    accepted: dict[int | str, Described] = {
        200: answered(
            "The key was used for this close before: its state now. Or what a dry run would do",
            "Idempotency-Replayed",
            model=CloseAnswer | DryRunAnswer,
        ),
        201: answered("Accepted: it is durable, and orders follow", "Location", model=CloseAnswer),
    }
    call = {"parameters": [POSITION_PARAMETER, _KEY_PARAMETER, _IF_MATCH], "requestBody": takes(CloseBody, _CLOSES)}

    @app.post(
        "/v1/positions/{position_id}/close",
        tags=[CLOSES],
        summary="Close a position, fully or partly",
        description="Without a body it closes all of the position with a limit order that is priced from the market. "
        "Sent again with the same key it answers with the same close request as it is then, so whoever is in doubt "
        "repeats the call.",
        status_code=201,
        responses={**accepted, **problems(*CLOSE)},
        openapi_extra=call,
    )
    @reads(headers=("if-match",))
    async def close_position(request: Request) -> Response:
        return await routes.close(request, only=None)

    @app.post(
        "/api/options/{position_id}/close",
        tags=[CLOSES],
        summary="Close an option position",
        description="As /v1/positions/{position_id}/close, for positions in options alone and with errors in a form of "
        "their own. Both addresses share their keys.",
        status_code=201,
        responses={**accepted, **problems(*CLOSE, seed=True)},
        openapi_extra=call,
    )
    @reads(headers=("if-match",))
    async def close_option(request: Request) -> Response:
        return await routes.close(request, only=AssetType.OPTION)
