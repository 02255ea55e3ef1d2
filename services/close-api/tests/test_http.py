"""The answers of the contract, byte by byte, from the decisions behind them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import httpx
import pytest
from doors import doors_of
from prometheus_client import REGISTRY

from close_api.batching import Batches
from close_api.close_body import CloseBody
from close_api.errors import STATUSES, Code
from close_api.rest.app import build_app
from closeflow.clock import monotonic
from closeflow.domain.close.accept import (
    Accepted,
    AlreadyClosing,
    CloseCommand,
    Decision,
    ExposureUnproven,
    FieldInvalid,
    KeyReused,
    NotFound,
    PositionClosed,
    Replayed,
    ZeroQuantity,
    accept_close,
)
from closeflow.domain.model import AssetType, Book, Position, PositionStatus
from closeflow.domain.trading_controls import TradingState
from closeflow.storage.close_requests import DatabaseAway, RowRefused
from closeflow.storage.core.engine import make_engine

NOW: Final = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
ACTIVE: Final = UUID(int=5)
BOOK: Final = Book(
    position=Position(
        id=7,
        account_id="ACC",
        symbol="BTC/USD",
        asset_type=AssetType.CRYPTO,
        multiplier=Decimal(1),
        currency="USD",
        opening_quantity=Decimal("0.1"),
        quantity=Decimal("0.300000001"),
        status=PositionStatus.OPEN,
        version=1,
    ),
    base_quantity=Decimal("0.300000001"),
    ledger_quantity=Decimal("0.300000001"),
)


class Deciding:
    """Answers every close with the given outcome, or as the domain decides about BOOK; keeps what it was asked."""

    def __init__(self, outcome: Decision | Exception | None = None) -> None:
        self.outcome = outcome
        self.asked: list[CloseCommand] = []

    async def __call__(self, commands: Sequence[CloseCommand]) -> list[Decision | Exception]:
        self.asked += commands
        if self.outcome is not None:
            return [self.outcome] * len(commands)
        return [accept_close(BOOK, command, None, trading=TradingState.ACTIVE, now=NOW) for command in commands]


@asynccontextmanager
async def calling(work: Deciding, *, capacity: int = 10) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application. Its database is an address where nothing listens."""
    batches: Batches[CloseCommand, Decision] = Batches(work=work, capacity=capacity, size=64, in_flight=1)
    engine = make_engine("postgresql://nobody@127.0.0.1:1/none", pool_size=1, application_name="test")
    app = build_app(doors_of(engine, batches))
    stop = asyncio.Event()
    task = asyncio.create_task(batches.run(stop))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        yield client
    stop.set()
    await task


async def close(client: httpx.AsyncClient, path: str = "/v1/positions/7/close", **given: Any) -> httpx.Response:
    return await client.post(path, headers={"Idempotency-Key": "k"}, **given)


async def test_an_accepted_close_says_where_to_follow_it() -> None:
    work = Deciding()
    async with calling(work) as client:
        answer = await close(client, content='{"quantity": 0.1}')
    body = answer.json(parse_float=Decimal)
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/v1/close-requests/{work.asked[0].request_id}"
    assert len(answer.headers["trace-id"]) == 32
    assert body == {
        "close_request_id": str(work.asked[0].request_id),
        "position_id": 7,
        "position_status": "closing",
        "close_request_status": "pending",
        "symbol": "BTC/USD",
        "side": "sell",
        "target_qty": Decimal("0.1"),
        "filled_qty": 0,
        "remaining_qty": Decimal("0.1"),
        "retry_count": 0,
        "created_at": "2026-03-02T15:00:00Z",
        "submitted_at": None,
        "completed_at": None,
        "reason": None,
    }


async def test_quantities_keep_every_digit() -> None:
    exact = "123456789012345.123456789"
    position = replace(BOOK.position, quantity=Decimal(exact))
    accepted = accept_close(replace(BOOK, position=position), _command(), None, trading=TradingState.ACTIVE, now=NOW)
    async with calling(Deciding(accepted)) as client:
        answer = await close(client)
    assert f'"target_qty":{exact},"filled_qty":0,"remaining_qty":{exact},' in answer.text


