"""What is another account's answers as what is not there: the same status, headers and bytes on every route."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from uuid import UUID

import httpx
import pytest

from .conftest import FOREIGN, MINE, Desk, Running

TRACE: Final = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
"""The trace is in every answer, so that it has to be the same."""
NOWHERE: Final = 9_000_000_000
NO_REQUEST: Final = UUID("01978f6e-7a1c-7c3a-9f53-0d7c5b1f6a20")
Ask = Callable[[httpx.Client, int, UUID], httpx.Response]

ROUTES: Final[list[Ask]] = [
    lambda rest, position, _: rest.post(f"/v1/positions/{position}/close", headers={"Idempotency-Key": "k", **TRACE}),
    lambda rest, position, _: rest.post(
        f"/v1/positions/{position}/close",
        headers={"Idempotency-Key": "theirs", **TRACE},
        json={"quantity": 10_000, "expected_quantity": 1},
    ),
    lambda rest, position, _: rest.post(
        f"/v1/positions/{position}/close", headers={"Idempotency-Key": "k", **TRACE}, json={"dry_run": True}
    ),
    lambda rest, position, _: rest.post(f"/api/options/{position}/close", headers={"Idempotency-Key": "k", **TRACE}),
    lambda rest, position, _: rest.get(f"/v1/positions/{position}", headers=TRACE),
    lambda rest, _, request: rest.get(f"/v1/close-requests/{request}", headers=TRACE),
    lambda rest, _, request: rest.get(f"/v1/close-requests/{request}?wait=1s", headers=TRACE),
    lambda rest, _, request: rest.get(f"/v1/close-requests/{request}/timeline", headers=TRACE),
    lambda rest, _, request: rest.get(f"/v1/close-requests/{request}/watch", headers=TRACE),
    lambda rest, _, request: rest.post(f"/v1/close-requests/{request}/cancel", headers=TRACE),
    lambda rest, _, request: rest.post(
        f"/v1/operator/close-requests/{request}/retry", headers=TRACE, json={"reason": "mine now"}
    ),
    lambda rest, _, request: rest.post(
        f"/v1/operator/close-requests/{request}/abandon", headers=TRACE, json={"reason": "mine now"}
    ),
    lambda rest, position, _: rest.post(
        f"/v1/operator/positions/{position}/adjust", headers=TRACE, json={"delta": 1, "reason": "mine now"}
    ),
    lambda rest, position, _: rest.get("/v1/positions", params={"symbol": f"no symbol {position}"}, headers=TRACE),
    lambda rest, position, _: rest.get("/v1/close-requests", params={"position": position}, headers=TRACE),
]


def foreign_close(desk: Desk, api: Running) -> tuple[int, UUID]:
    """A position of another account and its close."""
    (position,) = desk.open_positions(1, account=FOREIGN)
    headers = {"Authorization": f"Bearer {desk.issuer.token(FOREIGN)}", "Idempotency-Key": "theirs"}
    answer = httpx.post(f"{api.url}/v1/positions/{position}/close", headers=headers)
    assert answer.status_code == 201
    return position, UUID(answer.json()["close_request_id"])


def told(answer: httpx.Response) -> tuple[object, ...]:
    passing = {"date", "ratelimit"}
    headers = {name: value for name, value in answer.headers.items() if name not in passing}
    return answer.status_code, answer.content, headers


@pytest.mark.parametrize("accounts", [(MINE,), ()])
def test_not_mine_and_not_there_are_the_same_bytes(desk: Desk, api: Running, accounts: tuple[str, ...]) -> None:
    position, request = foreign_close(desk, api)
    token = desk.issuer.token(*accounts)
    with httpx.Client(base_url=api.url, headers={"Authorization": f"Bearer {token}"}) as rest:
        for n, ask in enumerate(ROUTES):
            theirs, absent = ask(rest, position, request), ask(rest, NOWHERE, NO_REQUEST)
            assert told(theirs) == told(absent), f"route {n}"
            assert theirs.status_code in (200, 404)
            assert theirs.status_code == 404 or (not theirs.json()["next_page_token"])
    assert desk.run("SELECT count(*), max(status), max(cancel_requested_at) FROM close_requests") == [
        (1, "pending", None)
    ]


def test_another_accounts_key_on_a_position_tells_nothing(desk: Desk, api: Running) -> None:
    position, _ = foreign_close(desk, api)
    headers = {"Authorization": f"Bearer {desk.issuer.token(MINE)}", "Idempotency-Key": "theirs"}
    assert httpx.post(f"{api.url}/v1/positions/{position}/close", headers=headers).status_code == 404


def test_lists_show_the_callers_accounts_only(desk: Desk, api: Running) -> None:
    foreign_close(desk, api)
    mine = desk.open_positions(3)
    with httpx.Client(base_url=api.url, headers={"Authorization": f"Bearer {desk.issuer.token(MINE)}"}) as rest:
        shown = rest.get("/v1/positions").json()
        assert [one["position_id"] for one in shown["positions"]] == mine
        assert rest.get("/v1/positions", params={"account": FOREIGN}).json()["positions"] == []
        assert rest.get("/v1/close-requests").json()["close_requests"] == []
        assert rest.get("/v1/close-requests", params={"account": FOREIGN}).json()["close_requests"] == []


SCOPES: Final[list[tuple[str, str, str, int]]] = [
    ("close:read", "POST", "/v1/positions/{}/close", 403),
    ("close:operate", "POST", "/v1/positions/{}/close", 403),
    ("", "POST", "/v1/positions/{}/close", 403),
    ("", "GET", "/v1/positions/{}", 403),
    ("close:operate", "GET", "/v1/positions/{}", 403),
    ("close:read", "GET", "/v1/positions/{}", 200),
    ("close:write", "GET", "/v1/positions/{}", 200),
    ("close:read", "POST", "/v1/positions:batchClose", 403),
    ("close:write close:read", "GET", "/v1/operator/incidents", 403),
]


def test_a_token_lets_do_what_its_scopes_say(desk: Desk, api: Running) -> None:
    (position,) = desk.open_positions(1)
    for scope, method, path, status in SCOPES:
        token = desk.issuer.token(MINE, scope=scope)
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "k"}
        body = '{"closes": [{"position_id": 1}]}' if "batch" in path else ""
        answer = httpx.request(method, api.url + path.format(position), headers=headers, content=body or None)
        assert answer.status_code == status, (scope, path)
        if status == 403:
            assert answer.json()["code"] == "forbidden"
            assert "insufficient_scope" in answer.headers["www-authenticate"]
    assert desk.requests() == 0
