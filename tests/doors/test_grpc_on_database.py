"""The gRPC door of a real close-api on a real PostgreSQL: what is refused leaves no row, and nobody sees another's."""

from __future__ import annotations

import asyncio
import random
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import grpc
import httpx
import psycopg
import pytest
from google.protobuf.message import Message

from closeflow_client.generated import close_pb2 as pb
from closeflow_client.generated.close_pb2_grpc import CloseServiceStub

from .conftest import FOREIGN, MINE, Desk, Running
from .grpc_serving import failing, until
from .messages import UNKNOWN, cancel, close, get, position, watch

if TYPE_CHECKING:
    from closeflow_client.generated.close_pb2_grpc import CloseServiceAsyncStub

NOWHERE: Final = 9_000_000_000
PATH: Final = "/closeflow.close.v1.CloseService/"
AT_A_TIME: Final = 50
UNARY: Final = ("ClosePosition", "GetCloseRequest", "ListCloseRequests", "CancelCloseRequest", "GetPosition")


def token(desk: Desk, *accounts: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {desk.issuer.token(*accounts)}"),)


@pytest.fixture
async def channel(api: Running) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(api.grpc_target) as opened:
        yield opened


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> CloseServiceAsyncStub:
    return CloseServiceStub(channel)


async def test_a_key_of_either_door_is_the_same_key_at_the_other(
    desk: Desk, api: Running, stub: CloseServiceAsyncStub
) -> None:
    one, two = desk.open_positions(2)
    metadata = token(desk, MINE)
    headers = {"Idempotency-Key": "k", **dict(metadata)}
    body = {"quantity": 2.5, "reason": "r"}
    async with httpx.AsyncClient(base_url=api.url, headers=headers, timeout=10) as rest:
        over_rest = await rest.post(f"/v1/positions/{one}/close", json={"quantity": 2.50})
        over_grpc = await stub.ClosePosition(close(two, quantity="2.5", reason="r"), metadata=metadata)
        found = await stub.ClosePosition(close(one, quantity="2.5"), metadata=metadata)
        again = await rest.post(f"/v1/positions/{two}/close", json=body)
    other = await failing(stub.ClosePosition(close(one), metadata=metadata))
    assert (over_rest.status_code, over_grpc.replayed, found.replayed, again.status_code) == (201, False, True, 200)
    assert found.close_request.close_request_id == over_rest.json()["close_request_id"]
    assert again.json()["close_request_id"] == over_grpc.close_request.close_request_id
    assert (other.code, other.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "IDEMPOTENCY_KEY_REUSED")
    assert desk.requests() == 2


async def test_a_close_is_shown_listed_cancelled_and_watched(desk: Desk, stub: CloseServiceAsyncStub) -> None:
    (mine,) = desk.open_positions(1)
    metadata = token(desk, MINE)
    made = (await stub.ClosePosition(close(mine), metadata=metadata)).close_request
    shown = await stub.GetCloseRequest(get(made.close_request_id), metadata=metadata)
    listed = await stub.ListCloseRequests(pb.ListCloseRequestsRequest(position_id=mine), metadata=metadata)
    positions = await stub.ListPositions(pb.ListPositionsRequest(), metadata=metadata)
    watching = stub.WatchCloseRequest(watch(made.close_request_id), metadata=metadata)
    states: list[Any] = [await watching.read()]
    stopped = await stub.CancelCloseRequest(cancel(made.close_request_id, reason="changed"), metadata=metadata)
    while (changed := await watching.read()) is not grpc.aio.EOF:
        states.append(changed)
    waited = await stub.GetCloseRequest(get(made.close_request_id, wait={"seconds": 30}), metadata=metadata)
    assert shown.close_request == made
    assert list(listed.close_requests) == [made]
    assert [one.position_id for one in positions.positions] == [mine]
    assert stopped.close_request.close_request_status == pb.CLOSE_REQUEST_STATUS_FAILED
    seen = [one.close_request.close_request_status for one in states]
    assert seen == [pb.CLOSE_REQUEST_STATUS_PENDING, pb.CLOSE_REQUEST_STATUS_FAILED]
    assert waited.close_request.close_request_status == pb.CLOSE_REQUEST_STATUS_FAILED


@pytest.mark.parametrize("accounts", [(MINE,), ()])
async def test_not_mine_and_not_there_are_the_same_bytes_on_every_call(
    desk: Desk, stub: CloseServiceAsyncStub, accounts: tuple[str, ...]
) -> None:
    (theirs,) = desk.open_positions(1, account=FOREIGN)
    made = (await stub.ClosePosition(close(theirs, "theirs"), metadata=token(desk, FOREIGN))).close_request
    request = made.close_request_id
    pairs: list[tuple[Any, Message, Message]] = [
        (stub.ClosePosition, close(theirs), close(NOWHERE)),
        (stub.ClosePosition, close(theirs, "theirs"), close(NOWHERE, "theirs")),
        (stub.ClosePosition, close(theirs, dry_run=True), close(NOWHERE, dry_run=True)),
        (stub.ClosePosition, close(theirs, quantity="999", expected_version=9), close(NOWHERE)),
        (stub.GetPosition, position(theirs), position(NOWHERE)),
        (stub.GetCloseRequest, get(request), get(UNKNOWN)),
        (stub.GetCloseRequest, get(request, wait={"seconds": 1}), get(UNKNOWN)),
        (stub.CancelCloseRequest, cancel(request), cancel(UNKNOWN)),
        (stub.WatchCloseRequest, watch(request), watch(UNKNOWN)),
    ]
    metadata = token(desk, *accounts)
    for n, (ask, other, nobodys) in enumerate(pairs):
        first = await failing(ask(other, metadata=metadata))
        second = await failing(ask(nobodys, metadata=metadata))
        assert first.code is grpc.StatusCode.NOT_FOUND, n
        assert first.without_passing() == second.without_passing(), n
    listed = await stub.ListCloseRequests(pb.ListCloseRequestsRequest(position_id=theirs), metadata=metadata)
    absent = await stub.ListCloseRequests(pb.ListCloseRequestsRequest(position_id=NOWHERE), metadata=metadata)
    assert listed.SerializeToString() == absent.SerializeToString() == b""
    positions = await stub.ListPositions(pb.ListPositionsRequest(account=FOREIGN), metadata=metadata)
    assert positions.SerializeToString() == b""
    call = stub.ClosePositions(metadata=metadata)
    await call.write(pb.ClosePositionsRequest(closes=[close(theirs).close, close(NOWHERE).close]))
    answer = await call.read()
    assert isinstance(answer, pb.ClosePositionsResponse)
    assert answer.results[0].SerializeToString() == answer.results[1].SerializeToString()
    assert desk.run("SELECT count(*), max(status), max(cancel_requested_at) FROM close_requests") == [
        (1, "pending", None)
    ]


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"position_id": 0}, "position_id"),
        ({"position_id": -1}, "position_id"),
        ({"position_id": -(2**63)}, "position_id"),
        ({"idempotency_key": ""}, "idempotency_key"),
        ({"idempotency_key": "x" * 101}, "idempotency_key"),
        ({"quantity": "NaN"}, "quantity"),
        ({"quantity": "1e999999"}, "quantity"),
        ({"quantity": "-1"}, "quantity"),
        ({"quantity": "0"}, "quantity"),
        ({"quantity": "10.000000001"}, "quantity"),
        ({"quantity": "11"}, "quantity"),
        ({"quantity": "9" * 60_000}, "quantity"),
        ({"quantity": "1", "percentage": "50"}, "percentage"),
        ({"order_type": 77}, "order_type"),
        ({"time_in_force": 77}, "time_in_force"),
        ({"order_type": pb.ORDER_TYPE_MARKET, "limit_price": "3"}, "limit_price"),
        ({"deadline": {"seconds": 2**62}}, "deadline"),
        ({"deadline": {"seconds": 1}}, "deadline"),
        ({"expected_version": 0}, "expected_version"),
        ({"reason": "\x07"}, "reason"),
    ],
)
async def test_a_bad_value_is_named_and_leaves_no_row(
    desk: Desk, stub: CloseServiceAsyncStub, fields: dict[str, Any], wrong: str
) -> None:
    (mine,) = desk.open_positions(1)
    message = pb.ClosePositionRequest(close=pb.Close(**{"position_id": mine, "idempotency_key": "k", **fields}))
    alone = await failing(stub.ClosePosition(message, metadata=token(desk, MINE)))
    call = stub.ClosePositions(metadata=token(desk, MINE))
    await call.write(pb.ClosePositionsRequest(closes=[message.close]))
    answer = await call.read()
    assert (alone.code, list(alone.fields)) == (grpc.StatusCode.INVALID_ARGUMENT, [wrong])
    assert isinstance(answer, pb.ClosePositionsResponse)
    assert answer.results[0].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert desk.requests() == 0


