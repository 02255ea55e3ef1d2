"""`position-event.v1`: a position is now so. Outbox → risk, keyed by position."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from closeflow_released.contracts.wire import (
    Emission,
    Id,
    Name,
    Note,
    NumericId,
    PositiveDecimal,
    SignedDecimal,
    Time,
    UnsignedDecimal,
    WireModel,
)
from closeflow_released.domain.model import AssetType, PositionStatus, RequestStatus, Side


class PositionEvent(WireModel):
    """The whole state of the position at `position_version`; a consumer applies it only when the version is higher than
    the last one it applied. `quantity` and `opening_qty` are signed (short < 0). `event_type` is open text, because a
    consumer acts on the state, not on the name of the change."""

    SCHEMA: ClassVar[str] = "position-event"

    event_id: Id
    event_type: Annotated[str, Field(pattern="^[A-Z][A-Z_]{2,63}$")]
    emission: Emission
    position_id: NumericId
    position_version: Annotated[int, Field(strict=True, ge=0, le=2**63 - 1)]
    account_id: Name
    symbol: Name
    asset_type: AssetType
    position_status: PositionStatus
    quantity: SignedDecimal
    opening_qty: SignedDecimal | None = None
    exposure_unproven: bool = False
    close_request_id: Id | None = None
    close_request_status: RequestStatus | None = None
    side: Side | None = None
    target_qty: PositiveDecimal | None = None
    filled_qty: UnsignedDecimal | None = None
    reason: Note | None = None
    closed_at: Time | None = None
    occurred_at: Time
