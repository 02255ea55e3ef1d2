"""Both clients over REST against a server that misbehaves by a script."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import pytest

from closeflow_client import (
    AsyncClient,
    Client,
    CloseflowError,
    CloseRequest,
    ConnectionFailed,
    OutcomeUnknown,
)
from closeflow_client.errors import Overloaded, PositionAlreadyClosing, TradingHalted

from .answers import ACTIVE_ID, REQUEST_ID, TRACE_ID, request_body
from .blocking import blocking
from .scripted_http import DropRead, DropUnread, Raw, Say, ScriptedServer, Silent, nobody, refused, scripted

BOTH: Final = pytest.mark.parametrize("kind", ["sync", "async"])
ACCEPTED: Final = Say(201, request_body())
REPLAYED: Final = Say(200, request_body(), {"idempotency-replayed": "true"})


def keys(server: ScriptedServer) -> list[str]:
    return [one.headers["idempotency-key"] for one in server.seen]


async def asked_of(server: ScriptedServer) -> None:
    """Once it was; within 5 seconds."""
    deadline = time.monotonic() + 5
    while not server.seen:
        assert time.monotonic() < deadline, "nothing was asked"
        await asyncio.sleep(0.01)


@BOTH
def test_a_close_is_accepted(kind: str) -> None:
    with scripted(ACCEPTED) as server, blocking(kind, server.address, "secret-1") as client:
        found = client.close(7, quantity=Decimal("0.10"), reason="rebalance")
    assert found == CloseRequest(
        close_request_id=UUID(REQUEST_ID),
        position_id=7,
        position_status="closing",
        close_request_status="pending",
        symbol="AAPL",
        side="sell",
        target_qty=Decimal(10),
        filled_qty=Decimal(0),
        remaining_qty=Decimal(10),
        retry_count=0,
        created_at=datetime(2026, 3, 2, 15, 0, 0, 1, tzinfo=UTC),
        submitted_at=None,
        completed_at=None,
        reason=None,
        key=found.key,
        replayed=False,
    )
    (seen,) = server.seen
    assert (seen.method, seen.path) == ("POST", "/v1/positions/7/close")
    assert seen.headers["authorization"] == "Bearer secret-1"
    assert seen.headers["user-agent"].startswith("closeflow-client/")
    assert seen.headers["idempotency-key"] == f'"{found.key}"'
    assert seen.values == {"quantity": "0.10", "reason": "rebalance"}


@BOTH
@pytest.mark.parametrize(
    "failure",
    [
        DropUnread(),
        DropRead(),
        Raw(b""),
        Raw(b"HTTP/1.1 20"),
        Raw(b"\x00\xff garbage \r\n\r\n"),
        Say(201, request_body(), cut=True),
        Say(502, b"<html>bad gateway</html>"),
        Say(503),
        Say(504),
        refused("unavailable", 503, again=True),
        refused("overloaded", 503, again=True, retry_after="0"),
        refused("rate_limited", 429, again=True, retry_after="0"),
        refused("trading_halted", 503, again=True, retry_after="0"),
        refused("body_too_slow", 408, again=True),
    ],
    ids=str,
)
def test_what_may_pass_is_retried_with_the_same_key(kind: str, failure: Any) -> None:
    # A connection that was reset after one answer is the usual case: a server that restarts.
    with scripted(ACCEPTED, failure, failure, REPLAYED) as server, blocking(kind, server.address) as client:
        first, second = client.close(6, key="other"), client.close(7, key="mine")
    assert (first.replayed, second.replayed, second.key) == (False, True, "mine")
    assert set(keys(server)[1:]) == {'"mine"'}


@BOTH
@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (refused("malformed_body", 400, again=False), "malformed_body"),
        (refused("unauthenticated", 401, again=True), "unauthenticated"),
        (refused("forbidden", 403, again=True), "forbidden"),
        (refused("not_found", 404, again=True), "not_found"),
        (refused("position_closed", 409, again=True), "position_closed"),
        (refused("expected_quantity_mismatch", 412, again=True), "expected_quantity_mismatch"),
        (refused("invalid_fields", 422, again=True), "invalid_fields"),
        (refused("internal_error", 500, again=True), "internal_error"),
        (refused("unavailable", 503, again=False), "outcome_unknown"),
        (refused("trading_halted", 503, again=False, retry_after="0"), "trading_halted"),
        (refused("overloaded", 503, again=True, retry_after="3600"), "overloaded"),
        (refused("a_newer_code", 409, again=True), "a_newer_code"),
        (Say(404, b"nginx"), "unknown"),
        (Say(307, b"", {"location": "/elsewhere"}), "unknown"),
        (Say(200, b"<html>a login page</html>"), "answer_unreadable"),
        (Say(200, {"ok": True}), "answer_unreadable"),
    ],
    ids=str,
)
def test_what_would_not_change_is_raised_at_once(kind: str, answer: Say, code: str) -> None:
    with scripted(answer) as server, blocking(kind, server.address) as client, pytest.raises(CloseflowError) as caught:
        client.close(7, key="mine")
    error = caught.value
    assert (error.code, error.key, error.status) == (code, "mine", answer.status)
    assert type(error) is CloseflowError.classes.get(code, CloseflowError)
    assert len(server.seen) == 1


@BOTH
def test_an_error_says_what_the_server_says(kind: str) -> None:
    answer = refused("position_already_closing", 409, again=False, active_close_request_id=ACTIVE_ID)
    with (
        scripted(answer) as server,
        blocking(kind, server.address) as client,
        pytest.raises(PositionAlreadyClosing) as caught,
    ):
        client.close(7)
    error = caught.value
    assert error.active_close_request_id == UUID(ACTIVE_ID)
    assert (error.trace_id, error.outcome_unknown) == (TRACE_ID, False)
    assert f'"{error.key}"' == keys(server)[0]


@BOTH
def test_retry_after_is_the_least_wait(kind: str) -> None:
    script = (refused("overloaded", 503, again=True, retry_after="1"), ACCEPTED)
    with scripted(*script) as server, blocking(kind, server.address) as client:
        began = time.monotonic()
        client.close(7)
        assert 1.0 <= time.monotonic() - began < 5


@BOTH
def test_a_server_that_is_silent_leaves_the_outcome_unknown(kind: str) -> None:
    with (
        scripted(Silent(), Silent()) as server,
        blocking(kind, server.address, timeout=0.3, retry_for=0.5) as client,
        pytest.raises(OutcomeUnknown, match="the same call with the same key finds it") as caught,
    ):
        client.close(7, key="mine")
    assert (caught.value.key, caught.value.outcome_unknown) == ("mine", True)
    assert isinstance(caught.value.__cause__, ConnectionFailed)


@BOTH
def test_the_same_key_finds_what_the_lost_call_did(kind: str) -> None:
    """The first call is given up; the program is started again and asks with the key that it kept."""
    with scripted(DropRead(), REPLAYED) as server:
        with blocking(kind, server.address, retry_for=0) as client, pytest.raises(OutcomeUnknown) as caught:
            client.close(7)
        with blocking(kind, server.address) as client:
            assert client.close(7, key=caught.value.key).replayed
    assert len(set(keys(server))) == 1


@BOTH
def test_a_server_that_comes_back_is_found(kind: str) -> None:
    address = nobody()
    servers: list[ScriptedServer] = []

    def start() -> None:
        servers.append(ScriptedServer(ACCEPTED, port=int(address.rpartition(":")[2])))

    timer = threading.Timer(0.5, start)
    timer.start()
    try:
        with blocking(kind, f"http://{address}") as client:
            assert client.close(7).position_id == 7
    finally:
        timer.join()
        servers[0].stop()


@BOTH
def test_a_server_that_is_not_there_did_nothing(kind: str) -> None:
    with blocking(kind, f"http://{nobody()}", retry_for=0.2) as client:
        for call in (lambda: client.close(7), lambda: client.get(REQUEST_ID), lambda: list(client.watch(REQUEST_ID))):
            with pytest.raises(ConnectionFailed) as caught:
                call()
            assert caught.value.outcome_unknown is False


@BOTH
def test_the_newest_token_goes_with_every_attempt(kind: str) -> None:
    tokens = iter(["t1", "t2", "t3"])
    with (
        scripted(Say(503), ACCEPTED, Say(200, request_body())) as server,
        blocking(kind, server.address, lambda: next(tokens)) as client,
    ):
        client.close(7)
        client.get(REQUEST_ID)
    assert [one.headers["authorization"] for one in server.seen] == ["Bearer t1", "Bearer t2", "Bearer t3"]


async def test_a_token_may_be_awaited() -> None:
    async def token() -> str:
        await asyncio.sleep(0)
        return "t1"

    with scripted(ACCEPTED) as server:
        async with AsyncClient(server.address, token) as client:
            await client.close(7)
    assert server.seen[0].headers["authorization"] == "Bearer t1"


@BOTH
@pytest.mark.parametrize("token", ["", "line\nend", "two words", "ümlaut", 5])
def test_what_is_no_token_is_never_sent(kind: str, token: Any) -> None:
    with (
        scripted() as server,
        blocking(kind, server.address, lambda: token) as client,
        pytest.raises((TypeError, ValueError), match="token"),
    ):
        client.close(7)
    assert server.seen == []


@BOTH
def test_without_a_token_none_is_sent(kind: str) -> None:
    with scripted(ACCEPTED) as server, blocking(kind, server.address, None) as client:
        client.close(7)
    assert "authorization" not in server.seen[0].headers


@BOTH
def test_a_halt_that_lasts_is_told(kind: str) -> None:
    answer = refused("trading_halted", 503, again=True, retry_after="30")
    with (
        scripted(answer) as server,
        blocking(kind, server.address, retry_for=10) as client,
        pytest.raises(TradingHalted) as caught,
    ):
        client.close(7)
    assert (caught.value.retry_after_s, caught.value.outcome_unknown) == (30.0, False)


def test_threads_share_a_client() -> None:
    script = [Say(503), *[ACCEPTED] * 40]
    with scripted(*script) as server, Client(server.address, "t") as client, ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda n: client.close(7, key=f"k{n}"), range(40)))
    assert [one.key for one in found] == [f"k{n}" for n in range(40)]
    assert len(set(keys(server))) == 40


async def test_tasks_share_a_client_and_one_that_is_cancelled_ends_at_once() -> None:
    with scripted(Silent(), *[ACCEPTED] * 20) as server:
        async with AsyncClient(server.address, "t") as client:
            waiting = asyncio.create_task(client.close(7, key="cancelled"))
            await asked_of(server)
            found = await asyncio.gather(*(client.close(7, key=f"k{n}") for n in range(20)))
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
    assert [one.key for one in found] == [f"k{n}" for n in range(20)]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("localhost:8080", "the address must be such as https://host:8080"),
        ("ftp://host", "the address must be such as"),
        ("http://", "the address must be such as"),
        ("", "the address must be such as"),
        ("https://user:secret@host", "no query, fragment or user: https://host$"),
        ("https://host?x=1", "no query, fragment or user"),
        ("grpc://host:9090/path", "a gRPC address has no path"),
    ],
)
@pytest.mark.parametrize("made", [Client, AsyncClient])
def test_an_address_is_checked_at_once(made: Callable[[str], Any], address: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        made(address)
    assert "secret" not in str(caught.value)


@BOTH
def test_an_address_may_have_a_path_before_the_api(kind: str) -> None:
    with scripted(ACCEPTED) as server, blocking(kind, f"{server.address}/closeflow/") as client:
        client.close(7)
    assert server.seen[0].path == "/closeflow/v1/positions/7/close"


@BOTH
def test_overload_to_the_end_is_known_to_have_done_nothing(kind: str) -> None:
    script = [refused("overloaded", 503, again=True)] * 40
    server = ScriptedServer(*script)
    try:
        with blocking(kind, server.address, retry_for=0.5) as client, pytest.raises(Overloaded) as caught:
            client.close(7)
    finally:
        server.stop()
    assert caught.value.outcome_unknown is False
    assert 2 < len(server.seen) < 40
