"""The routes that show what is: one, many, as it changes, and all that happened to it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeVar

import orjson
from fastapi import FastAPI, Response
from fastapi.responses import StreamingResponse
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from close_api.close_body import read_moment, read_request_id
from close_api.errors import Code, FieldError, field_problem
from close_api.rest.documented import (
    CLOSE_REQUESTS,
    POSITION_PARAMETER,
    POSITIONS,
    READ,
    REQUEST_PARAMETER,
    Described,
    answered,
    problems,
)
from close_api.rest.parameters import LONGEST_TEXT, PAGING, parameter, read_page, read_texts, text_parameter
from close_api.rest.request_body import read_position_id
from close_api.rest.responses import (
    CloseAnswer,
    ClosesPage,
    PositionAnswer,
    PositionsPage,
    TimelineAnswer,
    close_json,
    close_members,
    json_response,
    position_members,
    timeline_json,
)
from close_api.rest.routes import Door, reads
from close_api.use_cases.reading import MAX_WAIT_S, Changed, PositionFilter, Reading, RequestFilter
from closeflow.clock import monotonic, timeout
from closeflow.domain.model import PositionStatus, RequestStatus
from closeflow.tasks import race

T = TypeVar("T")

READ_WITHIN_S: Final = 30.0
WATCHED_S: Final = 600.0
"""Of one stream, as over gRPC: whoever goes on shows his token again."""
_WAIT: Final = re.compile(r"([0-9]{1,3})s?", re.ASCII)
_ENDED: Final = object()


class EventStream(StreamingResponse):
    """Server-sent events. A reader that takes nothing for `READ_WITHIN_S` is cut off, and may resume."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes]) -> None:
        super().__init__(events, headers={"cache-control": "no-store"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events as they come."""

        async def in_time(message: Message) -> None:
            async with timeout(READ_WITHIN_S):
                await send(message)

        with suppress(TimeoutError):
            await super().__call__(scope, receive, in_time)


@dataclass(frozen=True, slots=True)
class StateRoutes:
    """`stopping` ends what waits, so that a stop of the service waits for nobody's long poll; `watched_s` bounds a
    stream."""

    door: Door
    reading: Reading
    stopping: asyncio.Event
    watched_s: float = WATCHED_S

    async def close_request(self, request: Request) -> Response:
        """The request's state, at once or, with `wait`, at its next change."""
        request_id = read_request_id(request.path_params["close_request_id"])
        wait_s = _wait(request)
        caller = await self.door.admit(request)
        state = await self.reading.request(caller, request_id)
        if wait_s:
            waiting = self.reading.wait(caller, request_id, wait_s=wait_s)
            state = await race(waiting, self.stopping, _gone(request)) or state
        return json_response(close_json(*state))

    async def close_requests(self, request: Request) -> Response:
        """A page of the caller's requests, the newest first."""
        given = read_texts(request)
        status = _choice(given, "status", RequestStatus)
        position = read_position_id(given["position"], "position") if "position" in given else None
        after = read_moment(given["created_after"], "created_after") if "created_after" in given else None
        size, token = read_page(given)
        caller = await self.door.admit(request)
        wanted = RequestFilter(account=given.get("account"), status=status, position_id=position, created_after=after)
        page = await self.reading.requests(caller, wanted, page_size=size, page_token=token)
        shown = [close_members(*state) for state in page.items]
        return json_response(orjson.dumps({"close_requests": shown, "next_page_token": page.next_page_token}))

    async def timeline(self, request: Request) -> Response:
        """Every fact about a request."""
        request_id = read_request_id(request.path_params["close_request_id"])
        caller = await self.door.admit(request)
        return json_response(timeline_json(request_id, await self.reading.timeline(caller, request_id)))

    async def watch(self, request: Request) -> Response:
        """Server-sent events until the request is over; each carries its whole state."""
        request_id = read_request_id(request.path_params["close_request_id"])
        last = request.headers.get("last-event-id")
        caller = await self.door.admit(request)
        await self.reading.request(caller, request_id)  # What is not there is a 404, not an empty stream.
        changes = self.reading.watch(caller, request_id, last_event_id=last)
        return EventStream(self._events(changes))

    async def position(self, request: Request) -> Response:
        """The position's state; its ETag is its version."""
        position_id = read_position_id(request.path_params["position_id"])
        caller = await self.door.admit(request)
        found = await self.reading.position(caller, position_id)
        return json_response(orjson.dumps(position_members(found)), headers={"etag": f'"{found.version}"'})

    async def positions(self, request: Request) -> Response:
        """A page of the caller's positions, the oldest first."""
        given = read_texts(request)
        status = _choice(given, "status", PositionStatus)
        size, token = read_page(given)
        caller = await self.door.admit(request)
        wanted = PositionFilter(account=given.get("account"), status=status, symbol=given.get("symbol"))
        page = await self.reading.positions(caller, wanted, page_size=size, page_token=token)
        shown = [position_members(one) for one in page.items]
        return json_response(orjson.dumps({"positions": shown, "next_page_token": page.next_page_token}))

    async def _events(self, changes: AsyncIterator[Changed | None]) -> AsyncIterator[bytes]:
        until = monotonic() + self.watched_s
        while monotonic() < until:
            change = await race(anext(changes, _ENDED), self.stopping)
            if change is _ENDED or self.stopping.is_set():
                return
            if isinstance(change, Changed):
                yield b"id: %b\nevent: close_request\ndata: %b\n\n" % (
                    change.event_id.encode(),
                    close_json(*change.state),
                )
            else:
                yield b": still here\n\n"


async def _gone(request: Request) -> None:
    """Until nobody is there any more who could read the answer."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _choice(given: Mapping[str, str], name: str, known: type[T]) -> T | None:
    if name not in given:
        return None
    try:
        return known(given[name])  # type: ignore[call-arg]
    except ValueError:
        raise field_problem(FieldError(name, f"must be one of {', '.join(known)}")) from None  # type: ignore[arg-type]


def _wait(request: Request) -> int:
    text = request.query_params.get("wait")
    if text is None:
        return 0
    found = _WAIT.fullmatch(text)
    if found is None or int(found[1]) > MAX_WAIT_S:
        raise field_problem(FieldError("wait", f"must be whole seconds from 0s to {MAX_WAIT_S}s, such as 30s"))
    return int(found[1])


_WAIT_PARAMETER: Final = parameter(
    "wait",
    "Answer at the next change, at once if the request is over, and after at most so many seconds "
    f"(0s to {MAX_WAIT_S}s).",
    type="string",
    pattern="^([0-5]?[0-9]|60)s?$",
)
_LAST_EVENT_ID: Final[Described] = {
    "name": "Last-Event-ID",
    "in": "header",
    "required": False,
    "description": "The id of the last event that was received: what changed since is told at once, nothing twice.",
    "schema": {"type": "string", "maxLength": LONGEST_TEXT},
}


def add_states(app: FastAPI, routes: StateRoutes) -> None:
    """The routes that read."""
    _add_close_requests(app, routes)
    _add_following(app, routes)

    @app.get(
        "/v1/positions/{position_id}",
        tags=[POSITIONS],
        summary="A position as it is now",
        responses={200: answered("The position", "ETag", model=PositionAnswer), **problems(*READ, Code.NOT_FOUND)},
        openapi_extra={"parameters": [POSITION_PARAMETER]},
    )
    async def get_position(request: Request) -> Response:
        return await routes.position(request)

    @app.get(
        "/v1/positions",
        tags=[POSITIONS],
        summary="The caller's positions, page by page, the oldest first",
        responses={200: answered("A page", model=PositionsPage), **problems(*READ)},
        openapi_extra={
            "parameters": [
                text_parameter("account", "Only of this account."),
                parameter("status", "Only in this status.", type="string", enum=list(PositionStatus)),
                text_parameter("symbol", "Only of this symbol."),
                *PAGING,
            ]
        },
    )
    @reads(query=("account", "status", "symbol", "page_size", "page_token"))
    async def list_positions(request: Request) -> Response:
        return await routes.positions(request)


def _add_close_requests(app: FastAPI, routes: StateRoutes) -> None:
    @app.get(
        "/v1/close-requests/{close_request_id}",
        tags=[CLOSE_REQUESTS],
        summary="A close request as it is now, or at its next change",
        responses={
            200: answered("The request now", model=CloseAnswer),
            **problems(*READ, Code.NOT_FOUND, Code.OVERLOADED),
        },
        openapi_extra={"parameters": [REQUEST_PARAMETER, _WAIT_PARAMETER]},
    )
    @reads(query=("wait",))
    async def get_close_request(request: Request) -> Response:
        return await routes.close_request(request)

    @app.get(
        "/v1/close-requests",
        tags=[CLOSE_REQUESTS],
        summary="The caller's close requests, page by page, the newest first",
        responses={200: answered("A page", model=ClosesPage), **problems(*READ)},
        openapi_extra={
            "parameters": [
                text_parameter("account", "Only of this account."),
                parameter("status", "Only in this status.", type="string", enum=list(RequestStatus)),
                parameter("position", "Only of this position.", type="integer", format="int64", minimum=1),
                parameter("created_after", "Only of later requests.", type="string", format="date-time"),
                *PAGING,
            ]
        },
    )
    @reads(query=("account", "status", "position", "created_after", "page_size", "page_token"))
    async def list_close_requests(request: Request) -> Response:
        return await routes.close_requests(request)


def _add_following(app: FastAPI, routes: StateRoutes) -> None:
    @app.get(
        "/v1/close-requests/{close_request_id}/watch",
        tags=[CLOSE_REQUESTS],
        summary="A close request as it changes, until it is over (server-sent events)",
        description="The first event is the state now, and each has the whole state. Lines that begin with a "
        "colon only keep the connection alive. The stream ends after the final state; one that ends before is asked "
        "for again with Last-Event-ID.",
        status_code=200,
        response_class=EventStream,
        responses={200: answered("Its states"), **problems(*READ, Code.NOT_FOUND, Code.OVERLOADED)},
        openapi_extra={"parameters": [REQUEST_PARAMETER, _LAST_EVENT_ID]},
    )
    async def watch_close_request(request: Request) -> Response:
        return await routes.watch(request)

    @app.get(
        "/v1/close-requests/{close_request_id}/timeline",
        tags=[CLOSE_REQUESTS],
        summary="Every fact about a close request, in the order of time",
        responses={200: answered("Its timeline", model=TimelineAnswer), **problems(*READ, Code.NOT_FOUND)},
        openapi_extra={"parameters": [REQUEST_PARAMETER]},
    )
    async def get_timeline(request: Request) -> Response:
        return await routes.timeline(request)