async def test_a_replay_is_marked_and_shows_the_state_now() -> None:
    accepted = accept_close(BOOK, _command(), None, trading=TradingState.ACTIVE, now=NOW)
    assert isinstance(accepted, Accepted)
    now_closed = replace(BOOK.position, status=PositionStatus.CLOSED)
    async with calling(Deciding(Replayed(now_closed, accepted.request))) as client:
        answer = await close(client)
    assert (answer.status_code, answer.headers["idempotency-replayed"]) == (200, "true")
    assert answer.json()["position_status"] == "closed"


@pytest.mark.parametrize(
    ("outcome", "status", "detail"),
    [
        (NotFound(7), 404, {"error": "not_found"}),
        (KeyReused(ACTIVE), 422, {"error": "idempotency_key_reused"}),
        (PositionClosed(7), 409, {"error": "position_closed"}),
        (AlreadyClosing(7, ACTIVE), 409, {"error": "position_already_closing", "active_close_request_id": str(ACTIVE)}),
        (ExposureUnproven(7), 409, {"error": "exposure_unproven"}),
        (
            FieldInvalid(7, "quantity", "must be whole"),
            422,
            {"error": "invalid_fields", "fields": [{"field": "quantity", "message": "must be whole"}]},
        ),
        (DatabaseAway("x"), 503, {"error": "unavailable"}),
        (RowRefused("x"), 503, {"error": "unavailable"}),
        (RuntimeError("secret"), 500, {"error": "internal_error"}),
    ],
)
async def test_each_refusal_has_its_status_and_code(
    outcome: Decision | Exception, status: int, detail: dict[str, object]
) -> None:
    async with calling(Deciding(outcome)) as client:
        answer = await close(client)
    found = answer.json()
    code = detail.pop("error")
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, found["status"], found["code"]) == (status, status, code)
    assert found["type"] == f"/docs/errors#{code}"
    assert found["trace_id"] == answer.headers["trace-id"]
    assert {name: found[name] for name in detail} == detail
    assert found["detail"].endswith(".")
    assert answer.headers["should-retry"] == ("true" if status == 503 else "false")
    assert "secret" not in answer.text


@pytest.mark.parametrize("outcome", [PositionClosed(7), AlreadyClosing(7, ACTIVE)])
async def test_the_seeds_route_keeps_the_seeds_error_bodies(outcome: Decision) -> None:
    async with calling(Deciding(outcome)) as client:
        answer = await close(client, "/api/options/7/close")
    detail = answer.json()["detail"]
    assert (answer.status_code, answer.headers["content-type"]) == (409, "application/json")
    assert detail["error"] in ("position_closed", "position_already_closing")
    assert ("active_close_request_id" in detail) == isinstance(outcome, AlreadyClosing)


async def test_what_helps_later_says_when() -> None:
    async with calling(Deciding(DatabaseAway("x"))) as client:
        answer = await close(client)
    status = answer.status_code
    assert ("retry-after" in answer.headers) == (status == 503)
    assert "trace-id" in answer.headers


async def test_a_zero_quantity_is_answered_in_plain_words() -> None:
    async with calling(Deciding(ZeroQuantity(7))) as client:
        answers = [await close(client), await close(client, "/api/options/7/close")]
    assert [answer.status_code for answer in answers] == [400, 400]
    assert all("zero quantity" in answer.json()["detail"] for answer in answers)


async def test_a_full_queue_asks_to_come_back() -> None:
    work = Deciding()
    began = monotonic()
    async with calling(work, capacity=1) as client:
        answers = await asyncio.gather(*(close(client) for _ in range(20)))
    assert monotonic() - began >= 0.1, "told at once, callers would ask again at once"
    refused = [answer for answer in answers if answer.status_code == 503]
    assert refused
    assert {answer.json()["code"] for answer in refused} == {"overloaded"}
    assert {answer.headers["retry-after"] for answer in refused} == {"1"}
    assert len(work.asked) == len(answers) - len(refused)


async def test_the_route_for_options_asks_for_an_option() -> None:
    work = Deciding()
    async with calling(work) as client:
        assert (await close(client, "/api/options/7/close")).status_code == 404
        assert (await close(client)).status_code == 201
    assert [command.only for command in work.asked] == [AssetType.OPTION, None]


