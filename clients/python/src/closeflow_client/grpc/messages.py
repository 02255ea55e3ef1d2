"""A call as messages of close.proto, and messages as its reply. Nothing is sent here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from closeflow_client.calls import (
    Answered,
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
from closeflow_client.close import Close
from closeflow_client.errors import FieldError, InvalidFields
from closeflow_client.generated import close_pb2 as pb
from closeflow_client.grpc.statuses import error_from
from closeflow_client.values import Values

MESSAGE: Final = 100
"""Closes that one message of ClosePositions carries at most."""


def method_of(call: Call[Any]) -> str:
    """The method of CloseService that is asked."""
    return "ClosePosition" if isinstance(call, PlanClose) else type(call).__name__


def message_of(call: Call[Any]) -> Message:
    """The message that asks for the call. Raises InvalidFields for a name that close.proto has not."""
    match call:
        case ClosePosition(close=close):
            return pb.ClosePositionRequest(close=_close(close))
        case PlanClose(close=close):
            return pb.ClosePositionRequest(close=_close(close, dry_run=True))
        case GetCloseRequest(request_id=request_id, wait_s=wait_s):
            wait = Duration(seconds=wait_s) if wait_s else None
            return pb.GetCloseRequestRequest(close_request_id=str(request_id), wait=wait)
        case CancelCloseRequest(request_id=request_id, reason=reason):
            return pb.CancelCloseRequestRequest(close_request_id=str(request_id), reason=reason)
        case GetPosition(position_id=position_id):
            return pb.GetPositionRequest(position_id=position_id)
        case ListCloseRequests():
            return pb.ListCloseRequestsRequest(
                account=call.account,
                status=_number("status", pb.CloseRequestStatus, call.status),
                position_id=call.position_id,
                created_after=_timestamp(call.created_after),
                page_size=call.page_size,
                page_token=call.page_token,
            )
        case ListPositions():
            return pb.ListPositionsRequest(
                account=call.account,
                status=_number("status", pb.PositionStatus, call.status),
                symbol=call.symbol,
                page_size=call.page_size,
                page_token=call.page_token,
            )
        case _:
            raise TypeError(f"{type(call).__name__} cannot be sent over gRPC")


def batches_of(call: CloseMany) -> Sequence[pb.ClosePositionsRequest]:
    """The messages of a stream of closes."""
    return [
        pb.ClosePositionsRequest(batch_id=first, closes=map(_close, call.closes[first : first + MESSAGE]))
        for first in range(0, len(call.closes), MESSAGE)
    ]


def answer_of(call: Call[Any], response: Message) -> Answered:
    """What the response says."""
    values = values_of(response)
    match call:
        case ClosePosition():
            return Answered(values["close_request"] or {}, values["replayed"], "OK")
        case PlanClose():
            return Answered(values["dry_run"] or {}, status="OK")
        case GetPosition():
            return Answered(values["position"] or {}, status="OK")
        case GetCloseRequest() | CancelCloseRequest():
            return Answered(values["close_request"] or {}, status="OK")
        case _:
            return Answered(values, status="OK")


def results_of(responses: Iterable[pb.ClosePositionsResponse]) -> Answered:
    """The results of all messages of a stream, an error as the exception."""
    results = [
        error_from(one.error) if one.WhichOneof("result") == "error" else values_of(one)
        for response in responses
        for one in response.results
    ]
    return Answered({"results": results}, status="OK")


def values_of(message: Message) -> Values:
    """The members of a message by their names, as REST has them: an enum as its name in lower case, a time as a
    datetime; what is absent is None. What this client's close.proto has not is passed over."""
    return {
        field.name: _value(field, getattr(message, field.name))
        if not field.has_presence or message.HasField(field.name)
        else None
        for field in message.DESCRIPTOR.fields
    }


# Descriptors are of one of two types that have nothing in common for a type checker: hence Any.
def _value(field: Any, value: Any) -> Any:
    one = _reader(field)
    return [one(item) for item in value] if field.is_repeated else one(value)


def _reader(field: Any) -> Callable[[Any], Any]:
    if field.enum_type is not None:
        enum = field.enum_type
        return lambda number: _name(enum, number)
    if field.message_type is None:
        return lambda value: value
    return _time if field.message_type.full_name == Timestamp.DESCRIPTOR.full_name else values_of


def _name(enum: Any, number: int) -> str:
    known = enum.values_by_number.get(number)
    name: str = f"unknown_{number}" if known is None else known.name.removeprefix(_prefix(enum)).lower()
    return name


def _prefix(enum: Any) -> str:
    first: str = enum.values_by_number[0].name
    return first.removesuffix("UNSPECIFIED")


def _number(field: str, enum: Any, name: str | None) -> Any:
    if name is None:
        return 0
    prefix = _prefix(enum.DESCRIPTOR)
    known = {one.removeprefix(prefix).lower(): number for one, number in enum.items() if number}
    if name not in known:
        message = f"must be one of {', '.join(known)}, as far as this client knows"
        raise InvalidFields("Some values cannot be used; see fields.", fields=[FieldError(field, message)])
    return known[name]


def _close(close: Close, *, dry_run: bool = False) -> pb.Close:
    terms: Mapping[str, Any] = close.terms()
    texts = ("quantity", "percentage", "limit_price", "expected_quantity")
    return pb.Close(
        position_id=close.position_id,
        idempotency_key=close.key or "",
        order_type=_number("order_type", pb.OrderType, close.order_type),
        time_in_force=_number("time_in_force", pb.TimeInForce, close.time_in_force),
        deadline=_timestamp(close.deadline),
        expected_version=close.if_version,
        dry_run=dry_run,
        max_slippage_bps=close.max_slippage_bps,
        working_timeout_seconds=close.working_timeout_seconds,
        reason=close.reason,
        **{name: format(Decimal(terms[name]), "f") for name in texts if name in terms},
    )


def _timestamp(value: datetime | None) -> Timestamp | None:
    if value is None:
        return None
    made = Timestamp()
    made.FromDatetime(value)
    return made


def _time(value: Timestamp) -> datetime:
    return value.ToDatetime(tzinfo=UTC)
