"""What callers read. Quantities are JSON numbers with the decimal's own digits; none passes through a binary float."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import orjson
from fastapi import Response
from pydantic import BaseModel, Field, WithJsonSchema

from close_api.rest.problems import ProblemAnswer
from close_api.use_cases.reading import Timeline
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
    target_qty: Number = Field(description="What was asked for, unsigned.")
    filled_qty: Number
    remaining_qty: Number = Field(description="target_qty - filled_qty, never below 0.")
    retry_count: int = Field(description="Attempts after the first one.")
    created_at: datetime
    submitted_at: datetime | None = Field(description="When the first order was about to be sent.")
    completed_at: datetime | None = Field(description="When it came to its end.")
    reason: str | None = Field(description="Why it waits, or why it failed.")


class PositionAnswer(BaseModel):
    """A position as it is now; a short one has a negative quantity."""

    position_id: int
    account_id: str
    symbol: str
    asset_type: AssetType
    position_status: PositionStatus
    quantity: Number = Field(description="Signed: a short position is below 0.")
    opening_qty: Number
    multiplier: Number = Field(description="Units of the underlying for one of the quantity: 100 for most options.")
    currency: str = Field(description="ISO 4217, or the broker's name of a coin.")
    exposure_unproven: bool = Field(
        description="An order of an earlier close may still fill; an operator has to settle it before a new close."
    )
    active_close_request_id: UUID | None = Field(description="The close that is under way.")
    closed_at: datetime | None
    version: int = Field(description="Rises with every visible change; also the ETag.")


class ClosesPage(BaseModel):
    """Close requests, the newest first."""

    close_requests: list[CloseAnswer]
    next_page_token: str = Field(description="For the next page; empty at the end.")


class PositionsPage(BaseModel):
    """Positions, the oldest first."""

    positions: list[PositionAnswer]
    next_page_token: str = Field(description="For the next page; empty at the end.")


class Fact(BaseModel):
    """One thing that happened to a close."""

    at: datetime
    source: str = Field(description="The table that keeps it.")
    what: str = Field(description="What happened, in words.")
    detail: dict[str, Any] = Field(description="What is known of it; its members differ by source.")


class TimelineAnswer(BaseModel):
    """Every fact about a close request, in the order of time."""

    close_request_id: UUID
    timeline: list[Fact]


class OrderPlan(BaseModel):
    """The order that a close would begin with. Without a limit_price it would be priced from the market when it is
    planned."""

    symbol: str
    side: Side
    quantity: Number
    order_type: OrderType
    limit_price: Number | None = Field(description="null where it would be priced from the market.")
    time_in_force: TimeInForce


class DryRunAnswer(BaseModel):
    """What a close would do; nothing was kept and nothing was sent."""

    dry_run: Literal[True]
    position_id: int
    account_id: str
    position_version: int = Field(description="As it would be with the close.")
    target_qty: Number
    order: OrderPlan


class BatchItemAnswer(BaseModel):
    """What became of one close of a batch: the close request, or the problem that it would have got by itself."""

    position_id: int | None = Field(description="As it was given; null where it is no whole number.")
    idempotency_key: str | None = Field(description="The key of this close: its own, or the one made for it.")
    status: int = Field(description="The status that it would have got by itself.")
    replayed: bool = Field(description="The key was used for this close before.")
    close_request: CloseAnswer | None = Field(None, description="Of a status 200 or 201.")
    dry_run: DryRunAnswer | None = Field(None, description="Of a dry run.")
    error: ProblemAnswer | None = Field(None, description="Of any other status.")


class BatchAnswer(BaseModel):
    """One result for each close, in the order of the call."""

    results: list[BatchItemAnswer]


def close_json(request: CloseRequest, position: Position) -> bytes:
    """The bytes of a CloseAnswer."""
    return orjson.dumps(close_members(request, position))


def close_members(request: CloseRequest, position: Position) -> dict[str, object]:
    """The members of a CloseAnswer; what is left is never below 0 here."""
    return {
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


def plan_members(request: CloseRequest, position: Position) -> dict[str, object]:
    """The members of a DryRunAnswer, from the request that would be accepted and the position as it would be then."""
    return {
        "dry_run": True,
        "position_id": request.position_id,
        "account_id": request.account_id,
        "position_version": position.version,
        "target_qty": _number(request.target_quantity),
        "order": {
            "symbol": request.symbol,
            "side": request.side,
            "quantity": _number(request.target_quantity),
            "order_type": request.order_type,
            "limit_price": None if request.limit_price is None else _number(request.limit_price),
            "time_in_force": time_in_force(request.asset_type, request.target_quantity, request.time_in_force),
        },
    }


def position_members(position: Position) -> dict[str, object]:
    """The members of a PositionAnswer."""
    return {
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


def timeline_json(request_id: UUID, timeline: Timeline) -> bytes:
    """The bytes of a TimelineAnswer."""
    facts = [
        {"at": time_text(one.at), "source": one.source, "what": one.what, "detail": one.detail}
        for one in timeline.facts
    ]
    return orjson.dumps({"close_request_id": request_id, "timeline": facts}, default=_plain)


def _plain(value: object) -> object:
    """Decimals inside documents keep their digits."""
    if isinstance(value, Decimal):
        return orjson.Fragment(decimal_text(value))
    return str(value)


def json_response(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A response whose body is JSON already."""
    return Response(body, status, headers, _JSON)


def _number(value: Decimal) -> orjson.Fragment:
    return orjson.Fragment(decimal_text(value))


def _time(value: datetime | None) -> str | None:
    return None if value is None else time_text(value)