async def test_garbage_leaves_no_row(desk: Desk, channel: grpc.aio.Channel, stub: CloseServiceAsyncStub) -> None:
    (mine,) = desk.open_positions(1)
    metadata, source = token(desk, MINE), random.Random(9)
    whole = close(mine, quantity="3").SerializeToString()
    messages = [source.randbytes(source.choice((1, 10, 100, 10_000))) for _ in range(100)]
    messages += [whole[:cut] for cut in range(1, len(whole))]
    messages += [whole + b"\x98\x06\x01", b"x" * 70_000, b"\x92\x03\xff\xff\x7f" + b"x" * 2_000_000, b"\x0b" * 10_000]
    for method in UNARY:
        ask: Any = channel.unary_unary(PATH + method)
        codes: set[grpc.StatusCode] = set()
        for n in range(0, len(messages), AT_A_TIME):
            calls = [ask(raw, metadata=metadata, timeout=20.0) for raw in messages[n : n + AT_A_TIME]]
            codes.update(await asyncio.gather(*(call.code() for call in calls)))
        assert codes <= {
            grpc.StatusCode.INVALID_ARGUMENT,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            grpc.StatusCode.NOT_FOUND,
            *([grpc.StatusCode.OK] if method == "ListCloseRequests" else []),
        }
    assert desk.requests() == 0
    assert not (await stub.ClosePosition(close(mine), metadata=metadata)).replayed


