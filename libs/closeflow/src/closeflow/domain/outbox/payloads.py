"""What we publish, a payload per topic of ours. `contracts` has the schemas of them and writes them down.

Every field but those of `Payload` has to be given, so that none is forgotten; None is left out of the value.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from closeflow.domain.frozen import quick
from closeflow.domain.model import (
    AssetType,
    OrderType,
    Payload,
    PositionStatus,
    RequestStatus,
    Side,
    TimeInForce,
    Topic,
)


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitOrderPayload(Payload):
    """An attempt to plan. `quantity` is information only: the plan is made from what is owed (rule R9)."""

    TOPIC = Topic.SUBMIT_ORDER

    close_request_id: UUID
    attempt: int
    asset_type: AssetType
    side: Side
    quantity: Decimal
    order_type: OrderType
    limit_price: Decimal | None
    max_slippage_bps: int | None
    time_in_force: TimeInForce
    deadline: datetime | None
    requested_at: datetime


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class PositionPayload(Payload):
    """The whole state of a position at its version, and what made it so; `quantity`, `quantity_change` and
    `opening_qty` are signed (short < 0)."""

    TOPIC = Topic.POSITION_EVENTS

    event_type: str
    cause: str
    position_version: int
    asset_type: AssetType
    multiplier: Decimal
    currency: str
    position_status: PositionStatus
    quantity: Decimal
    quantity_change: Decimal
    opening_qty: Decimal
    exposure_unproven: bool
    close_request_id: UUID | None
    close_request_status: RequestStatus | None
    side: Side | None
    target_qty: Decimal | None
    filled_qty: Decimal | None
    average_price: Decimal | None
    reason: str | None
    closed_at: datetime | None
    occurred_at: datetime


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionPayload(Payload):
    """One entry of the books; `cash_amount` is what the account receives, `commission` and `fees` what it pays, and a
    reversal takes its row's back."""

    TOPIC = Topic.EXECUTION_EVENTS

    event_type: str
    exec_id: str
    charge_id: str | None
    broker: str
    close_request_id: UUID
    client_order_id: str
    side: Side
    quantity: Decimal
    price: Decimal
    multiplier: Decimal
    cash_amount: Decimal
    commission: Decimal | None
    fees: Decimal | None
    net_amount: Decimal
    currency: str
    reverses_exec_id: str | None
    occurred_at: datetime
