"""Positions and calls to close them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from closeflow.domain.close.accept import (
    Accepted,
    CloseCommand,
    Decision,
    accept_close,
)
from closeflow.domain.model import (
    AssetType,
    Book,
    CloseRequest,
    Order,
    OrderStatus,
    OrderType,
    Position,
    PositionStatus,
    Side,
    Statement,
    TimeInForce,
)
from closeflow.domain.trading_controls import TradingState

NOW: Final = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
STOCK: Final = AssetType.STOCK
FIRST: Final = UUID(int=1)
SECOND: Final = UUID(int=2)
ACTIVE: Final = TradingState.ACTIVE


def book(
    quantity: str = "10",
    status: PositionStatus = PositionStatus.OPEN,
    asset_type: AssetType = AssetType.STOCK,
    *orders: Order,
    active: UUID | None = None,
    exposure_unproven: bool = False,
) -> Book:
    position = Position(
        id=7,
        account_id="ACC",
        symbol="AAPL",
        asset_type=asset_type,
        multiplier=Decimal(1),
        currency="USD",
        opening_quantity=Decimal(10),
        quantity=Decimal(quantity),
        status=status,
        version=4,
        active_close_request_id=active,
        exposure_unproven=exposure_unproven,
    )
    return Book(
        position=position,
        base_quantity=Decimal(quantity),
        ledger_quantity=Decimal(quantity),
        orders={order.client_order_id: order for order in orders},
    )


def command(quantity: Any = None, **changes: Any) -> CloseCommand:
    made = CloseCommand(
        request_id=FIRST,
        position_id=7,
        idempotency_key="k",
        requested_by="desk",
        quantity=None if quantity is None else Decimal(quantity),
        traceparent="00-aa-bb-01",
    )
    return replace(made, **changes)


def order(status: OrderStatus, *statements: Statement, stated: str = "0") -> Order:
    return Order(
        client_order_id="cf-0",
        close_request_id=SECOND,
        attempt=1,
        position_id=7,
        account_id="ACC",
        symbol="AAPL",
        side=Side.SELL,
        quantity=Decimal(10),
        order_type=OrderType.LIMIT,
        time_in_force=TimeInForce.DAY,
        status=status,
        created_at=NOW,
        statements=statements,
        stated_cum_quantity=Decimal(stated),
    )


def accepted(found: Decision) -> Accepted:
    assert isinstance(found, Accepted), found
    return found


def request_of(close: CloseCommand, before: Book | None = None) -> CloseRequest:
    return accepted(accept_close(before or book(), close, None, trading=ACTIVE, now=NOW)).request