@pytest.mark.parametrize("timeout_s", [0.001, 0.005, 0.02, None])
async def test_a_stream_that_ends_early_has_at_most_one_effect_for_each_key(
    desk: Desk, stub: CloseServiceAsyncStub, timeout_s: float | None
) -> None:
    """The last one is cancelled when its messages are on their way."""
    positions = desk.open_positions(100)
    metadata = token(desk, MINE)
    message = pb.ClosePositionsRequest(closes=[close(one).close for one in positions])
    call = stub.ClosePositions(metadata=metadata, timeout=timeout_s)
    try:
        await call.write(message)
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        pass
    call.cancel()
    again = stub.ClosePositions(metadata=metadata)
    await again.write(message)
    answer = await again.read()
    assert isinstance(answer, pb.ClosePositionsResponse)
    assert [one.close_request.position_id for one in answer.results] == positions
    assert desk.requests() == 100
    assert desk.run("SELECT count(DISTINCT position_id) FROM close_requests") == [(100,)]


@contextmanager
def locked(desk: Desk, position_id: int) -> Iterator[None]:
    """For less than a second, which is how long close-api waits for a lock."""
    with psycopg.connect(desk.database.admin_dsn) as owner:
        owner.execute("SELECT FROM positions WHERE id = %s FOR UPDATE", (position_id,))
        yield


def waits_for_a_lock(desk: Desk) -> bool:
    return bool(
        desk.run("SELECT pid FROM pg_stat_activity WHERE application_name = 'close-api' AND wait_event_type = 'Lock'")
    )


def refuses_connections(running: Running) -> bool:
    """Whether the gRPC door listens no more."""
    try:
        socket.create_connection(("127.0.0.1", running.grpc_port)).close()
    except ConnectionRefusedError:
        return True
    return False


async def test_a_stop_answers_what_is_in_flight_over_grpc(desk: Desk) -> None:
    """A position is locked elsewhere, so that the closes are certainly in flight when the signal comes."""
    positions = desk.open_positions(20)
    with desk.api() as running:
        async with grpc.aio.insecure_channel(running.grpc_target) as opened:
            api = CloseServiceStub(opened)
            call = api.ClosePositions(metadata=token(desk, MINE))
            await call.write(pb.ClosePositionsRequest(batch_id=1, closes=[close(positions[0]).close]))
            assert await call.read() is not grpc.aio.EOF
            with locked(desk, positions[1]):
                rest = [close(one).close for one in positions[1:]]
                await call.write(pb.ClosePositionsRequest(batch_id=2, closes=rest))
                await until(lambda: waits_for_a_lock(desk))
                running.service.process.send_signal(signal.SIGTERM)
                await until(lambda: refuses_connections(running))
            answer = await call.read()
            refused = await failing(call)
        assert await asyncio.to_thread(running.service.process.wait, 20) == 0
    assert isinstance(answer, pb.ClosePositionsResponse)
    # On a busy machine the lock may have been waited for too long: then that is what they are told.
    kinds = [one.WhichOneof("result") for one in answer.results]
    assert len(kinds) == 19
    assert refused.code is grpc.StatusCode.UNAVAILABLE
    assert desk.requests() == 1 + kinds.count("close_request")
