"""What operators are refused over REST: who may not, what is wrong with a call, and nothing done of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import httpx
import pytest

import devstack
from close_api.use_cases.operating import OFF
from tests.closectl.seeding import order_id
from tests.conftest import fresh_database
from tests.doors.books import (
    NOWHERE,
    run,
)
from tests.doors.operators import RETRYABLE, WHY, Rest, Writes, serving, with_closes

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
async def test_operating_needs_its_scope(still: Rest, method: str, path: str, body: dict[str, object] | None) -> None:
    answer = await still.call(method, path, "reader", json=None if body is None else {**WHY, **body})
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
