"""Operators over REST: what closectl does, by token, with the same records, and only for the token's accounts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest

from close_api.use_cases.operating import OFF
from closeflow.domain.model import BrokerStatus
from tests.closectl.seeding import order_id
from tests.conftest import Database
from tests.doors.books import (
    COMPLETED,
    FAILED,
    OPERATOR,
    PENDING,
    TRACE,
    WORKING,
    run,
)
from tests.doors.conftest import MINE as MY_ACCOUNT
from tests.doors.conftest import Desk
from tests.doors.documented import DOCUMENT
from tests.doors.operators import RETRYABLE, WHY, Rest, with_closes


@pytest.fixture
async def rest(database: Database) -> AsyncIterator[Rest]:
    async with with_closes(database) as made:
        yield made


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
    assert (shown["evidence"], shown["runbook"]) == (None, "docs/runbooks/gap.md")
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


def test_a_process_serves_operators_where_it_has_their_login(desk: Desk) -> None:
    headers = {"Authorization": f"Bearer {desk.issuer.token(MY_ACCOUNT, subject='ann')}"}
    path, body = f"/v1/operator/trading-controls/{MY_ACCOUNT}", {"state": "halted", "reason": "prices are wrong"}
    with desk.api(OPERATOR_POSTGRES_DSN="") as api:
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
