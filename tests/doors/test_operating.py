"""Operators over REST: what closectl does, by token, with the same records, and only for the token's accounts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import httpx
import pytest

import devstack
from close_api.auth.caller import Caller, Scope
from close_api.auth.rate_limit import RateLimits
from close_api.batching import Batches
from close_api.doors import make_doors
from close_api.rest.app import build_app
from close_api.use_cases.operating import OFF
from closeflow.domain.close.accept import CloseCommand, Decision
from closeflow.domain.model import BrokerStatus
from tests.closectl.seeding import ACCOUNT, REQUESTS, Closes, order_id
from tests.conftest import Database, fresh_database
from tests.doors.books import (
    COMPLETED,
    EVERYONE,
    FAILED,
    MINE,
    NOWHERE,
    OPERATOR,
    PENDING,
    STRANGER,
    TRACE,
    TRACEPARENT,
    WORKING,
    caller,
    closes,
    pool,
    run,
)
from tests.doors.conftest import MINE as MY_ACCOUNT
from tests.doors.conftest import Desk
from tests.doors.documented import DOCUMENT, undocumented

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
_GAP: Final = "UPDATE orders SET stated_cum_qty = 3 WHERE client_order_id = %s"


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


@pytest.fixture
async def rest(database: Database) -> AsyncIterator[Rest]:
    async with with_closes(database) as made:
        yield made


@pytest.fixture(scope="module")
async def still(stack: devstack.Stack, template: str) -> AsyncIterator[Rest]:
    """For the tests that change nothing; there is incident 1, of position 3."""
    with fresh_database(stack, template) as database:
        async with with_closes(database) as made:
            run(database, "INSERT INTO incidents (kind, severity, position_id) VALUES ('gap', 'warning', 3)")
            yield made


@pytest.fixture(scope="module")
async def off(still: Rest) -> AsyncIterator[httpx.AsyncClient]:
    """Without the operator's role."""
    async with serving(still.database, operators=False) as client:
        yield client


WRITES: Final[Writes] = (
    ("PUT", "trading-controls/main", {"state": "halted"}),
    ("PUT", "limits/main", {"submits_per_minute": 7}),
    ("POST", "incidents/1/close", {}),
    ("POST", f"close-requests/{RETRYABLE}/retry", {}),
    ("POST", f"close-requests/{RETRYABLE}/abandon", {}),
    ("POST", "positions/3/adjust", {"delta": -1, "expected_quantity": -3}),
    ("POST", "positions/3/end", {"ending": "expired", "expected_quantity": -3}),
    ("POST", f"orders/{order_id(3)}/execution", {"exec_id": "e", "quantity": 1, "price": 9}),
)
GLOBAL_WRITES: Final[Writes] = (
    ("PUT", "trading-controls/global", {"state": "halted"}),
    ("POST", "senders/host-1/7/exited", {}),
)
READS: Final = ("trading-controls", "limits", "incidents", "incidents/1", "senders", "actions")


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
async def test_an_operator_of_another_account_finds_nothing_to_operate_on(
    still: Rest, method: str, path: str, body: dict[str, object]
) -> None:
    theirs = await still.call(method, path, "stranger", json={**WHY, **body})
    absent = await still.call(method, _nowhere(path), "stranger", json={**WHY, **body})
    assert (theirs.status_code, theirs.content) == (absent.status_code, absent.content)
    assert (theirs.status_code, theirs.json()["code"]) == (404, "not_found")
    assert still.actions() == []


def _nowhere(path: str) -> str:
    for here, there in (
        ("/main", "/nobody"),
        ("incidents/1/", "incidents/999/"),
        (str(RETRYABLE), str(NOWHERE)),
        ("positions/3/", "positions/999/"),
        (order_id(3), f"cf-{NOWHERE.hex}-1"),
    ):
        if here in path:
            return path.replace(here, there)
    raise AssertionError(path)


@pytest.mark.parametrize(("method", "path", "body"), GLOBAL_WRITES)
async def test_what_concerns_every_account_needs_all_of_them(
    still: Rest, method: str, path: str, body: dict[str, Any]
) -> None:
    assert (await still.refused(path, method=method, **body))[:2] == (403, "forbidden")
    assert (await still.call("GET", "senders")).status_code == 403


@pytest.mark.parametrize(("method", "path", "body"), [*WRITES, *GLOBAL_WRITES, *(("GET", one, None) for one in READS)])
async def test_operating_needs_its_scope(rest: Rest, method: str, path: str, body: dict[str, object] | None) -> None:
    answer = await rest.call(method, path, "reader", json=None if body is None else {**WHY, **body})
    assert (answer.status_code, answer.json()["code"], answer.json()["scope"]) == (403, "forbidden", "close:operate")


