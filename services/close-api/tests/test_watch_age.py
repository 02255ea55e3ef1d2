"""A watch over REST is no way to go on reading after one's token is over: it ends, and is asked for again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable
from typing import Any, cast
from uuid import UUID

from starlette.requests import Request
from starlette.responses import StreamingResponse

from close_api.auth.caller import ANYONE, Caller
from close_api.rest.routes import Door
from close_api.rest.states import StateRoutes
from close_api.use_cases.reading import Reading


class _Open:
    async def admit(self, request: Request) -> Caller:
        return ANYONE


class _Unchanging:
    async def request(self, caller: Caller, request_id: UUID) -> None:
        pass

    async def watch(self, caller: Caller, request_id: UUID, *, last_event_id: str | None) -> AsyncGenerator[None, None]:
        while True:
            await asyncio.sleep(0.01)
            yield None


async def test_a_watch_of_what_does_not_change_ends_at_its_age() -> None:
    routes = StateRoutes(cast(Door, _Open()), cast(Reading, _Unchanging()), asyncio.Event(), watched_s=0.2)
    scope: dict[str, Any] = {"type": "http", "headers": [], "path_params": {"close_request_id": str(UUID(int=1))}}
    response = await routes.watch(Request(scope))
    assert isinstance(response, StreamingResponse)
    async with asyncio.timeout(5):
        told = [one async for one in cast(AsyncIterable[bytes], response.body_iterator)]
    assert set(told) == {b": still here\n\n"}
