"""What close-api answers over gRPC."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from closeflow_client.generated import close_pb2 as pb

from .answers import REQUEST_ID


def close_request(*, submitted_at: datetime | None = None, **changes: Any) -> pb.CloseRequest:
    """A close request; `changes` are other values of its fields."""
    given: dict[str, Any] = {
        "close_request_id": REQUEST_ID,
        "position_id": 7,
        "position_status": pb.POSITION_STATUS_CLOSING,
        "close_request_status": pb.CLOSE_REQUEST_STATUS_PENDING,
        "symbol": "AAPL",
        "side": pb.SIDE_SELL,
        "target_qty": "10",
        "filled_qty": "0",
        "remaining_qty": "10",
        "created_at": Timestamp(seconds=1772463600),
    }
    made = pb.CloseRequest(**given | changes)
    if submitted_at is not None:
        made.submitted_at.FromDatetime(submitted_at)
    return made


def accepted(*, replayed: bool = False, **changes: Any) -> pb.ClosePositionResponse:
    """The answer to one close."""
    return pb.ClosePositionResponse(close_request=close_request(**changes), replayed=replayed)


def change(event_id: str, **changes: Any) -> pb.WatchCloseRequestResponse:
    """A state of a watched close request."""
    return pb.WatchCloseRequestResponse(event_id=event_id, close_request=close_request(**changes))