async def test_every_not_found_is_the_same_bytes() -> None:
    async with calling(Deciding(NotFound(7))) as client:
        trace = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
        key = {"Idempotency-Key": "k", **trace}
        answers = [
            await client.post("/v1/positions/7/close", headers=key),
            await client.post("/v1/positions/8/close", headers=key),
            await client.get("/nowhere", headers=trace),
        ]
    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.content for answer in answers}) == 1


@pytest.mark.parametrize("position_id", ["0", "-1", str(2**63), "1 OR 1=1", "1%00", "%F0%9F%92%A3", "null", "1e3"])
@pytest.mark.parametrize("path", ["/v1/positions/{}/close", "/api/options/{}/close"])
async def test_an_impossible_id_is_refused_before_anything_is_asked(path: str, position_id: str) -> None:
    work = Deciding()
    async with calling(work) as client:
        answer = await close(client, path.format(position_id))
    problem = answer.json() if path.startswith("/v1") else answer.json()["detail"]
    assert (answer.status_code, problem.get("code", problem.get("error"))) == (422, "invalid_fields")
    assert not work.asked


async def test_bad_keys_and_bodies_never_reach_the_decision() -> None:
    work = Deciding()
    async with calling(work) as client:
        answers = [
            await client.post("/v1/positions/7/close"),
            await client.post("/v1/positions/7/close", headers={"Idempotency-Key": '"'}),
            await close(client, content="null"),
            await close(client, content='{"quantity": NaN}'),
            await close(client, content=b"x" * 70_000),
            await client.put("/v1/positions/7/close"),
        ]
    assert [answer.status_code for answer in answers] == [400, 400, 400, 422, 413, 405]
    assert not work.asked


async def test_without_its_database_it_lives_but_is_not_ready() -> None:
    async with calling(Deciding()) as client:
        healthz, readyz = await client.get("/healthz"), await client.get("/readyz")
        shown = [await client.get("/v1/positions/7"), await client.get(f"/v1/close-requests/{ACTIVE}")]
        metrics = await client.get("/metrics")
    assert (healthz.status_code, readyz.status_code) == (200, 503)
    assert readyz.json()["status"] == "unready"
    assert [answer.status_code for answer in shown] == [503, 503]
    assert "close_api_closes_total" in metrics.text


@pytest.mark.parametrize(
    "path", ["/v1/positions/7", f"/v1/close-requests/{ACTIVE}", "/healthz", "/readyz", "/metrics", "/openapi.json"]
)
async def test_no_address_drops_a_query_or_a_body(path: str) -> None:
    async with calling(Deciding()) as client:
        answers = [await client.get(path, params={"nothing": "30s"}), await client.request("GET", path, content=b"{}")]
    assert [answer.status_code for answer in answers] == [422, 400]
    assert answers[0].json()["fields"][0]["field"] == "nothing"


@pytest.mark.parametrize("path", ["/v1/positions/7/close", "/api/options/7/close"])
@pytest.mark.parametrize("query", ["qty=3", "quantity=3", "percentage=50", "dry_run=true", "dry_run"])
async def test_a_close_with_a_query_is_refused_before_anything_is_asked(path: str, query: str) -> None:
    work = Deciding()
    async with calling(work) as client:
        answer = await close(client, f"{path}?{query}")
        assert (await close(client, f"{path}?")).status_code in (201, 404)
    assert answer.status_code == 422
    problem = answer.json() if path.startswith("/v1") else answer.json()["detail"]
    assert [one["field"] for one in problem["fields"]] == [query.partition("=")[0]]
    assert len(work.asked) == 1


async def test_head_is_answered_as_get_without_the_body() -> None:
    async with calling(Deciding()) as client:
        for path in ("/healthz", "/readyz", "/metrics"):
            assert (await client.head(path)).status_code == (await client.get(path)).status_code


async def test_no_address_is_redirected() -> None:
    async with calling(Deciding()) as client:
        answer = await client.post(
            "/v1/positions/7/close/", headers={"Idempotency-Key": "k", "Host": "elsewhere.example"}
        )
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert "location" not in answer.headers


