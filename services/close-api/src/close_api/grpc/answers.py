"""What callers read: the domain's close requests and positions as messages of close.proto."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from close_api.grpc.generated import close_pb2 as pb
from close_api.use_cases.closing import Answer
from closeflow.domain.close.accept import Accepted, Replayed
from closeflow.domain.close.pricing import time_in_force
from closeflow.domain.model import (
    AssetType,
    CloseRequest,
    OrderType,
    Position,
    PositionStatus,
    RequestStatus,
    Side,
    TimeInForce,
)
from closeflow.domain.text import decimal_text

POSITION_STATUSES: Final[Mapping[PositionStatus, pb.PositionStatus]] = {
    PositionStatus.OPEN: pb.POSITION_STATUS_OPEN,
    PositionStatus.CLOSING: pb.POSITION_STATUS_CLOSING,
    PositionStatus.CLOSED: pb.POSITION_STATUS_CLOSED,
    PositionStatus.CLOSE_RETRYABLE: pb.POSITION_STATUS_CLOSE_RETRYABLE,
    PositionStatus.CLOSE_FAILED: pb.POSITION_STATUS_CLOSE_FAILED,
}
REQUEST_STATUSES: Final[Mapping[RequestStatus, pb.CloseRequestStatus]] = {
    RequestStatus.PENDING: pb.CLOSE_REQUEST_STATUS_PENDING,
    RequestStatus.SUBMITTED: pb.CLOSE_REQUEST_STATUS_SUBMITTED,
    RequestStatus.COMPLETED: pb.CLOSE_REQUEST_STATUS_COMPLETED,
    RequestStatus.RETRYABLE: pb.CLOSE_REQUEST_STATUS_RETRYABLE,
    RequestStatus.FAILED: pb.CLOSE_REQUEST_STATUS_FAILED,
}
SIDES: Final[Mapping[Side, pb.Side]] = {Side.BUY: pb.SIDE_BUY, Side.SELL: pb.SIDE_SELL}
ORDER_TYPES: Final[Mapping[OrderType, pb.OrderType]] = {
    OrderType.LIMIT: pb.ORDER_TYPE_LIMIT,
    OrderType.MARKET: pb.ORDER_TYPE_MARKET,
}
TIMES_IN_FORCE: Final[Mapping[TimeInForce, pb.TimeInForce]] = {
    TimeInForce.DAY: pb.TIME_IN_FORCE_DAY,
    TimeInForce.GTC: pb.TIME_IN_FORCE_GTC,
    TimeInForce.IOC: pb.TIME_IN_FORCE_IOC,
}
ASSET_TYPES: Final[Mapping[AssetType, pb.AssetType]] = {
    AssetType.STOCK: pb.ASSET_TYPE_STOCK,
    AssetType.OPTION: pb.ASSET_TYPE_OPTION,
    AssetType.CRYPTO: pb.ASSET_TYPE_CRYPTO,
}
_ZERO: Final = Decimal(0)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_S: Final = 86_400


def write_answer(answer: Answer, result: pb.ClosePositionResponse | pb.CloseResult, *, dry_run: bool) -> None:
    """Put what became of a close into its answer."""
    match answer:
        case Replayed(position=position, request=first):
            result.replayed = True
            write_request(first, position, result.close_request)
        case Accepted(book=book, request=planned) if dry_run:
            _write_plan(planned, book.position, result.dry_run)
        case Accepted(book=book, request=accepted):
            write_request(accepted, book.position, result.close_request)


def write_request(request: CloseRequest, position: Position, shown: pb.CloseRequest) -> None:
    """Fill the message; what is left is never below 0 there. Assigning field by field takes half the time of a
    constructor with names."""
    shown.close_request_id = str(request.id)
    shown.position_id = request.position_id
    shown.position_status = POSITION_STATUSES[position.status]
    shown.close_request_status = REQUEST_STATUSES[request.status]
    shown.symbol = request.symbol
    shown.side = SIDES[request.side]
    shown.target_qty = decimal_text(request.target_quantity)
    shown.filled_qty = decimal_text(request.filled_quantity)
    shown.remaining_qty = decimal_text(max(request.remaining_quantity, _ZERO))
    shown.retry_count = request.retry_count
    _write_time(request.created_at, shown.created_at)
    if request.submitted_at is not None:
        _write_time(request.submitted_at, shown.submitted_at)
    if request.completed_at is not None:
        _write_time(request.completed_at, shown.completed_at)
    if request.reason is not None:
        shown.reason = request.reason


def request_message(request: CloseRequest, position: Position) -> pb.CloseRequest:
    """A close request as it is now."""
    shown = pb.CloseRequest()
    write_request(request, position, shown)
    return shown


def position_message(position: Position) -> pb.Position:
    """A position as it is now."""
    shown = pb.Position(
        position_id=position.id,
        account_id=position.account_id,
        symbol=position.symbol,
        asset_type=ASSET_TYPES[position.asset_type],
        position_status=POSITION_STATUSES[position.status],
        quantity=decimal_text(position.quantity),
        opening_qty=decimal_text(position.opening_quantity),
        multiplier=decimal_text(position.multiplier),
        currency=position.currency,
        exposure_unproven=position.exposure_unproven,
        version=position.version,
    )
    if position.active_close_request_id is not None:
        shown.active_close_request_id = str(position.active_close_request_id)
    if position.closed_at is not None:
        _write_time(position.closed_at, shown.closed_at)
    return shown


def _write_plan(planned: CloseRequest, position: Position, shown: pb.DryRun) -> None:
    """From the request that would be accepted and the position as it would be then."""
    shown.position_id = planned.position_id
    shown.account_id = planned.account_id
    shown.position_version = position.version
    shown.target_qty = decimal_text(planned.target_quantity)
    order = shown.order
    order.symbol = planned.symbol
    order.side = SIDES[planned.side]
    order.quantity = decimal_text(planned.target_quantity)
    order.order_type = ORDER_TYPES[planned.order_type]
    if planned.limit_price is not None:
        order.limit_price = decimal_text(planned.limit_price)
    possible = time_in_force(planned.asset_type, planned.target_quantity, planned.time_in_force)
    order.time_in_force = TIMES_IN_FORCE[possible]


def _write_time(value: datetime, shown: Timestamp) -> None:
    """As Timestamp.FromDatetime, in a fifth of its time."""
    since = value - _EPOCH
    shown.seconds = since.days * _DAY_S + since.seconds
    shown.nanos = since.microseconds * 1000
