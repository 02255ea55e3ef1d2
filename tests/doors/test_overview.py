"""What whoever watches closes is shown: of the token's accounts only, by whoever may read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import pytest

from closeflow.domain.operator.lights import LightName
from tests.conftest import Database
from tests.doors.books import PENDING, WORKING, run
from tests.doors.documented import undocumented
from tests.doors.operators import RETRYABLE, Rest, with_closes

WAITING: Final = "/v1/close-requests:waiting"


@pytest.fixture
async def rest(database: Database) -> AsyncIterator[Rest]:
    async with with_closes(database) as made:
        yield made


async def ask(rest: Rest, path: str, who: str, **query: Any) -> Any:
    answer = await rest.client.get(path, headers={"authorization": who}, params=query)
    assert answer.status_code == 200, answer.text
    assert undocumented(answer) == []
    return answer.json()


async def test_who_calls_is_told_what_the_token_says(rest: Rest) -> None:
    assert await ask(rest, "/v1/caller", "reader") == {
        "subject": "desk",
        "accounts": ["main"],
        "scopes": ["close:read", "close:write"],
    }
    assert (await ask(rest, "/v1/caller", "everyone"))["accounts"] is None


async def test_closes_that_are_not_over_are_shown_with_what_they_wait_for(rest: Rest) -> None:
    found = await ask(rest, WAITING, "reader")
    ids = [one["close_request_id"] for one in found["waiting"]]
    assert {str(PENDING), str(WORKING), str(RETRYABLE)} <= set(ids)
    assert ids == sorted(ids)
    assert not found["more"]
    by_id = {one["close_request_id"]: one for one in found["waiting"]}
    retry = by_id[str(RETRYABLE)]
    assert (retry["waits_for"], retry["account_id"], retry["close_request_status"]) == (
        "next_attempt",
        "main",
        "retryable",
    )
    assert by_id[str(WORKING)]["waits_for"] == "broker"
    assert (await ask(rest, WAITING, "reader", close_request=RETRYABLE))["waiting"] == [retry]
    one = await ask(rest, WAITING, "reader", page_size=1)
    assert (len(one["waiting"]), one["more"]) == (1, True)


async def test_others_see_nothing_of_an_account(rest: Rest) -> None:
    assert (await ask(rest, WAITING, "everyone", account="main"))["waiting"]
    run(
        rest.database,
        "INSERT INTO incidents (kind, severity, position_id, detail) VALUES ('gap', 'critical', 6, '{}'::jsonb),"
        " ('slot_lag', 'warning', NULL, '{\"subject\": \"slot\"}'::jsonb)",
    )
    kinds = {
        who: sorted(one["kind"] for one in (await ask(rest, "/v1/incidents", who))["incidents"])
        for who in ("reader", "everyone", "stranger")
    }
    assert kinds == {"reader": ["gap"], "everyone": ["gap", "slot_lag"], "stranger": []}
    for query in ({}, {"account": "main"}, {"close_request": RETRYABLE}):
        assert (await ask(rest, WAITING, "stranger", **query))["waiting"] == []


async def test_lights_tell_what_is_out_of_order_and_only_of_the_callers_accounts(rest: Rest) -> None:
    run(
        rest.database,
        "INSERT INTO broker_breakers (broker, account_id, state, failures, refusals, opened_at)"
        " VALUES ('alpaca', 'main', 'open', 3, 0, now())",
    )
    found = {one["name"]: one for one in (await ask(rest, "/v1/status", "reader"))["lights"]}
    assert list(found) == list(LightName)
    assert (found["breaker"]["colour"], found["breaker"]["says"]) == ("red", "the circuit breaker is open for main")
    assert found["connector"]["colour"] == "red"  # No connector has ever run on this database.
    others = {one["name"]: one for one in (await ask(rest, "/v1/status", "stranger"))["lights"]}
    assert others["breaker"]["colour"] == "green"
