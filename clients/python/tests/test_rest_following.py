"""What is more than one close over REST, with both clients: plans, many at once, lists, and how a close goes on."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import pytest

from closeflow_client import Close, CloseflowError, ClosePlan, CloseRequest, NotFinal, Position
from closeflow_client.errors import AnswerUnreadable, NotFound

from .answers import ACTIVE_ID, REQUEST_ID, event, position_body, problem, request_body
from .blocking import blocking
from .scripted_http import DropRead, Events, Say, refused, scripted

BOTH: Final = pytest.mark.parametrize("kind", ["sync", "async"])
DRY_RUN: Final = {
    "dry_run": True,
    "position_id": 7,
    "account_id": "ACC",
    "position_version": 3,
    "target_qty": 5,
    "order": {
        "symbol": "AAPL",
        "side": "sell",
        "quantity": 5,
        "order_type": "limit",
        "limit_price": None,
        "time_in_force": "day",
    },
}


@BOTH
def test_a_dry_run_shows_the_order(kind: str) -> None:
    with scripted(Say(200, DRY_RUN)) as server, blocking(kind, server.address) as client:
        plan = client.close(7, quantity=5, dry_run=True)
    assert plan == ClosePlan(
        position_id=7,
        symbol="AAPL",
        side="sell",
        quantity=Decimal(5),
        order_type="limit",
        limit_price=None,
        time_in_force="day",
    )
    assert server.seen[0].values == {"quantity": 5, "dry_run": True}


def results(*bodies: dict[str, Any]) -> Say:
    return Say(200, {"results": bodies})


def item(position_id: int, **changes: Any) -> dict[str, Any]:
    shown = request_body(position_id=position_id, **changes)
    return {"position_id": position_id, "status": 201, "replayed": False, "close_request": shown}


@BOTH
def test_many_closes_are_one_call_and_only_some_are_repeated(kind: str) -> None:
    overloaded = {"status": 503, "error": problem("overloaded", 503)}
    closed = {"status": 409, "error": problem("position_closed", 409)}
    script = (DropRead(), results(item(1), overloaded, closed), results(item(2)))
    with scripted(*script) as server, blocking(kind, server.address) as client:
        one, two, three = client.close_many((Close(n) for n in (1, 2, 3)), batch_key="march")
    assert isinstance(one, CloseRequest)
    assert isinstance(two, CloseRequest)
    assert (one.position_id, one.key, two.position_id, two.key) == (1, "march/1", 2, "march/2")
    assert isinstance(three, CloseflowError)
    assert (three.code, three.key) == ("position_closed", "march/3")
    sent = [[one["idempotency_key"] for one in seen.values["closes"]] for seen in server.seen]
    assert sent == [["march/1", "march/2", "march/3"]] * 2 + [["march/2"]]
    assert {seen.path for seen in server.seen} == {"/v1/positions:batchClose"}


@BOTH
def test_lists_are_read_page_by_page_as_they_are_reached(kind: str) -> None:
    pages = (
        Say(200, {"close_requests": [request_body(), request_body()], "next_page_token": "p2"}),
        Say(503),
        Say(200, {"close_requests": [], "next_page_token": "p3"}),
        Say(200, {"close_requests": [request_body(position_id=9)], "next_page_token": ""}),
    )
    with scripted(*pages) as server, blocking(kind, server.address) as client:
        found = iter(client.list(account="ACC", status="pending", position_id=7, page_size=2))
        assert [next(found).position_id for _ in range(2)] == [7, 7]
        assert len(server.seen) == 1
        assert [one.position_id for one in found] == [9]
    assert [one.query.get("page_token") for one in server.seen] == [None, "p2", "p2", "p3"]
    assert {one.query["account"] for one in server.seen} == {"ACC"}


@BOTH
def test_positions_are_read(kind: str) -> None:
    script = (
        Say(200, position_body(newer="x", position_status="halted_by_a_newer_server")),
        Say(200, {"positions": [position_body(active_close_request_id=ACTIVE_ID)], "next_page_token": ""}),
    )
    with scripted(*script) as server, blocking(kind, server.address) as client:
        found = client.position(7)
        (listed,) = client.positions(symbol="AAPL")
    assert isinstance(found, Position)
    assert (found.quantity, found.version, found.position_status) == (Decimal(-10), 3, "halted_by_a_newer_server")
    assert listed.active_close_request_id == UUID(ACTIVE_ID)


@BOTH
def test_a_close_request_is_read_and_cancelled(kind: str) -> None:
    script = (Say(200, request_body()), DropRead(), Say(200, request_body(close_request_status="failed")))
    with scripted(*script) as server, blocking(kind, server.address) as client:
        assert client.get(UUID(REQUEST_ID)).final is False
        assert client.cancel(REQUEST_ID, reason="enough").final is True
    assert [one.values for one in server.seen] == [None, {"reason": "enough"}, {"reason": "enough"}]


@BOTH
def test_waiting_is_a_long_poll(kind: str) -> None:
    states = ("pending", "submitted", "completed")
    script = [Say(200, request_body(close_request_status=one)) for one in states]
    with scripted(*script[:2], DropRead(), script[2]) as server, blocking(kind, server.address) as client:
        assert client.wait(REQUEST_ID).close_request_status == "completed"
    assert [one.query.get("wait") for one in server.seen] == [None, "30s", "30s", "30s"]


@BOTH
def test_waiting_has_an_end(kind: str) -> None:
    with (
        scripted(Say(200, request_body())) as server,
        blocking(kind, server.address) as client,
        pytest.raises(NotFinal) as caught,
    ):
        client.wait(REQUEST_ID, timeout=0)
    assert caught.value.request.close_request_id == UUID(REQUEST_ID)


@BOTH
def test_a_watch_resumes_where_it_was(kind: str) -> None:
    script = (
        Events((event("e1"), b": still here\n\n", event("e2", close_request_status="submitted")), cut=True),
        DropRead(),
        Say(503),
        Events((event("e2", close_request_status="submitted"),)),
        Events((event("e3", close_request_status="completed"), event("e4", close_request_status="never read"))),
    )
    with scripted(*script) as server, blocking(kind, server.address) as client:
        states = [one.close_request_status for one in client.watch(REQUEST_ID)]
    assert states == ["pending", "submitted", "completed"]
    assert [one.headers.get("last-event-id") for one in server.seen] == [None, "e2", "e2", "e2", "e2"]


@BOTH
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (refused("not_found", 404, again=False), NotFound),
        (Events((b"data: nonsense\n\n",)), AnswerUnreadable),
        (Events((b"data: {}\n\n",)), AnswerUnreadable),
        (Say(201, {}), AnswerUnreadable),
    ],
    ids=str,
)
def test_a_watch_raises_what_would_not_change(kind: str, answer: Any, error: type[Exception]) -> None:
    with scripted(answer) as server, blocking(kind, server.address) as client, pytest.raises(error):
        list(client.watch(REQUEST_ID))
    assert len(server.seen) == 1
