"""The application with its operator routes, on a database with closes in every state."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import httpx

from close_api.auth.caller import Caller, Scope
from close_api.auth.rate_limit import RateLimits
from close_api.batching import Batches
from close_api.doors import make_doors
from close_api.rest.app import build_app
from closeflow.domain.close.accept import CloseCommand, Decision
from closeflow.domain.model import BrokerStatus
from tests.closectl.seeding import ACCOUNT, REQUESTS, Closes
from tests.conftest import Database
from tests.doors.books import (
    EVERYONE,
    MINE,
    OPERATOR,
    STRANGER,
    TRACEPARENT,
    caller,
    closes,
    pool,
    run,
)
from tests.doors.documented import undocumented

Writes = tuple[tuple[str, str, dict[str, object]], ...]
WHY: Final = {"reason": "asked by the desk"}
RETRYABLE: Final = REQUESTS[6]
CALLERS: Final[Mapping[str, Caller]] = {
    "mine": MINE,
    "stranger": STRANGER,
    "everyone": EVERYONE,
    "reader": caller(ACCOUNT, scopes=frozenset({Scope.READ, Scope.WRITE})),
}
_LIMITS: Final = (
    "INSERT INTO account_limits (account_id, max_order_qty, max_order_notional, submits_per_minute)"
    " VALUES ('main', 1000, 1000000, 100), ('other', 5, 50, 1) ON CONFLICT (account_id) DO UPDATE"
    " SET max_order_qty = EXCLUDED.max_order_qty, max_order_notional = EXCLUDED.max_order_notional,"
    " submits_per_minute = EXCLUDED.submits_per_minute"
)


class Known:
    """Takes the name of one of CALLERS for a token."""

    async def caller(self, authorization: str | None) -> Caller:
        return CALLERS[authorization or "mine"]


@dataclass(frozen=True)
class Rest:
    """The application on a database with closes in every state; 6 is retryable."""

    client: httpx.AsyncClient
    database: Database
    closes: Closes

    async def get(self, path: str, who: str = "mine", **query: object) -> Any:
        answer = await self.call("GET", path, who, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json(parse_float=Decimal)

    async def call(self, method: str, path: str, who: str = "mine", **given: Any) -> httpx.Response:
        headers = {"authorization": who, "traceparent": TRACEPARENT}
        answer = await self.client.request(method, f"/v1/operator/{path}", headers=headers, **given)
        if not path.startswith("senders/h"):  # Of a name with a slash in it the address fits none of the document's.
            assert undocumented(answer) == []
        return answer

    async def done(self, path: str, who: str = "mine", *, method: str = "POST", **body: object) -> tuple[str, str]:
        answer = await self.call(method, path, who, content=json.dumps({**WHY, **body}))
        assert answer.status_code == 200, answer.text
        assert answer.json().keys() == {"outcome", "what"}
        return answer.json()["outcome"], answer.json()["what"]

    async def refused(
        self, path: str, who: str = "mine", *, method: str = "POST", **body: object
    ) -> tuple[int, str, list[str]]:
        answer = await self.call(method, path, who, content=json.dumps({**WHY, **body}))
        told = answer.json()
        assert answer.headers["content-type"] == "application/problem+json"
        return answer.status_code, told["code"], told.get("reasons", [])

    def actions(self) -> list[tuple[Any, ...]]:
        return run(
            self.database, "SELECT by, action, subject, reason, account_id, trace_id FROM operator_actions ORDER BY id"
        )


@asynccontextmanager
async def serving(database: Database, *, operators: bool = True) -> AsyncIterator[httpx.AsyncClient]:
    async def nothing(_: object) -> list[Decision | Exception]:
        raise AssertionError("nobody closes here")

    batches: Batches[CloseCommand, Decision] = Batches(work=nothing, capacity=1, size=1, in_flight=1)
    async with pool(database) as engine, pool(database, OPERATOR) as operator_engine:
        doors = make_doors(
            engine,
            batches,
            identity=Known(),
            rates=RateLimits(limit=1_000_000, window_s=1),
            slot="closeflow",
            deadline_s=5.0,
            stopping=asyncio.Event(),
            operator_engine=operator_engine if operators else None,
        )
        transport = httpx.ASGITransport(build_app(doors), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://api", timeout=20) as client:
            yield client


@asynccontextmanager
async def with_closes(database: Database) -> AsyncIterator[Rest]:
    async with closes(database) as made, serving(database) as client:
        await made.accept(6)
        await made.submit(6)
        await made.state(6, BrokerStatus.CANCELED, cum="0")
        run(database, "INSERT INTO accounts (account_id, broker) VALUES ('other', 'alpaca')")
        run(database, _LIMITS)
        yield Rest(client, database, made)
