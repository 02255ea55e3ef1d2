"""What every route shares: nothing of a call is left unread, and its caller is known before it is served."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fastapi import Response
from fastapi.routing import APIRoute
from starlette.requests import Request

from close_api.auth.caller import Caller, Identity
from close_api.auth.rate_limit import RateLimits
from close_api.errors import Code, Problem
from close_api.rest.unread_input import NOTHING, Reads, refuse_what_is_not_read
from close_api.tracing import answer_with

Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Door:
    """Who may come in, and how often."""

    identity: Identity
    rates: RateLimits

    async def admit(self, request: Request, *, closes: int = 0) -> Caller:
        """The caller, after counting what is asked for; the answer tells how much is left. Raises Problem."""
        given = request.headers.getlist("authorization")
        if len(given) > 1:
            raise Problem(Code.UNAUTHENTICATED, headers={"www-authenticate": 'Bearer realm="closeflow"'})
        caller = await self.identity.caller(given[0] if given else None)
        answer_with(request, self.rates.take(caller.subject, closes).headers())
        return caller


def reads(*, query: tuple[str, ...] = (), headers: tuple[str, ...] = ()) -> Callable[[Endpoint], Endpoint]:
    """Mark an endpoint as one that reads these parameters and headers; the others are refused before it is called."""

    def mark(endpoint: Endpoint) -> Endpoint:
        endpoint.reads = Reads(frozenset(query), frozenset(one.encode() for one in headers))  # type: ignore[attr-defined]
        return endpoint

    return mark


class DirectRoute(APIRoute):
    """A route whose endpoint takes the request alone and reads it by itself; what it would not read is refused before.
    FastAPI then has nothing to solve for each call (a quarter of a close's CPU, measured), and still describes the
    route in the OpenAPI."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        """The endpoint itself, behind the check that nothing is left unread."""
        endpoint = self.endpoint
        read: Reads = getattr(endpoint, "reads", NOTHING)

        async def handle(request: Request) -> Response:
            refuse_what_is_not_read(request, read)
            answer: Response = await endpoint(request)
            return answer

        return handle
