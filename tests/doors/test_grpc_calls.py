"""What the calls of one message make of the use cases, and how each of them fails."""

from __future__ import annotations

import asyncio
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from structlog.testing import capture_logs

from close_api.errors import STATUSES, Code
from close_api.grpc.statuses import answered_codes
from close_api.use_cases.reading import PositionFilter, RequestFilter
from closeflow.domain.model import PositionStatus, RequestStatus, TimeInForce
from closeflow.domain.trading_controls import TradingState
from closeflow.storage.close_requests import DatabaseAway
from closeflow_client.generated import close_pb2 as pb

from .grpc_serving import ACC, Served, failing, serving, told
from .in_memory import NOW
from .messages import cancel, close, get, position

if TYPE_CHECKING:
    from closeflow_client.generated.close_pb2_grpc import CloseServiceAsyncStub


async def test_a_close_is_accepted_and_its_repetition_replayed() -> None:
    async with serving() as served, served.stub() as api:
        first = await api.ClosePosition(close(quantity="2.5", reason="mine"), metadata=ACC)
        again = await api.ClosePosition(close(quantity="2.50", reason="mine"), metadata=ACC)
    (request,) = served.positions.accepted()
    assert first.WhichOneof("result") == "close_request"
    assert (first.replayed, again.replayed) == (False, True)
    assert (
        again.close_request
        == first.close_request
        == pb.CloseRequest(
            close_request_id=str(request.id),
            position_id=7,
            position_status=pb.POSITION_STATUS_CLOSING,
            close_request_status=pb.CLOSE_REQUEST_STATUS_PENDING,
            symbol="S7",
            side=pb.SIDE_SELL,
            target_qty="2.5",
            filled_qty="0",
            remaining_qty="2.5",
            created_at=NOW,
        )
    )
    assert request.requested_by == "acc"


async def test_a_dry_run_shows_the_order_and_keeps_nothing() -> None:
    async with serving() as served, served.stub() as api:
        planned = await api.ClosePosition(close(percentage="50", limit_price="9.5", dry_run=True), metadata=ACC)
    assert planned == pb.ClosePositionResponse(
        dry_run=pb.DryRun(
            position_id=7,
            account_id="ACC",
            position_version=4,
            target_qty="5",
            order=pb.PlannedOrder(
                symbol="S7",
                side=pb.SIDE_SELL,
                quantity="5",
                order_type=pb.ORDER_TYPE_LIMIT,
                limit_price="9.5",
                time_in_force=pb.TIME_IN_FORCE_DAY,
            ),
        )
    )
    assert served.positions.accepted() == []


async def test_everything_a_close_may_say_reaches_the_use_case() -> None:
    fields: dict[str, Any] = {
        "quantity": "3",
        "order_type": pb.ORDER_TYPE_LIMIT,
        "max_slippage_bps": 25,
        "time_in_force": pb.TIME_IN_FORCE_GTC,
        "working_timeout_seconds": 90,
        "deadline": Timestamp(seconds=1_800_000_000, nanos=123_456_789),
        "expected_quantity": "10",
        "expected_version": 3,
        "reason": "rebalance",
    }
    async with serving() as served, served.stub() as api:
        await api.ClosePosition(close(**fields), metadata=ACC)
    (command,) = served.positions.asked
    assert (command.quantity, command.max_slippage_bps) == (Decimal(3), 25)
    assert command.time_in_force is TimeInForce.GTC
    assert (command.working_timeout_s, command.expected_quantity) == (90, Decimal(10))
    assert command.expected_version == 3
    assert command.deadline_at is not None
    assert command.deadline_at.isoformat() == "2027-01-15T08:00:00.123456+00:00"
    assert command.reason == "rebalance"


