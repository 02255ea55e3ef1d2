"""`execution-event.v1`: one entry of the books. Outbox → accounting, keyed by position."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Final, Self

from pydantic import Field, model_validator

from closeflow.contracts.wire import (
    Currency,
    Emission,
    Id,
    Money,
    Name,
    NumericId,
    PositiveDecimal,
    Time,
    UnsignedDecimal,
    WireModel,
)
from closeflow.domain.model import Side
from closeflow.domain.outbox.events import (
    EXECUTION_CHARGED,
    EXECUTION_CORRECTED,
    EXECUTION_RECORDED,
    EXECUTION_REVERSED,
    cash_amount,
    net_amount,
)


class ExecutionEventType(StrEnum):
    """What an event does to the books: it adds an execution, takes one back, or adds what one costs."""

    RECORDED = EXECUTION_RECORDED
    REVERSED = EXECUTION_REVERSED
    """Takes back the execution `reverses_exec_id`: its side, quantity and price, with the opposite amounts."""
    CORRECTED = EXECUTION_CORRECTED
    """Books the corrected execution; the one it replaces is taken back by an EXECUTION_REVERSED of its own."""
    CHARGED = EXECUTION_CHARGED
    """Books commission or fees of an execution that is in the books: the broker stated them later, or by themselves."""


_REVERSALS: Final = frozenset({ExecutionEventType.REVERSED, ExecutionEventType.CORRECTED})


class ExecutionEvent(WireModel):
    """Balanced by itself: Σ `net_amount` over the events, each event id once, is what the account's cash changed by.

    `net_amount` = `cash_amount` - `commission` - `fees`. An EXECUTION_REVERSED has the negative of each amount that the
    entry of `reverses_exec_id` has, and of the commission and fees that were stated for it later with its own id."""

    SCHEMA: ClassVar[str] = "execution-event"

    event_id: Annotated[Id, Field(description="UUIDv5 of what the entry is of; a consumer books each id once.")]
    event_type: Annotated[ExecutionEventType, Field(description="What it does to the books; as `ce_type`.")]
    emission: Annotated[Emission, Field(description="How often this event has been published; 1 at first.")] = 1
    exec_id: Annotated[
        Name,
        Field(
            description="The broker's id of the execution (FIX ExecID, 17): the trade, the correction, or of a "
            "reversal the bust or correction that takes back. One enters the books once within broker and account."
        ),
    ]
    charge_id: Annotated[
        Name | None,
        Field(
            description="Of an EXECUTION_CHARGED alone: the broker's id of the charge, or the execution's own id where "
            "a later report of the execution states it."
        ),
    ] = None
    broker: Annotated[Name, Field(description="At which broker, by the name that its account was imported with.")]
    account_id: Annotated[Name, Field(description="Our name of the account at the broker, as it was imported.")]
    position_id: Annotated[NumericId, Field(description="The key of the record: one position is on one partition.")]
    close_request_id: Annotated[Id | None, Field(description="The close that the order was sent for.")] = None
    client_order_id: Annotated[
        Name | None, Field(description="The order, by the id that we gave it (FIX ClOrdID, 11).")
    ] = None
    symbol: Annotated[
        Name,
        Field(description="As the broker writes it: AAPL, the OCC symbol of an option, BTC/USD with its slash."),
    ]
    side: Annotated[Side, Field(description="Of the order; a reversal keeps the side of what it takes back.")]
    quantity: Annotated[
        PositiveDecimal,
        Field(
            description="Units executed, without a sign, by the broker (FIX LastQty, 32); of a reversal or a charge "
            "those of the execution that it is about."
        ),
    ]
    price: Annotated[
        UnsignedDecimal,
        Field(
            description="In `currency` for one unit, before `multiplier`, by the broker (FIX LastPx, 31); 0 is a price."
        ),
    ]
    multiplier: Annotated[
        PositiveDecimal,
        Field(
            description="Units of the underlying per unit of `quantity` (100 for a common option, else 1); as the "
            "position was imported."
        ),
    ]
    cash_amount: Annotated[
        Money,
        Field(
            description="In `currency`, exact: `quantity` × `price` × `multiplier`, above 0 where the account receives "
            "it (a sell), below 0 where it pays (a buy); the opposite of a reversal, 0 of a charge. Calculated."
        ),
    ]
    commission: Annotated[
        Money | None,
        Field(
            description="In `currency`, above 0 where the account pays it, below 0 where it gets it (a rebate, a "
            "refund, a reversal); by the broker. Absent where the broker has stated none yet."
        ),
    ] = None
    fees: Annotated[
        Money | None,
        Field(
            description="Of exchanges, clearing and regulators, in `currency`, signed as `commission`; by the broker. "
            "Absent where the broker has stated none yet."
        ),
    ] = None
    net_amount: Annotated[
        Money | None,
        Field(
            description="In `currency`, exact: by how much the account's cash changes, `cash_amount` - `commission` - "
            "`fees`. Calculated. Absent in events of release 0.1.0, where it is `cash_amount`."
        ),
    ] = None
    currency: Annotated[
        Currency,
        Field(description="Of all amounts, three to five capitals: the position's, or of a charge the broker's."),
    ]
    reverses_exec_id: Annotated[
        Name | None,
        Field(
            description="Of an EXECUTION_REVERSED the `exec_id` of the entry that it takes back, of an "
            "EXECUTION_CORRECTED that of the entry in whose place it comes."
        ),
    ] = None
    occurred_at: Annotated[
        Time,
        Field(description="When it happened by the broker's clock: the trade, the bust, the correction, the charge."),
    ]

    @model_validator(mode="after")
    def _balanced(self) -> Self:
        expected = cash_amount(
            self.event_type,
            side=self.side,
            quantity=self.quantity,
            price=self.price,
            multiplier=self.multiplier,
        )
        if self.cash_amount != expected:
            raise ValueError(f"cash_amount is {self.cash_amount}, but quantity, price and multiplier make {expected}")
        net = net_amount(self.cash_amount, self.commission, self.fees)
        if self.net_amount is not None and self.net_amount != net:
            raise ValueError(f"net_amount is {self.net_amount}, but cash_amount, commission and fees make {net}")
        if (self.reverses_exec_id is not None) != (self.event_type in _REVERSALS):
            raise ValueError("reverses_exec_id belongs to a reversal or a correction, and to nothing else")
        if (self.charge_id is not None) != (self.event_type is ExecutionEventType.CHARGED):
            raise ValueError("charge_id belongs to a charge, and to nothing else")
        return self
