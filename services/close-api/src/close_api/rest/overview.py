"""The routes for whoever watches closes: who one is, what needs a person, and what is out of order."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import UUID

import orjson
from fastapi import FastAPI, Response
from pydantic import BaseModel, Field
from starlette.requests import Request

from close_api.auth.caller import Scope
from close_api.close_body import read_request_id
from close_api.errors import Code
from close_api.rest.documented import ANY, OVERVIEW, READ, answered, problems
from close_api.rest.operator_models import IncidentsPage, incident_members
from close_api.rest.parameters import PAGING, parameter, read_page, read_texts, text_parameter
from close_api.rest.responses import Number, json_response
from close_api.rest.routes import Door, reads
from close_api.use_cases.overview import Overview
from closeflow.domain.model import CloseRequest, RequestStatus, Side
from closeflow.domain.operator.lights import Colour, LightName
from closeflow.domain.operator.waiting import Owner, Wait, WaitsFor
from closeflow.domain.text import decimal_text, time_text


class CallerAnswer(BaseModel):
    """What the token says of whoever calls."""

    subject: str
    accounts: list[str] | None = Field(description="Null is every account.")
    scopes: list[Scope]


class LightAnswer(BaseModel):
    """One thing that closes need. Red needs a person, or is about to."""

    name: LightName
    colour: Colour
    says: str


class StatusAnswer(BaseModel):
    """Every light, each once."""

    lights: list[LightAnswer]


class WaitAnswer(BaseModel):
    """A close that is not over, and what it waits for."""

    close_request_id: UUID
    position_id: int
    account_id: str
    symbol: str
    side: Side
    target_qty: Number
    filled_qty: Number
    close_request_status: RequestStatus
    reason: str | None
    created_at: datetime
    waits_for: WaitsFor
    says: str = Field(description="What it waits for, in words.")
    since: datetime
    stuck_from: datetime = Field(description="Before, it is only at work; from then on somebody should look.")
    owner: Owner = Field(description="Who acts next.")
    next_step: str | None = Field(description="What happens without a person; null where nothing does.")
    next_at: datetime | None = Field(description="When that is, where it is known.")
    command: str = Field(description="What is safe to give now; what is in capitals is for the operator to say.")


class WaitsAnswer(BaseModel):
    """The oldest closes that are not over."""

    at: datetime = Field(description="By the database's clock, as all its times.")
    waiting: list[WaitAnswer]
    more: bool = Field(description="Whether there are others, which are younger.")


@dataclass(frozen=True, slots=True)
class OverviewRoutes:
    """They change nothing."""

    door: Door
    overview: Overview

    async def caller(self, request: Request) -> Response:
        """Who calls."""
        caller = await self.door.admit(request)
        accounts = None if caller.accounts is None else sorted(caller.accounts)
        return json_response(
            orjson.dumps({"subject": caller.subject, "accounts": accounts, "scopes": sorted(caller.scopes)})
        )

    async def incidents(self, request: Request) -> Response:
        """A page of the open incidents."""
        given = read_texts(request)
        size, token = read_page(given)
        caller = await self.door.admit(request)
        page = await self.overview.incidents(caller, account=given.get("account"), page_size=size, page_token=token)
        members = [incident_members(one) for one in page.items]
        return json_response(orjson.dumps({"incidents": members, "next_page_token": page.next_page_token}))

    async def waiting(self, request: Request) -> Response:
        """The oldest closes that are not over."""
        given = read_texts(request)
        size, _ = read_page(given)
        request_id = read_request_id(given["close_request"]) if "close_request" in given else None
        caller = await self.door.admit(request)
        found = await self.overview.waiting(caller, account=given.get("account"), request_id=request_id, page_size=size)
        shown = [_wait_members(*one) for one in found.closes]
        members = {"at": time_text(found.at), "waiting": shown, "more": found.more}
        return json_response(orjson.dumps(members))

    async def status(self, request: Request) -> Response:
        """The lights."""
        found = await self.overview.status(await self.door.admit(request))
        return json_response(orjson.dumps({"lights": [asdict(one) for one in found]}))


def add_overview(app: FastAPI, routes: OverviewRoutes) -> None:
    """What a board shows beside the closes."""

    @app.get(
        "/v1/caller",
        tags=[OVERVIEW],
        summary="Who calls: what the token says",
        responses={200: answered("The caller", model=CallerAnswer), **problems(*ANY, Code.UNAUTHENTICATED)},
    )
    async def get_caller(request: Request) -> Response:
        return await routes.caller(request)

    @app.get(
        "/v1/incidents",
        tags=[OVERVIEW],
        summary="What needs a person now, of the caller's accounts, the newest first",
        description="What is about no account alone is shown to callers of every account.",
        responses={200: answered("A page of the open incidents", model=IncidentsPage), **problems(*READ)},
        openapi_extra={"parameters": [text_parameter("account", "Only of this account."), *PAGING]},
    )
    @reads(query=("account", "page_size", "page_token"))
    async def list_open_incidents(request: Request) -> Response:
        return await routes.incidents(request)

    @app.get(
        "/v1/close-requests:waiting",
        tags=[OVERVIEW],
        summary="The caller's closes that are not over, the oldest first, and what each waits for",
        responses={200: answered("The oldest of them", model=WaitsAnswer), **problems(*READ)},
        openapi_extra={
            "parameters": [
                text_parameter("account", "Only of this account."),
                parameter("close_request", "Only this one.", type="string", format="uuid"),
                *(one for one in PAGING if one["name"] == "page_size"),
            ]
        },
    )
    @reads(query=("account", "close_request", "page_size"))
    async def list_waiting_closes(request: Request) -> Response:
        return await routes.waiting(request)

    @app.get(
        "/v1/status",
        tags=[OVERVIEW],
        summary="Whether events are on their way, orders may go out, and the jobs run",
        responses={200: answered("The lights", model=StatusAnswer), **problems(*READ)},
    )
    async def get_status(request: Request) -> Response:
        return await routes.status(request)


def _wait_members(request: CloseRequest, wait: Wait) -> dict[str, object]:
    """The members of a WaitAnswer."""
    return {
        "close_request_id": request.id,
        "position_id": request.position_id,
        "account_id": request.account_id,
        "symbol": request.symbol,
        "side": request.side,
        "target_qty": orjson.Fragment(decimal_text(request.target_quantity)),
        "filled_qty": orjson.Fragment(decimal_text(request.filled_quantity)),
        "close_request_status": request.status,
        "reason": request.reason,
        "created_at": time_text(request.created_at),
        "waits_for": wait.waits_for,
        "says": wait.says,
        "since": time_text(wait.since),
        "stuck_from": time_text(wait.stuck_from),
        "owner": wait.owner,
        "next_step": wait.next_step,
        "next_at": None if wait.next_at is None else time_text(wait.next_at),
        "command": wait.command,
    }
