"""How calls are written as messages, and messages and errors read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.status_pb2 import Status

from closeflow_client import Close, ClosePlan, CloseRequest, FieldError, Position
from closeflow_client.calls import (
    Call,
    CancelCloseRequest,
    CloseMany,
    ClosePosition,
    GetCloseRequest,
    GetPosition,
    ListCloseRequests,
    ListPositions,
    PlanClose,
)
from closeflow_client.errors import CloseflowError, InvalidFields, PositionAlreadyClosing, RateLimited
from closeflow_client.generated import close_pb2 as pb
from closeflow_client.grpc.messages import answer_of, batches_of, message_of, method_of, results_of, values_of
from closeflow_client.grpc.statuses import error_from

from .answers import ACTIVE_ID, REQUEST_ID, TRACE_ID
from .grpc_answers import close_request
from .scripted_grpc import SERVICE, status_of

ID: Final = UUID(REQUEST_ID)
NEW_YORK: Final = timezone(timedelta(hours=-5))
FULL: Final = Close(
    7,
    key='a "quoted" \\ key',
    quantity=Decimal("1E-18"),
    order_type="limit",
    limit_price=Decimal("1E+2"),
    max_slippage_bps=0,
    time_in_force="gtc",
    working_timeout_seconds=90,
    deadline=datetime(2026, 3, 2, 10, 30, 0, 5, tzinfo=NEW_YORK),
    expected_quantity=-12,
    if_version=3,
    reason="größer",
)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (ClosePosition(Close(7, key="k")), pb.ClosePositionRequest(close=pb.Close(position_id=7, idempotency_key="k"))),
        (
            PlanClose(Close(7, key="k", percentage=Decimal("12.50"))),
            pb.ClosePositionRequest(
                close=pb.Close(position_id=7, idempotency_key="k", percentage="12.50", dry_run=True)
            ),
        ),
        (
            ClosePosition(FULL),
            pb.ClosePositionRequest(
                close=pb.Close(
                    position_id=7,
                    idempotency_key='a "quoted" \\ key',
                    quantity="0.000000000000000001",
                    order_type=pb.ORDER_TYPE_LIMIT,
                    limit_price="100",
                    max_slippage_bps=0,
                    time_in_force=pb.TIME_IN_FORCE_GTC,
                    working_timeout_seconds=90,
                    deadline=Timestamp(seconds=1772465400, nanos=5000),
                    expected_quantity="-12",
                    expected_version=3,
                    reason="größer",
                )
            ),
        ),
        (GetCloseRequest(ID), pb.GetCloseRequestRequest(close_request_id=REQUEST_ID)),
        (GetCloseRequest(ID, 30), pb.GetCloseRequestRequest(close_request_id=REQUEST_ID, wait=Duration(seconds=30))),
        (CancelCloseRequest(ID, None), pb.CancelCloseRequestRequest(close_request_id=REQUEST_ID)),
        (CancelCloseRequest(ID, "enough"), pb.CancelCloseRequestRequest(close_request_id=REQUEST_ID, reason="enough")),
        (GetPosition(7), pb.GetPositionRequest(position_id=7)),
        (ListPositions(), pb.ListPositionsRequest()),
        (
            ListPositions("ACC", "close_retryable", "BTC/USD", 100, "t"),
            pb.ListPositionsRequest(
                account="ACC",
                status=pb.POSITION_STATUS_CLOSE_RETRYABLE,
                symbol="BTC/USD",
                page_size=100,
                page_token="t",
            ),
        ),
        (
            ListCloseRequests(None, "failed", 7, datetime(1970, 1, 1, tzinfo=UTC)),
            pb.ListCloseRequestsRequest(
                status=pb.CLOSE_REQUEST_STATUS_FAILED, position_id=7, created_after=Timestamp()
            ),
        ),
    ],
)
def test_each_call_has_its_message(call: Call[Any], message: Message) -> None:
    assert message_of(call) == message
    assert SERVICE.methods_by_name[method_of(call)].input_type.full_name == message.DESCRIPTOR.full_name


def test_many_closes_are_messages_of_a_hundred() -> None:
    closes = tuple(Close(n, key=f"b/{n}") for n in range(1, 251))
    messages = batches_of(CloseMany(closes))
    assert [len(one.closes) for one in messages] == [100, 100, 50]
    assert [one.idempotency_key for message in messages for one in message.closes] == [one.key for one in closes]


@pytest.mark.parametrize("call", [ListCloseRequests(status="parked"), ListPositions(status="unspecified")])
def test_a_status_that_the_proto_has_not_is_refused_as_the_server_would(call: Call[Any]) -> None:
    with pytest.raises(InvalidFields) as caught:
        message_of(call)
    (found,) = caught.value.fields
    assert found.field == "status"
    assert found.message.startswith("must be one of ")


def test_an_answer_is_the_same_value_as_over_rest() -> None:
    submitted = datetime(2026, 3, 2, 15, 0, 0, 1, tzinfo=UTC)
    message = close_request(submitted_at=submitted, filled_qty="0.5")
    answer = answer_of(ClosePosition(FULL), pb.ClosePositionResponse(close_request=message, replayed=True))
    assert ClosePosition(FULL).read(answer) == CloseRequest(
        close_request_id=ID,
        position_id=7,
        position_status="closing",
        close_request_status="pending",
        symbol="AAPL",
        side="sell",
        target_qty=Decimal(10),
        filled_qty=Decimal("0.5"),
        remaining_qty=Decimal(10),
        retry_count=0,
        created_at=datetime(2026, 3, 2, 15, 0, tzinfo=UTC),
        submitted_at=submitted,
        completed_at=None,
        reason=None,
        key=FULL.key,
        replayed=True,
    )


def test_a_position_and_a_plan_are_read() -> None:
    position = pb.Position(
        position_id=7,
        account_id="ACC",
        symbol="AAPL",
        asset_type=pb.ASSET_TYPE_OPTION,
        position_status=pb.POSITION_STATUS_CLOSE_FAILED,
        quantity="-3",
        opening_qty="-3",
        multiplier="100",
        currency="USD",
        version=4,
        active_close_request_id=ACTIVE_ID,
    )
    call = GetPosition(7)
    assert call.read(answer_of(call, pb.GetPositionResponse(position=position))) == Position(
        position_id=7,
        account_id="ACC",
        symbol="AAPL",
        asset_type="option",
        position_status="close_failed",
        quantity=Decimal(-3),
        opening_qty=Decimal(-3),
        multiplier=Decimal(100),
        currency="USD",
        exposure_unproven=False,
        active_close_request_id=UUID(ACTIVE_ID),
        closed_at=None,
        version=4,
    )
    order = pb.PlannedOrder(
        symbol="AAPL",
        side=pb.SIDE_BUY,
        quantity="3",
        order_type=pb.ORDER_TYPE_MARKET,
        time_in_force=pb.TIME_IN_FORCE_DAY,
    )
    plan = PlanClose(Close(7, key="k"))
    answer = answer_of(plan, pb.ClosePositionResponse(dry_run=pb.DryRun(position_id=7, order=order)))
    assert plan.read(answer) == ClosePlan(
        position_id=7,
        symbol="AAPL",
        side="buy",
        quantity=Decimal(3),
        order_type="market",
        limit_price=None,
        time_in_force="day",
    )


def test_unknown_enum_values_and_fields_of_a_newer_server_are_tolerated() -> None:
    message = close_request()
    message.close_request_status = 77  # type: ignore[assignment]
    raw = message.SerializeToString() + b"\xfa\x3e\x05newer"  # Field 1007.
    assert values_of(pb.CloseRequest.FromString(raw))["close_request_status"] == "unknown_77"


def test_pages_are_read() -> None:
    call = ListCloseRequests()
    response = pb.ListCloseRequestsResponse(close_requests=[close_request(), close_request()], next_page_token="p2")
    page = call.read(answer_of(call, response))
    assert ([one.position_id for one in page.items], page.next_page_token) == ([7, 7], "p2")


def test_results_of_a_stream_come_in_order_and_errors_are_exceptions() -> None:
    error = status_of(
        "position_already_closing", grpc.StatusCode.FAILED_PRECONDITION, active_close_request_id=ACTIVE_ID
    )
    responses = [
        pb.ClosePositionsResponse(results=[pb.CloseResult(close_request=close_request(), replayed=True)]),
        pb.ClosePositionsResponse(results=[pb.CloseResult(error=error)]),
    ]
    accepted, refused = CloseMany((Close(7, key="b/7"), Close(8, key="b/8"))).read(results_of(responses))
    assert isinstance(accepted, CloseRequest)
    assert (accepted.key, accepted.replayed) == ("b/7", True)
    assert isinstance(refused, PositionAlreadyClosing)
    assert refused.active_close_request_id == UUID(ACTIVE_ID)
    assert (refused.key, refused.status, refused.trace_id) == ("b/8", "FAILED_PRECONDITION", TRACE_ID)


def test_an_error_has_all_of_its_facts() -> None:
    status = status_of(
        "rate_limited",
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        retry_after_s=1.5,
        fields={"quantity": "must be above 0"},
        other="7",
    )
    found = error_from(status)
    assert isinstance(found, RateLimited)
    assert (found.status, found.message, found.trace_id) == ("RESOURCE_EXHAUSTED", "It is rate_limited.", TRACE_ID)
    assert (found.should_retry, found.retry_after_s, found.members["other"]) == (True, 1.5, "7")
    assert found.fields == (FieldError("quantity", "must be above 0"),)


def test_an_error_of_another_service_has_no_code() -> None:
    status = status_of("not_found", grpc.StatusCode.NOT_FOUND)
    status.details[0].Clear()
    for one in (status, Status(code=5, message="gone"), Status(code=99)):
        assert type(error_from(one)) is CloseflowError
        assert error_from(one).code == "unknown"
