"""`submit-order.v1`: a close request has an attempt to plan. Outbox → order-submitter, keyed by position."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from closeflow_released.contracts.wire import Counter, Emission, Id, Name, NumericId, PositiveDecimal, Time, WireModel
from closeflow_released.domain.model import AssetType, OrderType, Side, TimeInForce


class SubmitOrder(WireModel):
    """Says that there is something to plan, not what to send: the planner reads the quantity from state (rule R9)."""

    SCHEMA: ClassVar[str] = "submit-order"

    event_id: Id
    emission: Emission
    close_request_id: Id
    attempt: Counter
    position_id: NumericId
    account_id: Name
    symbol: Name
    asset_type: AssetType
    side: Side
    quantity: PositiveDecimal
    order_type: OrderType
    limit_price: PositiveDecimal | None = None
    max_slippage_bps: Annotated[int, Field(strict=True, ge=0, le=10_000)] | None = None
    time_in_force: TimeInForce
    deadline: Time | None = None
    requested_at: Time