async def test_the_trace_of_the_caller_goes_on() -> None:
    work = Deciding()
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    async with calling(work) as client:
        answer = await client.post(
            "/v1/positions/7/close",
            headers={"Idempotency-Key": "k", "traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"},
        )
    assert answer.headers["trace-id"] == trace_id
    traceparent = work.asked[0].traceparent
    assert traceparent is not None
    assert trace_id in traceparent
    assert "00f067aa0ba902b7" not in traceparent


async def test_the_openapi_document_says_what_the_routes_do() -> None:
    async with calling(Deciding()) as client:
        document = (await client.get("/openapi.json")).json()
    assert set(document["paths"]) >= {
        "/api/options/{position_id}/close",
        "/v1/positions/{position_id}/close",
        "/v1/positions:batchClose",
        "/v1/positions/{position_id}",
        "/v1/positions",
        "/v1/close-requests/{close_request_id}",
        "/v1/close-requests/{close_request_id}/watch",
        "/v1/close-requests/{close_request_id}/timeline",
        "/v1/close-requests/{close_request_id}/cancel",
        "/v1/close-requests",
    }
    operation = document["paths"]["/v1/positions/{position_id}/close"]["post"]
    assert set(operation["responses"]) == {"200", "201", "429", "500", "503"} | {
        f"4{n}" for n in ("00", "01", "03", "04", "08", "09", "11", "12", "13", "15", "17", "22")
    }
    assert [one["name"] for one in operation["parameters"]] == ["position_id", "Idempotency-Key", "If-Match"]
    body = document["components"]["schemas"]["CloseBody"]
    assert set(body["properties"]) == set(CloseBody.model_fields)
    assert (body["additionalProperties"], body["properties"]["quantity"]["type"]) == (False, "number")
    text = json.dumps(document)
    assert all(f'"{code}"' in text for code in Code)


def test_every_code_has_a_status() -> None:
    assert set(STATUSES) == set(Code)


def _command() -> CloseCommand:
    return CloseCommand(request_id=ACTIVE, position_id=7, idempotency_key="k", requested_by="desk")


async def test_readiness_ends_when_the_service_is_asked_to_stop() -> None:
    batches: Batches[CloseCommand, Decision] = Batches(work=Deciding(), capacity=1, size=1, in_flight=1)
    engine = make_engine("postgresql://nobody@127.0.0.1:1/none", pool_size=1, application_name="test")
    doors = doors_of(engine, batches)
    transport = httpx.ASGITransport(build_app(doors))
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        before = (await client.get("/readyz")).json()["reasons"]
        doors.stopping.set()
        answer = await client.get("/readyz")
    assert before == ["the database does not answer"]
    assert (answer.status_code, answer.json()["reasons"]) == (503, ["the service is stopping"])


def _counted(answer: str) -> float:
    return REGISTRY.get_sample_value("close_api_closes_total", {"answer": answer}) or 0.0


async def test_each_close_counts_once_by_its_answer_and_nothing_else_does() -> None:
    names = ("position_closed", "invalid_fields", "idempotency_key_missing", "not_found", "malformed_body")
    before = {name: _counted(name) for name in names}
    closes = [{"position_id": 7, "idempotency_key": "a"}, {"position_id": 0, "idempotency_key": "b"}]
    async with calling(Deciding(PositionClosed(7))) as client:
        await close(client)
        await close(client, "/api/options/7/close")
        await client.post("/v1/positions/7/close")
        await client.post("/v1/positions:batchClose", json={"closes": closes})
        await client.post("/v1/close-requests/none/cancel")
        await client.post("/v1/operator/incidents/7/close", json={"reason": "seen"})
        await client.post("/v1/close-requests/none/cancel", content="[")
    assert [_counted(name) - before[name] for name in names] == [3, 1, 1, 0, 0]


async def test_a_dry_run_is_no_accepted_close() -> None:
    before = _counted("accepted"), _counted("dry_run")
    async with calling(Deciding()) as client:
        for body in ({"dry_run": True}, {"dry_run": False}, {"dry_run": True}):
            await close(client, json=body)
    assert (_counted("accepted") - before[0], _counted("dry_run") - before[1]) == (1, 2)
