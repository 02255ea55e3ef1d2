"""Whatever a call gets, the OpenAPI document says: its status, headers, body and code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

import pytest

from close_api.auth.caller import ANYONE, Caller
from close_api.auth.rate_limit import RateLimits
from close_api.errors import Code, Problem
from closeflow.domain.close.accept import (
    AlreadyClosing,
    CloseCommand,
    Decision,
    ExpectationFailed,
    ExposureUnproven,
    FieldInvalid,
    KeyReused,
    NotFound,
    PositionClosed,
    Replayed,
    TradingHalted,
    ZeroQuantity,
)
from closeflow.storage.close_requests import DatabaseAway

from .documented import operations, undocumented
from .scripted import BOOK, accept, calling

ACTIVE: Final = UUID("01978f6e-7a1c-7c3a-9f53-0d7c5b1f6a20")
KEY: Final = {"Idempotency-Key": "k"}
REQUEST: Final = "/v1/close-requests/01978f6e-7a1c-7c3a-9f53-0d7c5b1f6a20"
CLOSES: Final = ("/v1/positions/7/close", "/api/options/7/close")
READS: Final = (
    "/v1/positions/7", "/v1/positions", REQUEST, "/v1/close-requests", f"{REQUEST}/timeline", f"{REQUEST}/watch",
    "/v1/incidents", "/v1/status", "/v1/close-requests:waiting",
)  # fmt: skip
CALLER: Final = "/v1/caller"
WRITES: Final = (*CLOSES, "/v1/positions:batchClose", f"{REQUEST}/cancel")
SERVICE: Final = ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs/errors")


def _command(*, dry_run: bool = False) -> CloseCommand:
    return CloseCommand(request_id=ACTIVE, position_id=7, idempotency_key="k", requested_by="desk", dry_run=dry_run)


def _replayed() -> Replayed:
    accepted = accept(_command())
    return Replayed(accepted.book.position, accepted.request)


class Stranger:
    """Nobody that is known."""

    async def caller(self, authorization: str | None) -> Caller:
        raise Problem(Code.UNAUTHENTICATED, headers={"www-authenticate": 'Bearer realm="closeflow"'})


class Powerless:
    """Somebody whose token has no scope."""

    async def caller(self, authorization: str | None) -> Caller:
        return replace(ANYONE, scopes=frozenset())


def asked(path: str) -> dict[str, Any]:
    """What makes a good call of it."""
    if path.endswith(":batchClose"):
        return {"headers": KEY, "json": {"closes": [{"position_id": 7}, {"position_id": 8, "quantity": 0}, 3]}}
    return {"headers": KEY} if path in CLOSES else {}


@pytest.mark.parametrize("path", [*CLOSES, "/v1/positions:batchClose"])
@pytest.mark.parametrize(
    "outcome",
    [
        None,
        _replayed(),
        NotFound(7),
        KeyReused(ACTIVE),
        TradingHalted(7),
        PositionClosed(7),
        ZeroQuantity(7),
        AlreadyClosing(7, ACTIVE),
        AlreadyClosing(7, None),
        ExposureUnproven(7),
        ExpectationFailed(7, BOOK.position.quantity, 4),
        FieldInvalid(7, "quantity", "must be whole"),
        DatabaseAway("x"),
        TimeoutError(),
        RuntimeError("a defect"),
    ],
    ids=repr,
)
async def test_what_becomes_of_a_close_is_documented(path: str, outcome: Decision | Exception | None) -> None:
    async with calling(outcome) as client:
        answer = await client.post(path, **asked(path))
    assert undocumented(answer) == []


@pytest.mark.parametrize("path", CLOSES)
async def test_a_dry_run_is_documented(path: str) -> None:
    async with calling(accept(_command(dry_run=True))) as client:
        answer = await client.post(path, headers=KEY, json={"dry_run": True})
    assert answer.json()["dry_run"] is True
    assert undocumented(answer) == []


@pytest.mark.parametrize("path", WRITES)
@pytest.mark.parametrize(
    ("code", "given"),
    [
        ("invalid_fields", {"params": {"quantity": "3"}}),
        ("invalid_fields", {"json": {"nothing": 1}}),
        ("malformed_body", {"content": "null"}),
        ("malformed_request", {"content": "{}", "headers": {"Transfer-Encoding": "gzip"}}),
        ("expectation_failed", {"headers": {"Expect": "200-ok"}}),
        ("length_required", {"headers": {"Content-Type": "application/json", "Content-Length": ""}}),
        ("unsupported_media_type", {"content": "{}", "headers": {"Content-Type": "text/plain"}}),
        ("unsupported_media_type", {"content": "{}", "headers": {"Content-Encoding": "gzip"}}),
        ("body_too_large", {"content": b" " * 1_100_000}),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
async def test_what_a_write_refuses_is_documented(path: str, code: str, given: Mapping[str, Any]) -> None:
    async with calling() as client:
        call = client.build_request("POST", path, **{**given, "headers": {**KEY, **given.get("headers", {})}})
        if call.headers.get("content-length") == "":
            del call.headers["content-length"]
        answer = await client.send(call)
    assert code in answer.text
    assert undocumented(answer) == []


@pytest.mark.parametrize("path", [*CLOSES, "/v1/positions:batchClose"])
@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": ""}, {"Idempotency-Key": '"'}])
async def test_what_is_said_of_a_key_is_documented(path: str, headers: dict[str, str]) -> None:
    async with calling() as client:
        answer = await client.post(path, headers=headers, json=asked(path).get("json"))
    assert undocumented(answer) == []


@pytest.mark.parametrize("path", [*READS, *SERVICE])
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"params": {"nothing": "1"}},
        {"content": "{}"},
        {"headers": {"Transfer-Encoding": "gzip"}},
        {"headers": {"Expect": "200-ok"}},
    ],
    ids=repr,
)
async def test_what_a_read_answers_without_a_database_is_documented(path: str, given: Mapping[str, Any]) -> None:
    async with calling() as client:
        answer = await client.request("GET", path, **given)
    assert undocumented(answer) == []


@pytest.mark.parametrize("path", [*READS, *WRITES])
@pytest.mark.parametrize(("who", "status"), [(Stranger(), 401), (Powerless(), 403)], ids=["stranger", "powerless"])
async def test_who_may_not_is_told_as_documented(path: str, who: Stranger | Powerless, status: int) -> None:
    async with calling(identity=who) as client:
        answer = await client.request("POST" if path in WRITES else "GET", path, **asked(path))
    assert answer.status_code == status
    assert undocumented(answer) == []


@pytest.mark.parametrize("path", WRITES)
async def test_who_asks_too_often_is_told_as_documented(path: str) -> None:
    async with calling(rates=RateLimits(limit=1, window_s=3600)) as client:
        answers = [await client.post(path, **asked(path)) for _ in range(5)]
    assert answers[-1].status_code == 429
    assert [undocumented(answer) for answer in answers] == [[]] * 5


@pytest.mark.parametrize(
    "given", [{}, {"params": {"nothing": "1"}}, {"content": "{}"}], ids=["as documented", "a parameter", "a body"]
)
@pytest.mark.parametrize(
    ("who", "status"), [(None, 200), (Powerless(), 200), (Stranger(), 401)], ids=["caller", "powerless", "stranger"]
)
async def test_who_calls_is_told_as_documented(
    who: Stranger | Powerless | None, status: int, given: Mapping[str, Any]
) -> None:
    async with calling(identity=who) as client:
        answer = await client.request("GET", CALLER, **given)
    assert answer.status_code == (422 if "params" in given else 400 if given else status)
    assert undocumented(answer) == []


def test_every_operation_is_called_here() -> None:
    """Those of operators are in test_operating."""
    called = {
        path.replace("/7", "/{position_id}").replace(REQUEST, "/v1/close-requests/{close_request_id}")
        for path in (*READS, *WRITES, *SERVICE, CALLER)
    }
    described = {place[1] for place, _ in operations() if not place[1].startswith("/v1/operator/")}
    assert described - called == set()