@pytest.mark.parametrize(("method", "path", "body"), [*WRITES, *GLOBAL_WRITES, *(("GET", one, None) for one in READS)])
async def test_without_the_operators_role_it_is_told_what_is_missing(
    off: httpx.AsyncClient, method: str, path: str, body: dict[str, object] | None
) -> None:
    given = None if body is None else {**WHY, **body}
    answer = await off.request(method, f"/v1/operator/{path}", headers={"authorization": "everyone"}, json=given)
    assert (answer.status_code, answer.json()["code"], answer.json()["reason"]) == (404, "not_found", OFF)
    assert "CLOSE_API_OPERATOR_POSTGRES_DSN" in OFF


@pytest.mark.parametrize(("method", "path", "body"), [*WRITES, *GLOBAL_WRITES])
@pytest.mark.parametrize("reason", [None, "", "a\nb", 7, "x" * 501])
async def test_nothing_is_done_without_a_reason(
    still: Rest, method: str, path: str, body: dict[str, object], reason: object
) -> None:
    given = body if reason is None else {**body, "reason": reason}
    answer = await still.call(method, path, "everyone", json=given)
    assert answer.status_code == 422
    assert [one["field"] for one in answer.json()["fields"]] == ["reason"]
    assert still.actions() == []


async def test_trading_is_halted_and_released_per_account_and_for_all(rest: Rest) -> None:
    path = "trading-controls"
    assert await rest.done(f"{path}/main", method="PUT", state="halted") == (
        "done",
        "trading of account main is halted",
    )
    assert (await rest.done(f"{path}/main", method="PUT", state="halted"))[0] == "already"
    assert (await rest.done(f"{path}/global", "everyone", method="PUT", state="reducing"))[0] == "done"
    shown = (await rest.get(path))["controls"]
    assert [(one["scope"], one["state"], one["by"]) for one in shown] == [
        ("global", "reducing", "chief"),
        ("main", "halted", "desk"),
    ]
    assert [one["scope"] for one in (await rest.get(path, "stranger"))["controls"]] == ["global"]
    outcome, what = await rest.done(f"{path}/main", method="PUT", state="active")
    assert (outcome, what) == ("done", "trading of account main is active; still, trading is reducing")
    assert rest.actions() == [
        ("desk", "halt", "main", WHY["reason"], "main", TRACE),
        ("chief", "reduce", "global", WHY["reason"], None, TRACE),
        ("desk", "release", "main", WHY["reason"], "main", TRACE),
    ]


async def test_limits_change_where_they_are_given(rest: Rest) -> None:
    assert (await rest.done("limits/main", method="PUT", max_order_qty=7, submits_per_minute=9))[0] == "done"
    assert (await rest.done("limits/main", method="PUT", max_order_qty=7))[0] == "already"
    (mine,) = (await rest.get("limits"))["limits"]
    assert (mine["account_id"], mine["max_order_qty"], mine["max_order_notional"], mine["submits_per_minute"]) == (
        "main",
        7,
        1_000_000,
        9,
    )
    assert [one["account_id"] for one in (await rest.get("limits", "everyone"))["limits"]] == ["main", "other"]
    assert (await rest.get("limits", account="other")) == {"limits": []}
    assert [row[:3] for row in rest.actions()] == [("desk", "set_limits", "main")]


