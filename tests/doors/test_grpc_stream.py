"""Streams: ClosePositions in order and within bounds, WatchCloseRequest to its end and again from there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import grpc
import pytest
from google.rpc.code_pb2 import FAILED_PRECONDITION, INVALID_ARGUMENT, NOT_FOUND, RESOURCE_EXHAUSTED
from structlog.testing import capture_logs

from close_api.grpc.calls import AGED, STOPPING, UNREAD, StreamLimits
from close_api.grpc.close_stream import IDLE, IN_FLIGHT
from close_api.grpc.server import Limits
from closeflow_client.generated import close_pb2 as pb
from closeflow_client.generated.close_pb2_grpc import CloseServiceStub

from .grpc_serving import ACC, calls_ended, details_of, failing, runs, serving, until, waiting_closes

if TYPE_CHECKING:
    from closeflow_client.generated.close_pb2_grpc import CloseServiceAsyncStub

Stream = Any
"""A call of ClosePositions."""


def closes(batch_id: int, *position_ids: int, key: str = "k") -> pb.ClosePositionsRequest:
    return pb.ClosePositionsRequest(
        batch_id=batch_id, closes=[pb.Close(position_id=one, idempotency_key=key) for one in position_ids]
    )


async def answers_of(call: Stream) -> list[pb.ClosePositionsResponse]:
    """All until the stream ends; raises as it ends."""
    found = []
    while (answer := await call.read()) is not grpc.aio.EOF:
        found.append(answer)
    return found


async def test_every_message_is_answered_in_order_with_a_result_for_each_close() -> None:
    async with serving() as served, served.stub() as api:
        call = api.ClosePositions(metadata=ACC)
        for n in range(20):
            await call.write(closes(n, *range(10 * n + 1, 10 * n + 11)))
        await call.done_writing()
        answers = await answers_of(call)
        trace_id = dict(await call.initial_metadata())["trace-id"]
        assert dict(await call.trailing_metadata())["trace-id"] == trace_id
        assert await call.code() is grpc.StatusCode.OK
    assert [answer.batch_id for answer in answers] == list(range(20))
    shown = [result.close_request.position_id for answer in answers for result in answer.results]
    assert shown == list(range(1, 201))
    assert len(served.positions.accepted()) == 200
    assert {(one.traceparent or "").split("-")[1] for one in served.positions.accepted()} == {trace_id}


async def test_closes_fail_one_by_one_with_the_error_of_a_call_of_their_own() -> None:
    message = closes(1, 1, 0, 999, 2, 2)
    message.closes[4].idempotency_key = "another"
    message.closes.add(position_id=3, idempotency_key="k", quantity="NaN", percentage="x")
    message.closes.add(position_id=4, idempotency_key="k", dry_run=True)
    async with serving() as served, served.stub() as api:
        call = api.ClosePositions(metadata=ACC)
        await call.write(message)
        answer = await call.read()
        await call.write(closes(2, 1))
        again = await call.read()
        alone = await failing(api.ClosePosition(pb.ClosePositionRequest(close=message.closes[4]), metadata=ACC))
    assert isinstance(answer, pb.ClosePositionsResponse)
    kinds = [one.WhichOneof("result") for one in answer.results]
    assert kinds == ["close_request", "error", "error", "close_request", "error", "error", "dry_run"]
    codes = [one.error.code for one in answer.results if one.HasField("error")]
    assert codes == [INVALID_ARGUMENT, NOT_FOUND, FAILED_PRECONDITION, INVALID_ARGUMENT]
    active = details_of(answer.results[4].error)["ErrorInfo"]
    assert active.reason == alone.reason == "POSITION_ALREADY_CLOSING"
    assert active.metadata["active_close_request_id"] == answer.results[3].close_request.close_request_id
    wrong = details_of(answer.results[5].error)["BadRequest"].field_violations
    assert [one.field for one in wrong] == ["quantity", "percentage"]
    assert isinstance(again, pb.ClosePositionsResponse)
    assert again.results[0].replayed
    assert again.results[0].close_request == answer.results[0].close_request
    assert len(served.positions.accepted()) == 2


@pytest.mark.parametrize("count", [0, 101])
async def test_a_message_with_no_closes_or_too_many_ends_the_stream_after_those_before(count: int) -> None:
    async with serving() as served, served.stub() as api:
        call = api.ClosePositions(metadata=ACC)
        await call.write(closes(1, 1))
        await call.write(closes(2, *range(1, count + 1)))
        first = await call.read()
        refused = await failing(call)
    assert isinstance(first, pb.ClosePositionsResponse)
    assert first.batch_id == 1
    assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, {"closes": "must be 1 to 100 closes"})
    assert len(served.positions.accepted()) == 1


async def test_no_more_than_a_few_messages_are_worked_on_at_a_time() -> None:
    async with serving() as served, served.stub() as api:
        served.positions.open.clear()
        call = api.ClosePositions(metadata=ACC)
        for n in range(20):
            await call.write(closes(n, n + 1))
        await until(lambda: waiting_closes() + len(served.positions.asked) == IN_FLIGHT)
        await asyncio.sleep(0.1)  # So that what would be read beyond them is.
        assert waiting_closes() + len(served.positions.asked) == IN_FLIGHT
        served.positions.open.set()
        await call.done_writing()
        assert len(await answers_of(call)) == 20


@pytest.mark.parametrize("metadata", [(), (("authorization", "Bearer reader"),)])
async def test_a_stream_of_nobody_ends_before_its_first_message(metadata: Any) -> None:
    async with serving() as served, served.stub() as api:
        refused = await failing(api.ClosePositions(metadata=metadata))
    assert refused.reason in ("UNAUTHENTICATED", "FORBIDDEN")


async def test_a_token_that_ends_meanwhile_ends_the_stream() -> None:
    async with serving() as served, served.stub() as api:
        call = api.ClosePositions(metadata=ACC)
        await call.write(closes(1, 1))
        await call.read()
        served.tokens.revoked.add("Bearer acc")
        await call.write(closes(2, 2))
        refused = await failing(call)
    assert refused.reason == "UNAUTHENTICATED"
    assert len(served.positions.accepted()) == 1


async def test_beyond_the_rate_every_close_of_the_message_is_told_when_to_come_again() -> None:
    async with serving(rate_limit=3) as served, served.stub() as api:
        call = api.ClosePositions(metadata=ACC)
        for n in range(2):
            await call.write(closes(n, 2 * n + 1, 2 * n + 2))
        first, second = await call.read(), await call.read()
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.OK
    assert isinstance(first, pb.ClosePositionsResponse)
    assert isinstance(second, pb.ClosePositionsResponse)
    assert [one.WhichOneof("result") for one in first.results] == ["close_request", "close_request"]
    assert [one.error.code for one in second.results] == [RESOURCE_EXHAUSTED, RESOURCE_EXHAUSTED]
    assert details_of(second.results[0].error)["RetryInfo"].retry_delay.seconds == 20


@pytest.mark.parametrize(
    ("streams", "why"), [(StreamLimits(idle_s=0.3), IDLE), (StreamLimits(idle_s=10.0, age_s=0.3), AGED)]
)
async def test_a_stream_ends_when_nothing_is_asked_and_at_its_longest(streams: StreamLimits, why: str) -> None:
    async with serving(limits=Limits(streams=streams)) as served, served.stub() as api:
        call = api.ClosePositions(metadata=ACC)
        await call.write(closes(1, 1))
        await call.read()
        refused = await failing(call)
    assert (refused.code, refused.reason, refused.message) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", why)
    assert refused.retry_after_s == 1


async def test_answers_that_nobody_reads_end_the_stream() -> None:
    refusals = [pb.Close(position_id=9_000 + n, idempotency_key="k") for n in range(100)]
    limits = Limits(streams=StreamLimits(idle_s=0.5))
    before = calls_ended("ClosePositions", "unavailable")
    with capture_logs() as logs:
        async with serving(limits=limits) as served, served.channel(**SMALL_WINDOW) as channel:
            api: CloseServiceAsyncStub = CloseServiceStub(channel)
            call = api.ClosePositions(metadata=ACC)
            for n in range(200):
                await call.write(pb.ClosePositionsRequest(batch_id=n, closes=refusals))
            await until(lambda: calls_ended("ClosePositions", "unavailable") > before)
            assert not runs("CloseStream.answer")
            answered = [one async for one in call_until_refused(call)]
            assert (await call.code(), await call.details()) == (grpc.StatusCode.UNAVAILABLE, UNREAD)
    assert 0 < len(answered) < 200
    assert [one for one in logs if one["log_level"] == "error"] == []


SMALL_WINDOW: Final = {"http2.bdp_probe": 0, "http2.lookahead_bytes": 65_536}
"""How much a client takes that nobody reads yet, instead of as much as its connection can carry."""


async def call_until_refused(call: Stream) -> AsyncIterator[pb.ClosePositionsResponse]:
    """What comes before the error."""
    with suppress(grpc.aio.AioRpcError):
        async for one in call:
            yield one


async def test_a_stream_that_is_cancelled_leaves_what_a_batch_has_taken_and_drops_the_rest() -> None:
    with capture_logs() as logs:
        async with serving() as served, served.stub() as api:
            served.positions.open.clear()
            call = api.ClosePositions(metadata=ACC)
            await call.write(closes(1, 1))
            await served.positions.taken.wait()
            await call.write(closes(2, 2))
            await until(lambda: waiting_closes() == 1)
            call.cancel()
            await until(lambda: not runs("CloseStream.answer"))
            served.positions.open.set()
            again = await api.ClosePosition(
                pb.ClosePositionRequest(close=pb.Close(position_id=1, idempotency_key="k")), metadata=ACC
            )
            other = await api.ClosePosition(
                pb.ClosePositionRequest(close=pb.Close(position_id=2, idempotency_key="k")), metadata=ACC
            )
    assert (again.replayed, other.replayed) == (True, False)
    assert [one for one in logs if one["log_level"] in ("warning", "error")] == []


async def test_when_the_service_stops_what_was_read_is_answered_and_the_stream_ends() -> None:
    async with serving(grace_s=10.0) as served, served.stub() as api:
        served.positions.open.clear()
        call = api.ClosePositions(metadata=ACC)
        await call.write(closes(1, 1))
        await served.positions.taken.wait()
        served.made.doors.stopping.set()
        await asyncio.sleep(0.1)
        assert not served.ended.done()
        served.positions.open.set()
        answer = await call.read()
        refused = await failing(call)
        async with asyncio.timeout(5.0):
            await served.ended
    assert isinstance(answer, pb.ClosePositionsResponse)
    assert answer.results[0].HasField("close_request")
    assert (refused.code, refused.message) == (grpc.StatusCode.UNAVAILABLE, STOPPING)


FIRST: Final = pb.ClosePositionRequest(close=pb.Close(position_id=7, idempotency_key="k"))


async def test_a_watch_tells_every_change_and_ends_after_the_last() -> None:
    async with serving() as served, served.stub() as api:
        closed = (await api.ClosePosition(FIRST, metadata=ACC)).close_request
        call = api.WatchCloseRequest(
            pb.WatchCloseRequestRequest(close_request_id=closed.close_request_id), metadata=ACC
        )
        first = await call.read()
        served.positions.finish(served.positions.accepted()[0].id)
        served.reading.changed.set()
        last = await call.read()
        assert await call.read() is grpc.aio.EOF
        assert dict(await call.initial_metadata()) == {"trace-id": dict(await call.trailing_metadata())["trace-id"]}
    assert first == pb.WatchCloseRequestResponse(event_id="1", close_request=closed)
    assert isinstance(last, pb.WatchCloseRequestResponse)
    assert (last.event_id, last.close_request.close_request_status) == ("2", pb.CLOSE_REQUEST_STATUS_COMPLETED)
    assert served.reading.watching == 0


async def test_a_watch_goes_on_from_the_event_that_was_heard_last() -> None:
    async with serving() as served, served.stub() as api:
        closed = (await api.ClosePosition(FIRST, metadata=ACC)).close_request
        served.positions.finish(served.positions.accepted()[0].id)
        served.reading.changed.set()
        request = pb.WatchCloseRequestRequest(close_request_id=closed.close_request_id, last_event_id="1")
        told = [one.event_id async for one in api.WatchCloseRequest(request, metadata=ACC)]
    assert told == ["2"]


@pytest.mark.parametrize("how", ["cancelled", "stopped", "aged"])
async def test_a_watch_that_ends_early_leaves_nothing_behind(how: str) -> None:
    limits = Limits(streams=StreamLimits(age_s=0.3 if how == "aged" else 60.0))
    with capture_logs() as logs:
        async with serving(limits=limits) as served, served.stub() as api:
            closed = (await api.ClosePosition(FIRST, metadata=ACC)).close_request
            call = api.WatchCloseRequest(
                pb.WatchCloseRequestRequest(close_request_id=closed.close_request_id), metadata=ACC
            )
            await call.read()
            if how == "cancelled":
                call.cancel()
            else:
                if how == "stopped":
                    served.made.doors.stopping.set()
                refused = await failing(call)
                assert (refused.code, refused.message) == (
                    grpc.StatusCode.UNAVAILABLE,
                    STOPPING if how == "stopped" else AGED,
                )
            await until(lambda: served.reading.watching == 0)
    assert [one for one in logs if one["log_level"] in ("warning", "error")] == []


async def test_a_wait_is_answered_at_once_when_the_service_stops() -> None:
    async with serving() as served, served.stub() as api:
        closed = (await api.ClosePosition(FIRST, metadata=ACC)).close_request
        request = pb.GetCloseRequestRequest(close_request_id=closed.close_request_id)
        request.wait.seconds = 60
        waiting = asyncio.ensure_future(api.GetCloseRequest(request, metadata=ACC))
        await until(lambda: served.reading.watching == 1)
        served.made.doors.stopping.set()
        async with asyncio.timeout(5.0):
            assert (await waiting).close_request == closed
            await served.ended
