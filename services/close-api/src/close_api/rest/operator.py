"""The routes of operators, under /v1/operator: they read a call, hand it to the use case and write the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final, TypeVar

import orjson
from fastapi import FastAPI, Response
from pydantic import BaseModel
from starlette.requests import Request

from close_api.close_body import MAX_POSITION_ID, read_request_id
from close_api.errors import Code, FieldError, field_problem
from close_api.rest.documented import (
    OPERATORS,
    POSITION_PARAMETER,
    READ,
    REQUEST_PARAMETER,
    WRITE,
    Described,
    answered,
    problems,
    takes,
)
from close_api.rest.operator_examples import SENT
from close_api.rest.operator_models import (
    ActionsPage,
    AdjustBody,
    ControlsAnswer,
    EndBody,
    ExecutionBody,
    IncidentAnswer,
    IncidentsPage,
    LimitsAnswer,
    LimitsBody,
    PerformedAnswer,
    ReasonBody,
    SendersAnswer,
    TradingBody,
    incident_members,
    read_as,
    sender_members,
    shown,
)
from close_api.rest.parameters import PAGING, parameter, read_page, read_texts, text_parameter
from close_api.rest.request_body import MAX_BODY_BYTES, parse_object, read_body, read_position_id
from close_api.rest.responses import json_response
from close_api.rest.routes import Door, Endpoint, reads
from close_api.tracing import trace_of
from close_api.use_cases.operating import FillGiven, Operating, Performed, Said

B = TypeVar("B", bound=ReasonBody)

_LONGEST_NAME: Final = 128
_PREFIX: Final = "/v1/operator"


def _path(name: str, description: str, example: object) -> Described:
    schema = {"type": "string", "minLength": 1, "maxLength": _LONGEST_NAME}
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": schema,
        "example": example,
    }


_SCOPE: Final = _path("scope", "`global`, or an account.", "global")
_ACCOUNT: Final = _path("account_id", "The account.", "ACC-1")
_ORDER: Final = _path("client_order_id", "The order.", "cf-01978f6e7a1c7c3a9f530d7c5b1f6a20-1")
_SENDER: Final = _path("instance_id", "As the senders are listed.", "host-1/4711")
_INCIDENT: Final[Described] = {
    "name": "incident_id",
    "in": "path",
    "required": True,
    "description": "Its number.",
    "schema": {"type": "integer", "format": "int64", "minimum": 1, "maximum": MAX_POSITION_ID},
    "example": 7,
}


@dataclass(frozen=True, slots=True)
class OperatorRoutes:
    """`deadline_s` bounds the reading of a body."""

    door: Door
    operating: Operating
    deadline_s: float

    async def controls(self, request: Request) -> Response:
        """The kill switch."""
        rows = await self.operating.controls(await self.door.admit(request))
        return _json({"controls": [shown(row) for row in rows]})

    async def set_trading(self, request: Request) -> Response:
        """Halt, reduce or release."""
        scope = _named(request, "scope")
        body, said = await self._read(request, TradingBody)
        caller = await self.door.admit(request)
        return _performed(await self.operating.set_trading(caller, scope, body.state, said))

    async def limits(self, request: Request) -> Response:
        """The limits of accounts."""
        account = read_texts(request).get("account")
        rows = await self.operating.limits(await self.door.admit(request), account)
        return _json({"limits": [shown(row) for row in rows]})

    async def set_limits(self, request: Request) -> Response:
        """Change some of them."""
        account = _named(request, "account_id")
        body, said = await self._read(request, LimitsBody)
        caller = await self.door.admit(request)
        done = await self.operating.set_limits(
            caller,
            account,
            said,
            max_order_quantity=body.max_order_qty,
            max_order_notional=body.max_order_notional,
            submits_per_minute=body.submits_per_minute,
        )
        return _performed(done)

    async def incidents(self, request: Request) -> Response:
        """A page of incidents."""
        given = read_texts(request)
        closed = _yes(given, "closed")
        size, token = read_page(given)
        caller = await self.door.admit(request)
        page = await self.operating.incidents(
            caller,
            account=given.get("account"),
            kind=given.get("kind"),
            closed=closed,
            page_size=size,
            page_token=token,
        )
        members = [incident_members(one) for one in page.items]
        return _json({"incidents": members, "next_page_token": page.next_page_token})

    async def incident(self, request: Request) -> Response:
        """One incident."""
        incident_id = read_position_id(request.path_params["incident_id"], "incident_id")
        found = await self.operating.incident(await self.door.admit(request), incident_id)
        return _json(incident_members(found))

    async def close_incident(self, request: Request) -> Response:
        """Close it."""
        incident_id = read_position_id(request.path_params["incident_id"], "incident_id")
        _, said = await self._read(request, ReasonBody)
        caller = await self.door.admit(request)
        return _performed(await self.operating.close_incident(caller, incident_id, said))

    async def retry(self, request: Request) -> Response:
        """Try a close again now."""
        request_id = read_request_id(request.path_params["close_request_id"])
        _, said = await self._read(request, ReasonBody)
        caller = await self.door.admit(request)
        return _performed(await self.operating.retry(caller, request_id, said))

    async def abandon(self, request: Request) -> Response:
        """Give a close up."""
        request_id = read_request_id(request.path_params["close_request_id"])
        _, said = await self._read(request, ReasonBody)
        caller = await self.door.admit(request)
        return _performed(await self.operating.abandon(caller, request_id, said))

    async def adjust(self, request: Request) -> Response:
        """Change a position by what happened outside."""
        position_id = read_position_id(request.path_params["position_id"])
        body, said = await self._read(request, AdjustBody)
        caller = await self.door.admit(request)
        done = await self.operating.adjust(
            caller, position_id, body.delta, said, expected=body.expected_quantity, dry=body.dry_run
        )
        return _performed(done)

    async def end_position(self, request: Request) -> Response:
        """End a position that no close ended."""
        position_id = read_position_id(request.path_params["position_id"])
        body, said = await self._read(request, EndBody)
        caller = await self.door.admit(request)
        done = await self.operating.end_position(
            caller, position_id, body.ending, body.expected_quantity, said, dry=body.dry_run
        )
        return _performed(done)

    async def name_execution(self, request: Request) -> Response:
        """Book a fill that has no name."""
        client_order_id = _named(request, "client_order_id")
        body, said = await self._read(request, ExecutionBody)
        caller = await self.door.admit(request)
        fill = FillGiven(body.exec_id, body.quantity, body.price, body.occurred_at, body.cum_qty)
        done = await self.operating.name_execution(caller, client_order_id, fill, said, dry=body.dry_run)
        return _performed(done)

    async def senders(self, request: Request) -> Response:
        """The processes that send."""
        rows = await self.operating.senders(await self.door.admit(request))
        return _json({"senders": [sender_members(row) for row in rows]})

    async def sender_exited(self, request: Request) -> Response:
        """Confirm that one is gone."""
        instance_id = _named(request, "instance_id")
        _, said = await self._read(request, ReasonBody)
        caller = await self.door.admit(request)
        return _performed(await self.operating.sender_exited(caller, instance_id, said))

    async def actions(self, request: Request) -> Response:
        """What was done by hand."""
        given = read_texts(request)
        size, token = read_page(given)
        caller = await self.door.admit(request)
        page = await self.operating.actions(caller, subject=given.get("subject"), page_size=size, page_token=token)
        return _json({"actions": [shown(row) for row in page.items], "next_page_token": page.next_page_token})

    async def _read(self, request: Request, model: type[B]) -> tuple[B, Said]:
        raw = await read_body(request, deadline_s=self.deadline_s, at_most=MAX_BODY_BYTES)
        body = read_as(model, parse_object(raw) if raw else {})
        return body, Said(body.reason, trace_of(request).header())


def add_operator_routes(app: FastAPI, routes: OperatorRoutes) -> None:
    """What operators see, and what they may do."""
    add = _Adding(app)
    account = text_parameter("account", "Only of this account.")
    add.read(
        "get_trading_controls", "trading-controls", "What is halted, by whom and why", ControlsAnswer, routes.controls
    )
    add.write(
        "set_trading", "trading-controls/{scope:path}", "Halt or release", TradingBody, routes.set_trading, _SCOPE
    )
    add.read("get_limits", "limits", "How much accounts may send", LimitsAnswer, routes.limits, query=[account])
    add.write("set_limits", "limits/{account_id:path}", "Change limits", LimitsBody, routes.set_limits, _ACCOUNT)
    incidents = [
        parameter("closed", "Also those that are closed.", type="string", enum=["true", "false"]),
        text_parameter("kind", "Only of this kind, such as gap."),
        account,
        *PAGING,
    ]
    add.read("list_incidents", "incidents", "What needs a person", IncidentsPage, routes.incidents, query=incidents)
    one = "incidents/{incident_id}"
    add.read("get_incident", one, "One incident", IncidentAnswer, routes.incident, _INCIDENT)
    why = "Close an incident; a close that it froze goes on"
    add.write("close_incident", f"{one}/close", why, ReasonBody, routes.close_incident, _INCIDENT)
    add.read("list_senders", "senders", "The processes that send orders", SendersAnswer, routes.senders)
    gone = "Confirm that a sender's process is gone, seen on its host"
    path = "senders/{instance_id:path}/exited"
    add.write("confirm_sender_exit", path, gone, ReasonBody, routes.sender_exited, _SENDER)
    subject = text_parameter("subject", "Only what was done to this request, order, position, incident, …")
    what = "What was done by hand, the newest first"
    add.read("list_operator_actions", "actions", what, ActionsPage, routes.actions, query=[subject, *PAGING])
    _add_closes(add, routes)


def _add_closes(add: _Adding, routes: OperatorRoutes) -> None:
    request, position = "close-requests/{close_request_id}", "positions/{position_id}"
    retry, abandon = "Try a retryable close again now", "Give a close up; nothing is sent"
    add.write("retry_close_request", f"{request}/retry", retry, ReasonBody, routes.retry, REQUEST_PARAMETER)
    add.write("abandon_close_request", f"{request}/abandon", abandon, ReasonBody, routes.abandon, REQUEST_PARAMETER)
    adjust, end = "Change a position by what happened outside", "End a position that no close ended"
    add.write("adjust_position", f"{position}/adjust", adjust, AdjustBody, routes.adjust, POSITION_PARAMETER)
    add.write("end_position", f"{position}/end", end, EndBody, routes.end_position, POSITION_PARAMETER)
    name = "Book a fill that the broker states and whose execution never came"
    path = "orders/{client_order_id}/execution"
    add.write("name_execution", path, name, ExecutionBody, routes.name_execution, _ORDER)


@dataclass(frozen=True, slots=True)
class _Adding:
    """Adds routes by the names of their operations, under which their examples are."""

    app: FastAPI

    def read(
        self,
        name: str,
        path: str,
        summary: str,
        model: type[BaseModel],
        endpoint: Endpoint,
        *in_path: Described,
        query: Sequence[Described] = (),
    ) -> None:
        async def answer(request: Request) -> Response:
            return await endpoint(request)

        self.app.add_api_route(
            f"{_PREFIX}/{path}",
            reads(query=tuple(one["name"] for one in query))(answer),
            methods=["GET"],
            name=name,
            summary=summary,
            tags=[OPERATORS],
            responses={200: answered("As it is now", model=model), **problems(*READ, Code.NOT_FOUND)},
            openapi_extra={"parameters": [*in_path, *query]},
        )

    def write(
        self, name: str, path: str, summary: str, model: type[BaseModel], endpoint: Endpoint, in_path: Described
    ) -> None:
        async def answer(request: Request) -> Response:
            return await endpoint(request)

        codes = (*WRITE, Code.NOT_FOUND, Code.OPERATION_REFUSED, Code.UNAVAILABLE)
        self.app.add_api_route(
            f"{_PREFIX}/{path}",
            answer,
            methods=["PUT" if name.startswith("set_") else "POST"],
            name=name,
            summary=summary,
            tags=[OPERATORS],
            responses={200: answered("What came of it", model=PerformedAnswer), **problems(*codes)},
            openapi_extra={"parameters": [in_path], "requestBody": takes(model, SENT[name], required=True)},
        )


def _performed(done: Performed) -> Response:
    return _json(asdict(done))


def _json(members: Mapping[str, object]) -> Response:
    return json_response(orjson.dumps(members))


def _named(request: Request, name: str) -> str:
    text: str = request.path_params[name]
    if not 1 <= len(text) <= _LONGEST_NAME or not text.isprintable():
        raise field_problem(FieldError(name, f"must be 1 to {_LONGEST_NAME} printable characters"))
    return text


def _yes(given: Mapping[str, str], name: str) -> bool:
    text = given.get(name, "false")
    if text not in ("true", "false"):
        raise field_problem(FieldError(name, "must be true or false"))
    return text == "true"