async def test_incidents_are_listed_page_by_page_and_closed(rest: Rest) -> None:
    run(
        rest.database,
        "INSERT INTO incidents (kind, severity, close_request_id, client_order_id, position_id, detail) VALUES"
        " ('gap', 'warning', NULL, NULL, 3, '{\"text\": \"3 of it\"}'), ('gap', 'warning', %s, NULL, NULL, '{}'),"
        " ('gap', 'warning', NULL, %s, NULL, '{}'), ('slot_lost', 'critical', NULL, NULL, NULL, '{}')",
        WORKING,
        order_id(1),
    )
    first = await rest.get("incidents", page_size=2)
    assert [one["close_request_id"] for one in first["incidents"]] == [str(COMPLETED), str(WORKING)]
    second = await rest.get("incidents", page_size=2, page_token=first["next_page_token"])
    assert [one["detail"] for one in second["incidents"]] == ["3 of it"]
    assert second["next_page_token"] == ""
    assert {one["account_id"] for one in first["incidents"] + second["incidents"]} == {"main"}
    assert (await rest.get("incidents", "stranger"))["incidents"] == []
    everything = (await rest.get("incidents", "everyone"))["incidents"]
    assert [one["kind"] for one in everything] == ["slot_lost", "gap", "gap", "gap"]
    assert [one["kind"] for one in (await rest.get("incidents", "everyone", account="main"))["incidents"]] == [
        "gap"
    ] * 3

    number = second["incidents"][0]["id"]
    assert await rest.done(f"incidents/{number}/close") == ("done", f"incident {number} (gap) is closed")
    assert (await rest.done(f"incidents/{number}/close"))[0] == "already"
    assert len((await rest.get("incidents"))["incidents"]) == 2
    assert len((await rest.get("incidents", closed="true", kind="gap"))["incidents"]) == 3
    shown = await rest.get(f"incidents/{number}")
    assert (shown["closed_by"], shown["resolution"]) == ("desk", WHY["reason"])
    global_one = everything[0]["id"]
    assert (await rest.call("GET", f"incidents/{global_one}")).status_code == 404
    assert (await rest.refused(f"incidents/{global_one}/close"))[0] == 404
    assert (await rest.done(f"incidents/{global_one}/close", "everyone"))[0] == "done"
    assert [(row[1], row[4]) for row in rest.actions()] == [("close_incident", "main"), ("close_incident", None)]


async def test_a_close_that_an_incident_froze_goes_on(rest: Rest) -> None:
    run(rest.database, "UPDATE close_requests SET frozen_reason = 'poison' WHERE id = %s", PENDING)
    ((number,),) = run(
        rest.database,
        "INSERT INTO incidents (kind, severity, close_request_id) VALUES ('poison', 'critical', %s) RETURNING id",
        PENDING,
    )
    assert (await rest.done(f"incidents/{number}/close"))[1] == f"request {PENDING} is no longer frozen; it is pending"
    assert run(rest.database, "SELECT frozen_reason FROM close_requests WHERE id = %s", PENDING) == [(None,)]


async def test_a_close_is_retried_or_given_up(rest: Rest) -> None:
    assert await rest.done(f"close-requests/{RETRYABLE}/retry") == ("done", "pending: attempt 2")
    assert (await rest.done(f"close-requests/{RETRYABLE}/retry"))[0] == "already"
    assert await rest.done(f"close-requests/{FAILED}/abandon") == ("done", "abandoned; position 5 is open")
    assert (await rest.done(f"close-requests/{FAILED}/abandon"))[0] == "already"
    status, code, reasons = await rest.refused(f"close-requests/{WORKING}/abandon")
    assert (status, code) == (409, "operation_refused")
    assert reasons == [f"it is submitted; `closectl requests cancel {WORKING}` ends it"]
    assert [row[:3] for row in rest.actions()] == [
        ("desk", "retry", str(RETRYABLE)),
        ("desk", "abandon", str(FAILED)),
    ]


async def test_a_position_is_adjusted_once_and_only_as_it_was_seen(rest: Rest) -> None:
    path, quantity = "positions/6/adjust", "SELECT quantity FROM positions WHERE id = 6"
    outcome, what = await rest.done(path, delta=0.25, dry_run=True)
    assert (outcome, what) == (
        "shown",
        "nothing was done; it would be: position 6: quantity 0.75 -> 1, it is close_retryable",
    )
    status, code, reasons = await rest.refused(path, delta=0.25)
    assert (status, code) == (409, "operation_refused")
    assert reasons == [f"{what}; say with expected_quantity what it has now"]
    assert rest.actions() == []
    assert (await rest.done(path, delta=0.25, expected_quantity=0.75))[0] == "done"
    assert (await rest.done(path, delta=0.25, expected_quantity=0.75))[0] == "already"
    assert (await rest.refused(path, delta=0.5, expected_quantity=0.75))[:2] == (409, "operation_refused")
    assert run(rest.database, quantity) == [(Decimal(1),)]
    assert run(rest.database, "SELECT delta, by, reason FROM position_adjustments") == [
        (Decimal("0.25"), "desk", WHY["reason"])
    ]
    assert [row[1] for row in rest.actions()] == ["adjust"]


async def test_a_position_that_expired_is_ended(rest: Rest) -> None:
    assert (await rest.done("positions/6/end", ending="expired", expected_quantity=0.75, dry_run=True))[0] == "shown"
    assert (await rest.done("positions/6/end", ending="expired", expected_quantity=0.75))[0] == "done"
    assert run(rest.database, "SELECT status, quantity FROM positions WHERE id = 6") == [("closed", Decimal(0))]
    assert [row[1:4] for row in rest.actions()] == [("end_position", "6", f"expired: {WHY['reason']}")]