async def refusal_by(served: Served, api: CloseServiceAsyncStub, case: str) -> pb.ClosePositionRequest:
    """A close that is refused, after what makes it so."""
    positions = served.positions
    match case:
        case "not_found":
            return close(999)
        case "position_already_closing" | "idempotency_key_reused":
            await api.ClosePosition(close(key="first"), metadata=ACC)
            return close(key="first", quantity="1") if case == "idempotency_key_reused" else close()
        case "trading_halted":
            positions.trading = TradingState.HALTED
        case "expected_quantity_mismatch":
            return close(expected_version=2)
        case "invalid_fields":
            return close(quantity="11")
        case "unavailable":
            positions.fails_with = DatabaseAway("the password is s3cret")
        case "internal_error":
            positions.fails_with = KeyError("the password is s3cret")
    return close()


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (Code.NOT_FOUND, grpc.StatusCode.NOT_FOUND),
        (Code.POSITION_ALREADY_CLOSING, grpc.StatusCode.FAILED_PRECONDITION),
        (Code.IDEMPOTENCY_KEY_REUSED, grpc.StatusCode.FAILED_PRECONDITION),
        (Code.TRADING_HALTED, grpc.StatusCode.UNAVAILABLE),
        (Code.EXPECTED_QUANTITY_MISMATCH, grpc.StatusCode.ABORTED),
        (Code.INVALID_FIELDS, grpc.StatusCode.INVALID_ARGUMENT),
        (Code.UNAVAILABLE, grpc.StatusCode.UNAVAILABLE),
        (Code.INTERNAL_ERROR, grpc.StatusCode.INTERNAL),
    ],
)
async def test_a_refusal_has_its_code_its_reason_and_its_details(code: Code, status: grpc.StatusCode) -> None:
    async with serving() as served, served.stub() as api:
        message = await refusal_by(served, api, code)
        refused = await failing(api.ClosePosition(message, metadata=ACC))
    assert (refused.code, refused.reason) == (status, code.upper())
    assert refused.retry_after_s == STATUSES[code].retry_after_s
    assert "s3cret" not in str(refused)
    extra = {name: value for name, value in refused.metadata.items() if name != "trace_id"}
    match code:
        case Code.POSITION_ALREADY_CLOSING:
            assert extra == {"active_close_request_id": str(served.positions.accepted()[0].id)}
        case Code.EXPECTED_QUANTITY_MISMATCH:
            assert extra == {"quantity": "10", "version": "3"}
        case _:
            assert extra == {}
    wrong = {"quantity": "must not exceed the position: 10"} if code is Code.INVALID_FIELDS else {}
    assert refused.fields == wrong


@pytest.mark.parametrize("code", answered_codes())
def test_every_code_names_a_status_of_grpc(code: Code) -> None:
    assert STATUSES[code].grpc in grpc.StatusCode.__members__


async def test_a_defect_is_logged_under_the_trace_id_and_says_nothing_of_the_inside() -> None:
    with capture_logs() as logs:
        async with serving() as served, served.stub() as api:
            served.reading.fails_with = ZeroDivisionError("the password is s3cret")
            refused = await failing(api.GetCloseRequest(get(), metadata=ACC))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL_ERROR")
    assert "s3cret" not in str(refused)
    (line,) = [one for one in logs if one["event"] == "call_failed"]
    assert (line["trace_id"], line["method"]) == (refused.metadata["trace_id"], "GetCloseRequest")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")], True),
        ([("traceparent", "00-00000000000000000000000000000000-b7ad6b7169203331-01")], False),
        ([("traceparent", "rubbish")], False),
        ([], False),
    ],
)
async def test_the_trace_is_the_callers_or_a_new_one(given: list[tuple[str, str]], kept: bool) -> None:
    async with serving() as served, served.stub() as api:
        call = api.ClosePosition(close(), metadata=(*ACC, *given))
        await call
        (command,) = served.positions.asked
        trace_id = dict(await call.trailing_metadata())["trace-id"]
    assert re.fullmatch("[0-9a-f]{32}", str(trace_id))
    assert (trace_id == "0af7651916cd43dd8448eb211c80319c") == kept
    assert command.traceparent is not None
    assert command.traceparent.split("-")[1] == trace_id
    assert command.traceparent.split("-")[2] != "b7ad6b7169203331"


async def test_a_close_request_and_a_position_are_shown() -> None:
    async with serving() as served, served.stub() as api:
        closed = (await api.ClosePosition(close(), metadata=ACC)).close_request
        found = await api.GetCloseRequest(get(closed.close_request_id.upper()), metadata=ACC)
        of_it = (await api.GetPosition(position(7), metadata=ACC)).position
        served.positions.finish(served.positions.accepted()[0].id)
        done = await api.GetCloseRequest(get(closed.close_request_id), metadata=ACC)
    assert found.close_request == closed
    assert not closed.HasField("completed_at")
    assert done.close_request.completed_at.ToDatetime().isoformat() == "2026-03-02T15:00:00"
    assert of_it == pb.Position(
        position_id=7,
        account_id="ACC",
        symbol="S7",
        asset_type=pb.ASSET_TYPE_STOCK,
        position_status=pb.POSITION_STATUS_CLOSING,
        quantity="10",
        opening_qty="10",
        multiplier="1",
        currency="USD",
        active_close_request_id=closed.close_request_id,
        version=4,
    )


