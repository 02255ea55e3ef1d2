"""What stands before Alpaca's routes: scripted outages, then the API keys. `/control` and `/healthz` pass freely."""

import asyncio
import base64
import binascii
import time
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .answers import hang, refusal_answer, spoil
from .behaviour import Seconds, Spec
from .calls import Calls, Hint, hint_headers
from .errors import Refusal, account_refused, forbidden, rate_limited, unauthorized
from .exchange import Exchange

_ALPACA_PATHS = ("/v2/", "/v1beta1/", "/v1beta3/")


class Outage(Spec):
    """A fault of the whole REST interface, or of a part of it (`method`, `path_prefix`).

    It ends after `requests` requests, after `for_s` seconds, or when the outages are cleared. `when`: `before` means
    the request is not processed, `after` that it is processed and only the answer is lost or spoiled, `late` (of a
    black hole with `for_s`) that it is processed when the outage is over, whoever still waits for the answer.
    `account_refused` refuses new orders, whatever they are, with `message`; `hint` is how a `rate_limit` says when to
    come again.
    """

    kind: Literal[
        "black_hole",
        "delay",
        "rate_limit",
        "unauthorized",
        "forbidden",
        "account_refused",
        "reset",
        "server_error",
        "html",
        "truncated",
        "redirect",
        "foreign",
    ]
    when: Literal["before", "after", "late"] = "before"
    method: Literal["GET", "POST", "DELETE", "PATCH"] | None = None
    path_prefix: Annotated[str, Field(pattern="^/v")] | None = None
    requests: Annotated[int, Field(ge=1)] | None = None
    for_s: Seconds | None = None
    delay_s: Seconds = 1
    retry_after_s: Seconds = 1
    hint: Hint = "seconds"
    message: str = "new orders are rejected by user request"

    @model_validator(mode="after")
    def _late_has_an_end(self) -> "Outage":
        if self.when == "late" and (self.kind != "black_hole" or self.for_s is None):
            raise ValueError("when=late needs kind=black_hole and for_s: the end is when requests are processed")
        return self


@dataclass(slots=True)
class ActiveOutage:
    """An outage that was scripted; it ends after `remaining` requests, or at `until` (monotonic seconds)."""

    outage: Outage
    remaining: int | None
    until: float | None

    def strikes(self, method: str, path: str) -> bool:
        """Whether this call is one of those that the outage is for."""
        outage = self.outage
        return (
            self.remaining != 0
            and (self.until is None or time.monotonic() < self.until)
            and outage.method in (None, method)
            and (outage.path_prefix is None or path.startswith(outage.path_prefix))
            and (outage.kind != "account_refused" or (method, path) == ("POST", "/v2/orders"))
        )


class Outages:
    """Those in force; the oldest that strikes a request is the one it suffers."""

    def __init__(self) -> None:
        self.active: list[ActiveOutage] = []
        self.calls = Calls()

    def add(self, outage: Outage) -> None:
        """It begins at once, behind those that are active."""
        until = None if outage.for_s is None else time.monotonic() + outage.for_s
        self.active.append(ActiveOutage(outage, outage.requests, until))

    def take(self, method: str, path: str) -> ActiveOutage | None:
        """The first outage that strikes this call, with one request less to strike; None when none does."""
        for active in self.active:
            if active.strikes(method, path):
                if active.remaining is not None:
                    active.remaining -= 1
                return active
        return None


class Edge:
    """An ASGI application in front of Alpaca's routes; everything else passes freely."""

    def __init__(self, app: ASGIApp, exchange: Exchange, outages: Outages, *, key_id: str, secret_key: str) -> None:
        self._app = app
        self._exchange = exchange
        self._outages = outages
        self._credentials = (key_id.encode(), secret_key.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Apply what outage strikes the call, check the key, and pass it on."""
        if scope["type"] != "http" or not scope["path"].startswith(_ALPACA_PATHS):
            await self._app(scope, receive, send)
            return
        try:
            await self._serve(scope, receive, send)
        except asyncio.CancelledError:
            # The simulator stops while a scripted delay runs: no answer, rather than the server's own 500.
            scope["state"]["transport"].abort()
            await hang(receive)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        too_many = self._outages.calls.arrives(scope["method"], scope["path"])
        if too_many is not None:
            await self._note_lost_order("rate_limit", scope, receive)
            await _refuse(rate_limited(too_many), scope, receive, send)
            return
        active = self._outages.take(scope["method"], scope["path"])
        if active is None:
            await self._admit(scope, receive, send)
            return
        outage = active.outage
        if outage.kind == "delay":
            await asyncio.sleep(outage.delay_s)
            await self._admit(scope, receive, send)
        elif outage.when == "late":
            await self._admit_late(scope, receive, active.until or 0)
        elif outage.when == "after":
            await self._admit(scope, receive, _swallow)
            await self._suffer(outage, scope, receive, send)
        else:
            await self._note_lost_order(outage.kind, scope, receive)
            await self._suffer(outage, scope, receive, send)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        if _credentials(scope) != self._credentials:
            await refusal_answer(unauthorized())(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _admit_late(self, scope: Scope, receive: Receive, until: float) -> None:
        """Not tied to the connection, as a request that is stuck on its way is not."""
        body = await Request(scope, receive).body()
        await asyncio.sleep(max(0, until - time.monotonic()))
        arrived: Message = {"type": "http.request", "body": body, "more_body": False}

        async def again() -> Message:
            nonlocal arrived
            message, arrived = arrived, {"type": "http.disconnect"}
            return message

        await self._admit(scope, again, _swallow)

    async def _note_lost_order(self, kind: str, scope: Scope, receive: Receive) -> None:
        if (scope["method"], scope["path"]) == ("POST", "/v2/orders"):
            body = await Request(scope, receive).body()
            self._exchange.note_unprocessed(body, f"outage: {kind}")

    async def _suffer(self, outage: Outage, scope: Scope, receive: Receive, send: Send) -> None:
        match outage.kind:
            case "black_hole" | "delay":
                await hang(receive)
            case "rate_limit":
                await _refuse(rate_limited(hint_headers(outage.hint, outage.retry_after_s)), scope, receive, send)
            case "account_refused":
                await _refuse(account_refused(outage.message), scope, receive, send)
            case "unauthorized":
                await _refuse(unauthorized(), scope, receive, send)
            case "forbidden":
                await _refuse(forbidden(), scope, receive, send)
            case "reset" | "server_error" | "html" | "truncated" | "redirect" | "foreign":
                await spoil(outage.kind, scope, receive, send)


async def _refuse(refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    await refusal_answer(refusal)(scope, receive, send)


async def _swallow(message: Message) -> None:
    """An answer that is lost on the way."""


def _credentials(scope: Scope) -> tuple[bytes, bytes] | None:
    headers = dict(scope["headers"])
    key_id, secret_key = headers.get(b"apca-api-key-id"), headers.get(b"apca-api-secret-key")
    if key_id is not None and secret_key is not None:
        return key_id, secret_key
    scheme, _, encoded = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        user, _, password = base64.b64decode(encoded, validate=True).partition(b":")
    except binascii.Error:
        return None
    return user, password
