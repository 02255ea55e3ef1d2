"""`execution-event.v1`: one execution for the books. Outbox → accounting, keyed by position."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Self

from pydantic import model_validator

from closeflow_released.contracts.wire import (
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
from closeflow_released.domain.model import Side
from closeflow_released.domain.outbox.events import EXECUTION_CORRECTED, EXECUTION_RECORDED, EXECUTION_REVERSED, cash_amount


class ExecutionEventType(StrEnum):
    """What an event does to the books: it adds an execution or takes one back."""

    RECORDED = EXECUTION_RECORDED
    REVERSED = EXECUTION_REVERSED
    """Takes back the execution `reverses_exec_id`: its side, quantity and price, with the opposite cash amount."""
    CORRECTED = EXECUTION_CORRECTED
    """Books the corrected execution; the one it replaces is taken back by an EXECUTION_REVERSED of its own."""


class ExecutionEvent(WireModel):
    """Balanced by itself: Σ `cash_amount` over the events, each event id once, is what the ledger holds."""

    SCHEMA: ClassVar[str] = "execution-event"

    event_id: Id
    event_type: ExecutionEventType
    emission: Emission = 1
    exec_id: Name
    broker: Name
    account_id: Name
    position_id: NumericId
    close_request_id: Id | None = None
    client_order_id: Name | None = None
    symbol: Name
    side: Side
    quantity: PositiveDecimal
    price: UnsignedDecimal
    multiplier: PositiveDecimal
    cash_amount: Money
    currency: Currency
    reverses_exec_id: Name | None = None
    occurred_at: Time

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
        if (self.reverses_exec_id is None) != (self.event_type is ExecutionEventType.RECORDED):
            raise ValueError("reverses_exec_id belongs to a reversal or a correction, and to nothing else")
        return self