async def test_filters_and_pages_reach_the_use_case() -> None:
    async with serving() as served, served.stub() as api:
        await api.ClosePosition(close(), metadata=ACC)
        found = await api.ListCloseRequests(
            pb.ListCloseRequestsRequest(
                account="ACC",
                status=pb.CLOSE_REQUEST_STATUS_PENDING,
                position_id=7,
                created_after=NOW,
                page_size=9,
                page_token="t",
            ),
            metadata=ACC,
        )
        listed = await api.ListPositions(
            pb.ListPositionsRequest(account="ACC", status=pb.POSITION_STATUS_OPEN, symbol="S1"), metadata=ACC
        )
        await api.ListCloseRequests(pb.ListCloseRequestsRequest(), metadata=ACC)
    assert [one.position_id for one in found.close_requests] == [7]
    assert found.next_page_token == "more"
    assert [one.position_id for one in listed.positions] == [1, 2]
    assert served.reading.asked == [
        (RequestFilter(account="ACC", status=RequestStatus.PENDING, position_id=7, created_after=NOW), 9, "t"),
        (PositionFilter(account="ACC", status=PositionStatus.OPEN, symbol="S1"), 0, ""),
        (RequestFilter(), 0, ""),
    ]


async def test_a_cancel_hands_on_the_reason_and_the_trace() -> None:
    async with serving() as served, served.stub() as api:
        closed = (await api.ClosePosition(close(), metadata=ACC)).close_request
        answer = await api.CancelCloseRequest(cancel(closed.close_request_id, reason="changed"), metadata=ACC)
        await api.CancelCloseRequest(cancel(closed.close_request_id), metadata=ACC)
    assert answer.close_request == closed
    assert [(str(one), reason) for one, reason, _ in served.cancelling.asked] == [
        (closed.close_request_id, "changed"),
        (closed.close_request_id, None),
    ]
    assert all(traceparent.startswith("00-") for _, _, traceparent in served.cancelling.asked)


@pytest.mark.parametrize(
    ("wait_s", "timeout_s", "least", "most"),
    [(30.0, None, 30.0, 30.0), (30.0, 10.0, 9.0, 9.9), (60.0, 3600.0, 59.0, 59.9)],
)
async def test_a_wait_ends_before_the_deadline_of_its_call(
    wait_s: float, timeout_s: float | None, least: float, most: float
) -> None:
    async with serving() as served, served.stub() as api:
        closed = (await api.ClosePosition(close(), metadata=ACC)).close_request
        served.reading.changed.set()
        wait = Duration(seconds=int(wait_s))
        await api.GetCloseRequest(get(closed.close_request_id, wait=wait), metadata=ACC, timeout=timeout_s)
    assert least <= served.reading.waits[0] <= most


async def test_a_wait_without_a_change_is_answered_in_time() -> None:
    async with serving() as served, served.stub() as api:
        closed = (await api.ClosePosition(close(), metadata=ACC)).close_request
        request = get(closed.close_request_id, wait=Duration(seconds=60))
        found = await api.GetCloseRequest(request, metadata=ACC, timeout=0.7)
    assert found.close_request == closed


async def test_a_close_that_no_batch_takes_in_time_is_unavailable() -> None:
    async with serving(deadline_s=1.0) as served, served.stub() as api:
        served.positions.open.clear()
        refused = await failing(api.ClosePosition(close(), metadata=ACC))
        served.positions.open.set()
        again = await api.ClosePosition(close(), metadata=ACC)
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")
    assert len(served.positions.accepted()) == 1
    assert again.close_request.close_request_id == str(served.positions.accepted()[0].id)


@pytest.mark.parametrize("how", ["cancelled", "deadline"])
async def test_a_call_that_ends_early_has_at_most_one_effect_and_is_found_with_its_key(how: str) -> None:
    with capture_logs() as logs:
        async with serving() as served, served.stub() as api:
            served.positions.open.clear()
            call = api.ClosePosition(close(), metadata=ACC, timeout=0.2 if how == "deadline" else None)
            asked = asyncio.ensure_future(call.code())
            await served.positions.taken.wait()
            if how == "cancelled":
                call.cancel()
            code = await asked
            served.positions.open.set()
            again = await api.ClosePosition(close(), metadata=ACC)
    assert code in (grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED)
    assert again.replayed
    assert len(served.positions.accepted()) == 1
    assert [one for one in logs if one["log_level"] in ("warning", "error")] == []


async def test_told_reads_what_the_service_wrote() -> None:
    """Of the tests' own reader: an error without details is no error of ours."""
    async with serving() as served, served.channel() as channel:
        call: Any = channel.unary_unary("/closeflow.close.v1.CloseService/Nothing")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(b"", metadata=ACC)
    with pytest.raises(KeyError):
        told(refused.value)