async def test_a_fill_without_a_name_is_booked_once(rest: Rest) -> None:
    await rest.closes.state(3, BrokerStatus.CANCELED, cum="4")
    path = f"orders/{order_id(3)}/execution"
    fill: dict[str, Any] = {
        "exec_id": "by hand",
        "quantity": 2,
        "price": 99.5,
        "cum_qty": 4,
        "occurred_at": "2026-03-02T15:00:00Z",
    }
    assert (await rest.done(path, **fill, dry_run=True))[0] == "shown"
    assert await rest.done(path, **fill) == ("done", "booked 2 @ 99.5; 0 is still not named")
    assert (await rest.done(path, **fill))[0] == "already"
    booked = "SELECT broker, quantity, price, source, occurred_at FROM executions WHERE exec_id = 'by hand'"
    at = datetime(2026, 3, 2, 15, tzinfo=UTC)
    assert run(rest.database, booked) == [("alpaca", Decimal(2), Decimal("99.5"), "operator", at)]
    assert (await rest.refused(path, **{**fill, "exec_id": "another"}))[:2] == (409, "operation_refused")
    assert [row[1] for row in rest.actions()] == ["name_execution"]


async def test_an_exit_is_confirmed_of_a_silent_sender_only(rest: Rest) -> None:
    run(
        rest.database,
        "INSERT INTO senders (instance_id, host, pid, last_seen_at) VALUES"
        " ('h1/7', 'h1', 7, now() - interval '1 min'), ('h2/8', 'h2', 8, now())",
    )
    assert (await rest.refused("senders/h2/8/exited", "everyone"))[:2] == (409, "operation_refused")
    assert (await rest.refused("senders/h3/9/exited", "everyone"))[:2] == (404, "not_found")
    assert (await rest.done("senders/h1/7/exited", "everyone"))[0] == "done"
    assert (await rest.done("senders/h1/7/exited", "everyone"))[0] == "already"
    shown = {one["instance_id"]: one for one in (await rest.get("senders", "everyone"))["senders"]}
    assert {name: one["exited_at"] is not None for name, one in shown.items()} == {"h1/7": True, "h2/8": False}
    assert shown["h1/7"]["silent_for_s"] >= 60


async def test_actions_are_listed_page_by_page_and_by_what_they_concern(rest: Rest) -> None:
    for state in ("halted", "active", "reducing"):
        await rest.done("trading-controls/main", method="PUT", state=state)
    await rest.done("trading-controls/other", "everyone", method="PUT", state="halted")
    await rest.done("trading-controls/global", "everyone", method="PUT", state="halted")
    first = await rest.get("actions", page_size=2)
    second = await rest.get("actions", page_size=2, page_token=first["next_page_token"])
    mine = first["actions"] + second["actions"]
    assert [(one["action"], one["subject"]) for one in mine] == [
        ("reduce", "main"),
        ("release", "main"),
        ("halt", "main"),
    ]
    assert (mine[0]["before"], mine[0]["after"], mine[0]["trace_id"]) == (
        {"state": "active"},
        {"state": "reducing"},
        TRACE,
    )
    assert second["next_page_token"] == ""
    assert [one["account_id"] for one in (await rest.get("actions", "everyone"))["actions"]] == [None, "other"] + [
        "main"
    ] * 3
    assert len((await rest.get("actions", "everyone", subject="main", page_size=500))["actions"]) == 3
    assert (await rest.get("actions", subject="other")) == {"actions": [], "next_page_token": ""}
    assert (await rest.get("actions", "stranger"))["actions"][0]["subject"] == "other"


