"""Both clients over gRPC against a server that misbehaves by a script."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import grpc
import pytest

from closeflow_client import (
    AsyncClient,
    Close,
    CloseflowError,
    CloseRequest,
    ConnectionFailed,
    NotFinal,
    OutcomeUnknown,
)
from closeflow_client.errors import AnswerUnreadable, InvalidFields, NotFound, PositionAlreadyClosing
from closeflow_client.generated import close_pb2 as pb

from .answers import ACTIVE_ID, REQUEST_ID, TRACE_ID
from .blocking import blocking
from .grpc_answers import accepted, change, close_request
from .scripted_grpc import Act, Cut, Give, Hang, Refuse, ScriptedGrpc, refuse, scripted_grpc, status_of
from .scripted_http import nobody

BOTH: Final = pytest.mark.parametrize("kind", ["sync", "async"])
Status = grpc.StatusCode
ACCEPTED: Final = Give((accepted(),))
REPLAYED: Final = Give((accepted(replayed=True),))


def keys(server: ScriptedGrpc) -> list[str]:
    return [call.messages[0].close.idempotency_key for call in server.calls]


@BOTH
def test_a_close_is_accepted(kind: str) -> None:
    with scripted_grpc(ACCEPTED) as server, blocking(kind, server.address, "secret-1") as client:
        found = client.close(7, quantity=Decimal("0.10"))
    assert (found.position_id, found.target_qty, found.replayed) == (7, Decimal(10), False)
    (call,) = server.calls
    assert call.method == "ClosePosition"
    assert call.metadata["authorization"] == "Bearer secret-1"
    assert call.metadata["user-agent"].startswith("closeflow-client/")
    assert (call.messages[0].close.idempotency_key, call.messages[0].close.quantity) == (found.key, "0.10")


@BOTH
@pytest.mark.parametrize(
    "failure",
    [
        Cut(),
        refuse("unavailable", Status.UNAVAILABLE, retry_after_s=0.1),
        refuse("overloaded", Status.RESOURCE_EXHAUSTED, retry_after_s=0.1),
        refuse("rate_limited", Status.RESOURCE_EXHAUSTED, retry_after_s=0.1),
        refuse("trading_halted", Status.UNAVAILABLE, retry_after_s=0.1),
        Refuse(Status.UNAVAILABLE, "a proxy's words"),
        Refuse(Status.RESOURCE_EXHAUSTED, "more calls at a time than the server takes"),
        Refuse(Status.DEADLINE_EXCEEDED, ""),
        Refuse(Status.INTERNAL, "RST_STREAM"),
        Refuse(Status.CANCELLED, "by a proxy"),
        Refuse(Status.UNAVAILABLE, "with details that cannot be read", raw=b"\xff\xff\xff"),
    ],
    ids=str,
)
def test_what_may_pass_is_retried_with_the_same_key(kind: str, failure: Act) -> None:
    with scripted_grpc(ACCEPTED, failure, failure, REPLAYED) as server, blocking(kind, server.address) as client:
        first, second = client.close(6, key="other"), client.close(7, key="mine")
    assert (first.replayed, second.replayed, second.key) == (False, True, "mine")
    assert keys(server) == ["other", "mine", "mine", "mine"]


@BOTH
@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (refuse("invalid_fields", Status.INVALID_ARGUMENT, fields={"quantity": "is odd"}), "invalid_fields"),
        (refuse("unauthenticated", Status.UNAUTHENTICATED), "unauthenticated"),
        (refuse("forbidden", Status.PERMISSION_DENIED, scope="close:write"), "forbidden"),
        (refuse("not_found", Status.NOT_FOUND), "not_found"),
        (refuse("position_closed", Status.FAILED_PRECONDITION), "position_closed"),
        (refuse("expected_quantity_mismatch", Status.ABORTED, quantity="1"), "expected_quantity_mismatch"),
        (refuse("internal_error", Status.INTERNAL), "internal_error"),
        (refuse("trading_halted", Status.UNAVAILABLE), "trading_halted"),
        (refuse("overloaded", Status.RESOURCE_EXHAUSTED, retry_after_s=3600), "overloaded"),
        (refuse("a_newer_code", Status.FAILED_PRECONDITION), "a_newer_code"),
        (Refuse(Status.UNIMPLEMENTED, "not here"), "unknown"),
        (Refuse(Status.PERMISSION_DENIED, "says a proxy"), "unknown"),
    ],
    ids=str,
)
def test_what_would_not_change_is_raised_at_once(kind: str, answer: Refuse, code: str) -> None:
    with (
        scripted_grpc(answer) as server,
        blocking(kind, server.address) as client,
        pytest.raises(CloseflowError) as caught,
    ):
        client.close(7, key="mine")
    error = caught.value
    assert (error.code, error.key, error.status) == (code, "mine", answer.code.name)
    assert type(error) is CloseflowError.classes.get(code, CloseflowError)
    assert error.trace_id == TRACE_ID
    assert len(server.calls) == 1


@BOTH
def test_an_error_says_what_the_server_says(kind: str) -> None:
    answer = refuse("position_already_closing", Status.FAILED_PRECONDITION, active_close_request_id=ACTIVE_ID)
    with (
        scripted_grpc(answer) as server,
        blocking(kind, server.address) as client,
        pytest.raises(PositionAlreadyClosing) as caught,
    ):
        client.close(7)
    assert caught.value.active_close_request_id == UUID(ACTIVE_ID)


@BOTH
def test_the_delay_of_retry_info_is_the_least_wait(kind: str) -> None:
    later = refuse("overloaded", Status.RESOURCE_EXHAUSTED, retry_after_s=1)
    with scripted_grpc(later, ACCEPTED) as server, blocking(kind, server.address) as client:
        began = time.monotonic()
        client.close(7)
        assert 1.0 <= time.monotonic() - began < 5


@BOTH
def test_a_server_that_is_silent_leaves_the_outcome_unknown(kind: str) -> None:
    with (
        scripted_grpc(Hang(), Hang()) as server,
        blocking(kind, server.address, timeout=0.5, retry_for=0.7) as client,
        pytest.raises(OutcomeUnknown, match="the same call with the same key finds it") as caught,
    ):
        client.close(7, key="mine")
    assert (caught.value.key, caught.value.outcome_unknown) == ("mine", True)


@BOTH
def test_the_same_key_finds_what_the_lost_call_did(kind: str) -> None:
    with scripted_grpc(Cut(), REPLAYED) as server:
        with blocking(kind, server.address, retry_for=0) as client, pytest.raises(OutcomeUnknown) as caught:
            client.close(7)
        with blocking(kind, server.address) as client:
            assert client.close(7, key=caught.value.key).replayed
    assert len(set(keys(server))) == 1


@BOTH
def test_a_server_that_is_not_there_did_nothing(kind: str) -> None:
    with blocking(kind, f"grpc://{nobody()}", retry_for=0.2) as client:
        for call in (lambda: client.close(7), lambda: client.get(REQUEST_ID), lambda: list(client.watch(REQUEST_ID))):
            with pytest.raises(ConnectionFailed) as caught:
                call()
            assert caught.value.outcome_unknown is False


@BOTH
def test_many_closes_are_a_stream_and_a_broken_one_is_repeated(kind: str) -> None:
    """The first stream breaks after one of its three answers."""

    def results(numbers: range) -> pb.ClosePositionsResponse:
        found = [pb.CloseResult(close_request=close_request(position_id=n)) for n in numbers]
        return pb.ClosePositionsResponse(results=found)

    overloaded = status_of("overloaded", Status.RESOURCE_EXHAUSTED, retry_after_s=0.1)
    closed = status_of("position_closed", Status.FAILED_PRECONDITION)
    last = results(range(201, 203))
    last.results[0].error.CopyFrom(closed)
    last.results[1].error.CopyFrom(overloaded)
    script = (
        Give((results(range(1, 101)),), then=Cut()),
        Give((results(range(1, 101)), results(range(101, 201)), last)),
        Give((results(range(202, 203)),)),
    )
    with scripted_grpc(*script) as server, blocking(kind, server.address) as client:
        found = client.close_many((Close(n) for n in range(1, 203)), batch_key="march")
    assert [one.position_id for one in found if isinstance(one, CloseRequest)] == [*range(1, 201), 202]
    assert [one.key for one in found] == [f"march/{n}" for n in range(1, 203)]
    assert [one.code for one in found if isinstance(one, CloseflowError)] == ["position_closed"]
    sent = [[[one.idempotency_key for one in message.closes] for message in call.messages] for call in server.calls]
    assert [[len(message) for message in call] for call in sent] == [[100, 100, 2], [100, 100, 2], [1]]
    assert sent[0] == sent[1]
    assert sent[2] == [["march/202"]]


@BOTH
def test_a_stream_with_too_few_answers_is_not_trusted(kind: str) -> None:
    with scripted_grpc(Give(())) as server, blocking(kind, server.address) as client:
        (found,) = client.close_many([Close(7, key="k")])
    assert isinstance(found, AnswerUnreadable)
    assert (found.key, found.outcome_unknown) == ("k", True)


@BOTH
def test_lists_and_positions_are_read(kind: str) -> None:
    position = pb.Position(
        position_id=7, quantity="-10", opening_qty="-10", multiplier="1", symbol="AAPL", currency="USD", version=3
    )
    script = (
        Give((pb.ListCloseRequestsResponse(close_requests=[close_request()] * 2, next_page_token="p2"),)),
        Give((pb.ListCloseRequestsResponse(close_requests=[close_request(position_id=9)]),)),
        Give((pb.GetPositionResponse(position=position),)),
        Give((pb.ListPositionsResponse(positions=[position]),)),
    )
    with scripted_grpc(*script) as server, blocking(kind, server.address) as client:
        assert [one.position_id for one in client.list(account="ACC", status="pending")] == [7, 7, 9]
        assert client.position(7).quantity == Decimal(-10)
        assert [one.version for one in client.positions(symbol="AAPL")] == [3]
    assert [call.messages[0].page_token for call in server.calls[:2]] == ["", "p2"]


@BOTH
def test_a_filter_that_the_proto_has_not_is_refused_as_over_rest(kind: str) -> None:
    with (
        scripted_grpc() as server,
        blocking(kind, server.address) as client,
        pytest.raises(InvalidFields, match="status: must be one of pending"),
    ):
        list(client.list(status="parked"))


@BOTH
def test_a_close_request_is_read_cancelled_and_waited_for(kind: str) -> None:
    failed = close_request(close_request_status=pb.CLOSE_REQUEST_STATUS_FAILED)
    script = (
        Give((pb.GetCloseRequestResponse(close_request=close_request()),)),
        Cut(),
        Give((pb.CancelCloseRequestResponse(close_request=close_request()),)),
        Give((pb.GetCloseRequestResponse(close_request=close_request()),)),
        Give((pb.GetCloseRequestResponse(close_request=failed),)),
        Give((pb.GetCloseRequestResponse(close_request=close_request()),)),
    )
    with scripted_grpc(*script) as server, blocking(kind, server.address) as client:
        assert client.get(REQUEST_ID).final is False
        client.cancel(REQUEST_ID, reason="enough")
        assert client.wait(REQUEST_ID).close_request_status == "failed"
        with pytest.raises(NotFinal):
            client.wait(REQUEST_ID, timeout=0)
    waits = [call.messages[0].wait.ToTimedelta() for call in server.calls if call.method == "GetCloseRequest"]
    assert waits == [timedelta(0), timedelta(0), timedelta(seconds=30), timedelta(0)]
    assert [call.messages[0].reason for call in server.calls[1:3]] == ["enough", "enough"]


@BOTH
def test_a_watch_resumes_where_it_was(kind: str) -> None:
    submitted, completed = pb.CLOSE_REQUEST_STATUS_SUBMITTED, pb.CLOSE_REQUEST_STATUS_COMPLETED
    script = (
        Give((change("e1"), change("e2", close_request_status=submitted)), then=Hang()),
        refuse("unavailable", Status.UNAVAILABLE, retry_after_s=0.1),
        Give((change("e2", close_request_status=submitted),)),
        Give((change("e3", close_request_status=completed),), then=Hang()),
    )
    with scripted_grpc(*script) as server, blocking(kind, server.address) as client:
        states = []
        for one in client.watch(REQUEST_ID):
            states.append(one.close_request_status)
            if one.close_request_status == "submitted":
                server.cut()
    assert states == ["pending", "submitted", "completed"]
    assert [call.messages[0].last_event_id for call in server.calls] == ["", "e2", "e2", "e2"]


@BOTH
def test_a_watch_raises_what_would_not_change(kind: str) -> None:
    answer = refuse("not_found", Status.NOT_FOUND)
    with scripted_grpc(answer) as server, blocking(kind, server.address) as client, pytest.raises(NotFound):
        list(client.watch(REQUEST_ID))


async def test_a_task_that_is_cancelled_ends_at_once() -> None:
    with scripted_grpc(Hang(), ACCEPTED) as server:
        async with AsyncClient(server.address, "t") as client:
            waiting = asyncio.create_task(client.close(7))
            await _asked_of(server)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await client.close(7)


async def _asked_of(server: ScriptedGrpc) -> None:
    deadline = time.monotonic() + 5
    while not server.calls:
        assert time.monotonic() < deadline, "nothing was asked"
        await asyncio.sleep(0.01)


def test_an_async_client_may_be_made_before_its_loop() -> None:
    with scripted_grpc(ACCEPTED) as server:
        client = AsyncClient(server.address, "t")

        async def work() -> Any:
            async with client:
                return await client.close(7)

        assert asyncio.run(work()).position_id == 7
