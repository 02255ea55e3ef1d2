"""What callers read. Quantities are JSON numbers with the decimal's own digits; none passes through a binary float."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Final
from uuid import UUID

import orjson
from fastapi import Response
from pydantic import BaseModel, WithJsonSchema

from close_api.errors import STATUSES, Code, Problem
from closeflow.domain.model import AssetType, CloseRequest, Position, PositionStatus, RequestStatus, Side
from closeflow.domain.text import decimal_text, time_text

_JSON: Final = "application/json"
Number = Annotated[Decimal, WithJsonSchema({"type": "number"})]


class CloseAnswer(BaseModel):
    """A close request as it is now."""

    close_request_id: UUID
    position_id: int
    position_status: PositionStatus
    close_request_status: RequestStatus
    symbol: str
    side: Side
    target_qty: Number
    filled_qty: Number
    remaining_qty: Number
    retry_count: int
    created_at: datetime
    submitted_at: datetime | None
    completed_at: datetime | None
    reason: str | None


class PositionAnswer(BaseModel):
    """A position as it is now; a short one has a negative quantity."""

    position_id: int
    account_id: str
    symbol: str
    asset_type: AssetType
    position_status: PositionStatus
    quantity: Number
    opening_qty: Number
    multiplier: Number
    currency: str
    exposure_unproven: bool
    active_close_request_id: UUID | None
    closed_at: datetime | None
    version: int


class ErrorDetail(BaseModel):
    """The code for programs, the message for people; some codes have members of their own beside them."""

    error: Code
    message: str


class ErrorAnswer(BaseModel):
    """What went wrong; only a zero quantity answers with a plain text instead of an object."""

    detail: ErrorDetail | str


def close_json(request: CloseRequest, position: Position) -> bytes:
    """The bytes of a CloseAnswer; what is left is never below 0 here."""
    return orjson.dumps(
        {
            "close_request_id": request.id,
            "position_id": request.position_id,
            "position_status": position.status,
            "close_request_status": request.status,
            "symbol": request.symbol,
            "side": request.side,
            "target_qty": _number(request.target_quantity),
            "filled_qty": _number(request.filled_quantity),
            "remaining_qty": _number(max(request.remaining_quantity, Decimal(0))),
            "retry_count": request.retry_count,
            "created_at": time_text(request.created_at),
            "submitted_at": _time(request.submitted_at),
            "completed_at": _time(request.completed_at),
            "reason": request.reason,
        }
    )


def position_json(position: Position) -> bytes:
    """The bytes of a PositionAnswer."""
    return orjson.dumps(
        {
            "position_id": position.id,
            "account_id": position.account_id,
            "symbol": position.symbol,
            "asset_type": position.asset_type,
            "position_status": position.status,
            "quantity": _number(position.quantity),
            "opening_qty": _number(position.opening_quantity),
            "multiplier": _number(position.multiplier),
            "currency": position.currency,
            "exposure_unproven": position.exposure_unproven,
            "active_close_request_id": position.active_close_request_id,
            "closed_at": _time(position.closed_at),
            "version": position.version,
        }
    )


def json_response(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A response whose body is JSON already."""
    return Response(body, status, headers, _JSON)


def problem_response(problem: Problem) -> Response:
    """The error body of the contract; the seed's plain text stays for a zero quantity."""
    status = STATUSES[problem.code]
    headers = dict(problem.headers)
    if status.retry_after_s is not None:
        headers["retry-after"] = str(status.retry_after_s)
    detail: object = {"error": problem.code, "message": status.message, **problem.extra}
    if problem.code is Code.ZERO_QUANTITY:
        detail = status.message
    return json_response(orjson.dumps({"detail": detail}), status.http, headers)


def _number(value: Decimal) -> orjson.Fragment:
    return orjson.Fragment(decimal_text(value))


def _time(value: datetime | None) -> str | None:
    return None if value is None else time_text(value)
