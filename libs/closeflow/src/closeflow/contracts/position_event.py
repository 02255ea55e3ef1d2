"""`position-event.v1`: a position is now so. Outbox → risk, keyed by position."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from closeflow.contracts.wire import (
    Currency,
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
from closeflow.domain.model import AssetType, PositionStatus, RequestStatus, Side


class PositionEvent(WireModel):
    """The whole state of the position at `position_version`; a consumer applies it only when the version is higher than
    the last one it applied. `quantity` and `opening_qty` are signed (short < 0). `event_type` is open text, because a
    consumer acts on the state, not on the name of the change.

    Exposure is `quantity` × `multiplier` × a price of the reader's own, in `currency`. What is not said to be another's
    word is read from the database in the transaction that made the version."""

    SCHEMA: ClassVar[str] = "position-event"

    event_id: Annotated[Id, Field(description="UUIDv5 of position and version; the same in every emission.")]
    event_type: Annotated[
        str,
        Field(pattern="^[A-Z][A-Z_]{2,63}$", description="The main point of the change, for people; as `ce_type`."),
    ]
    emission: Annotated[Emission, Field(description="How often this version has been published; 1 at first.")]
    position_id: Annotated[NumericId, Field(description="The key of the record: one position is on one partition.")]
    position_version: Annotated[
        int,
        Field(
            strict=True,
            ge=0,
            le=2**63 - 1,
            description="Rises by 1 with each change of the position; a consumer applies only a higher one.",
        ),
    ]
    account_id: Annotated[Name, Field(description="Our name of the account at the broker, as it was imported.")]
    symbol: Annotated[
        Name,
        Field(description="As the broker writes it: AAPL, the OCC symbol of an option, BTC/USD with its slash."),
    ]
    asset_type: Annotated[AssetType, Field(description="What is traded.")]
    multiplier: Annotated[
        PositiveDecimal | None,
        Field(
            description="Units of the underlying per unit of `quantity`, above 0 (100 for a common option, else 1); as "
            "imported. Absent in events of release 0.1.0."
        ),
    ] = None
    currency: Annotated[
        Currency | None,
        Field(description="Of its prices, three to five capitals; as imported. Absent in events of release 0.1.0."),
    ] = None
    position_status: Annotated[PositionStatus, Field(description="What may be asked of the position now.")]
    quantity: Annotated[
        SignedDecimal,
        Field(
            description="Units held after the change; below 0 is short. Opening quantity, adjustments and the broker's "
            "executions make it."
        ),
    ]
    quantity_change: Annotated[
        SignedDecimal | None,
        Field(
            description="`quantity` less that of the version before: below 0 for a sell, above for a buy, 0 where only "
            "the close moved. Absent in events of release 0.1.0."
        ),
    ] = None
    opening_qty: Annotated[
        SignedDecimal | None,
        Field(description="Units it came here with; below 0 is short. As imported, or what an overfill made."),
    ] = None
    exposure_unproven: Annotated[
        bool,
        Field(description="Whether an order of it may still fill that nobody can rule out: `quantity` may change yet."),
    ] = False
    cause: Annotated[
        str | None,
        Field(
            pattern="^[a-z][a-z_]{1,63}$",
            description="What made this version: imported, close_accepted, execution, reversal (a bust or correction), "
            "overfill, adjustment (from outside), close_moved (no quantity). Open text. Absent in events of release "
            "0.1.0.",
        ),
    ] = None
    close_request_id: Annotated[
        Id | None, Field(description="The close that the change is about; absent where it is about none.")
    ] = None
    close_request_status: Annotated[RequestStatus | None, Field(description="How far that close is.")] = None
    side: Annotated[Side | None, Field(description="On which the orders of that close are.")] = None
    target_qty: Annotated[
        PositiveDecimal | None, Field(description="Units that the close is asked to close, without a sign.")
    ] = None
    filled_qty: Annotated[
        UnsignedDecimal | None,
        Field(description="Units that the close has filled so far, without a sign, as the broker's executions stand."),
    ] = None
    average_price: Annotated[
        UnsignedDecimal | None,
        Field(
            description="Of `filled_qty`, in `currency` for one unit, before `multiplier`, rounded to 18 digits, by "
            "the broker's executions as they stand. Absent while nothing is filled."
        ),
    ] = None
    reason: Annotated[Note | None, Field(description="How the close came to its status, a code or words.")] = None
    closed_at: Annotated[
        Time | None, Field(description="When the last execution took it to 0, while it is closed.")
    ] = None
    occurred_at: Annotated[Time, Field(description="When the version was made, by the database's clock.")]
