"""Messages of close.proto with what tests seldom say."""

from __future__ import annotations

from typing import Any, Final

from closeflow_client.generated import close_pb2 as pb

UNKNOWN: Final = "01900000-0000-7000-8000-000000000000"
"""No close request has this id."""


def close(position_id: int = 7, key: str = "k", **fields: Any) -> pb.ClosePositionRequest:
    return pb.ClosePositionRequest(close=pb.Close(position_id=position_id, idempotency_key=key, **fields))


def get(request_id: str = UNKNOWN, **fields: Any) -> pb.GetCloseRequestRequest:
    return pb.GetCloseRequestRequest(close_request_id=request_id, **fields)


def position(position_id: int) -> pb.GetPositionRequest:
    return pb.GetPositionRequest(position_id=position_id)


def cancel(request_id: str, **fields: Any) -> pb.CancelCloseRequestRequest:
    return pb.CancelCloseRequestRequest(close_request_id=request_id, **fields)


def watch(request_id: str, **fields: Any) -> pb.WatchCloseRequestRequest:
    return pb.WatchCloseRequestRequest(close_request_id=request_id, **fields)