BAD: Final[tuple[tuple[str, str, dict[str, object], str], ...]] = (
    ("PUT", "trading-controls/main", {"state": "stopped"}, "state"),
    ("PUT", "trading-controls/main", {}, "state"),
    ("PUT", "trading-controls/a%00b", {"state": "halted"}, "scope"),
    ("PUT", f"trading-controls/{'x' * 129}", {"state": "halted"}, "scope"),
    ("PUT", "limits/main", {}, "max_order_qty"),
    ("PUT", "limits/main", {"submits_per_minute": 0}, "submits_per_minute"),
    ("PUT", "limits/main", {"submits_per_minute": 1.5}, "submits_per_minute"),
    ("PUT", "limits/main", {"max_order_qty": 1e300}, "max_order_qty"),
    ("PUT", "limits/main", {"max_order_qty": "7"}, "max_order_qty"),
    ("PUT", "limits/main", {"max_order_qty": None}, "max_order_qty"),
    ("POST", "incidents/0/close", {}, "incident_id"),
    ("POST", f"incidents/{2**63}/close", {}, "incident_id"),
    ("POST", "close-requests/7/retry", {}, "close_request_id"),
    ("POST", f"close-requests/{NOWHERE}/retry", {"dry_run": True}, "dry_run"),
    ("POST", "positions/1%20OR%201=1/adjust", {"delta": 1}, "position_id"),
    ("POST", "positions/3/adjust", {}, "delta"),
    ("POST", "positions/3/adjust", {"delta": 1, "dry_run": 1}, "dry_run"),
    ("POST", "positions/3/end", {"ending": "gone", "expected_quantity": 1}, "ending"),
    ("POST", f"orders/{order_id(3)}/execution", {"exec_id": "", "quantity": 1, "price": 1}, "exec_id"),
    ("POST", f"orders/{order_id(3)}/execution", {"exec_id": "e", "quantity": 0, "price": 1}, "quantity"),
    ("POST", f"orders/{order_id(3)}/execution", {"exec_id": "e", "quantity": 1, "price": -1}, "price"),
    ("POST", f"orders/{order_id(3)}/execution", {"exec_id": "e", "quantity": 1, "price": 1, "cum_qty": -1}, "cum_qty"),
    (
        "POST",
        f"orders/{order_id(3)}/execution",
        {"exec_id": "e", "quantity": 1, "price": 1, "occurred_at": "yesterday"},
        "occurred_at",
    ),
)


@pytest.mark.parametrize(("method", "path", "body", "field"), BAD)
async def test_bad_input_is_named_and_changes_nothing(
    still: Rest, method: str, path: str, body: dict[str, object], field: str
) -> None:
    answer = await still.call(method, path, "everyone", json={**WHY, **body})
    assert answer.status_code == 422, answer.text
    assert [one["field"] for one in answer.json()["fields"]] == [field]
    assert still.actions() == []


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("incidents?closed=maybe", "closed"),
        ("incidents?page_size=-1", "page_size"),
        ("incidents?page_token=zzz", "page_token"),
        ("actions?page_token=zzz", "page_token"),
        ("actions?subject=", "subject"),
        ("limits?account=a%00b", "account"),
        ("limits?acount=main", "acount"),
        ("trading-controls?account=main", "account"),
        ("senders?limit=1", "limit"),
        ("incidents/abc", "incident_id"),
    ],
)
async def test_a_bad_question_is_named(still: Rest, path: str, field: str) -> None:
    answer = await still.call("GET", path, "everyone")
    assert answer.status_code == 422, answer.text
    assert [one["field"] for one in answer.json()["fields"]] == [field]


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"reason": "a", "reason": "b"}', b"\xff"])
async def test_a_body_that_is_none_is_refused(still: Rest, body: bytes) -> None:
    answer = await still.call("POST", f"close-requests/{RETRYABLE}/retry", content=body)
    assert answer.status_code == (422 if not body else 400)


def test_a_process_serves_operators_where_it_has_their_login(desk: Desk) -> None:
    headers = {"Authorization": f"Bearer {desk.issuer.token(MY_ACCOUNT, subject='ann')}"}
    path, body = f"/v1/operator/trading-controls/{MY_ACCOUNT}", {"state": "halted", "reason": "prices are wrong"}
    with desk.api() as api:
        answer = httpx.put(f"{api.url}{path}", json=body, headers=headers)
        assert (answer.status_code, answer.json()["reason"]) == (404, OFF)
    with desk.api(OPERATOR_POSTGRES_DSN=desk.database.dsn(OPERATOR)) as api:
        answer = httpx.put(f"{api.url}{path}", json=body, headers=headers)
        assert (answer.status_code, answer.json()["outcome"]) == (200, "done")
        (position,) = desk.open_positions(1)
        close = {**headers, "Idempotency-Key": "k"}
        assert httpx.post(f"{api.url}/v1/positions/{position}/close", headers=close).json()["code"] == "trading_halted"
    assert desk.run("SELECT by, action, account_id FROM operator_actions") == [("ann", "halt", MY_ACCOUNT)]


def test_every_operator_route_is_described() -> None:
    paths = {path: methods for path, methods in DOCUMENT["paths"].items() if path.startswith("/v1/operator/")}
    assert len(paths) == 15
    for path, methods in paths.items():
        for method, operation in methods.items():
            named = {one["name"] for one in operation["parameters"] if one["in"] == "path"}
            assert named == {part[1:-1] for part in path.split("/") if part.startswith("{")}, path
            assert ("requestBody" in operation) == (method != "get"), path
            assert method != "get" or operation["responses"].keys().isdisjoint({"409"})
