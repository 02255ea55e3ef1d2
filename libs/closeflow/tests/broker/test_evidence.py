"""What is asked of the broker before an order may be declared lost."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import cast
from uuid import UUID, uuid4

import pytest

from closeflow.broker.evidence import gather
from closeflow.broker.protocol import Broker, ExecutionPage
from closeflow.domain.ids import client_order_id
from closeflow.domain.model import (
    BrokerUpdate,
    ExecType,
    Order,
    OrderStatus,
    OrderType,
    Send,
    SendKind,
    Side,
    TimeInForce,
    UpdateSource,
)
from closeflow.domain.sending.broker_answers import LookUpAnswer, NotFound

NOW = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)
REQUEST_ID = UUID(int=7)
ORDER = Order(
    client_order_id=client_order_id(REQUEST_ID, 1),
    close_request_id=REQUEST_ID,
    attempt=1,
    position_id=1,
    account_id="A",
    symbol="AAPL",
    side=Side.SELL,
    quantity=Decimal(10),
    order_type=OrderType.LIMIT,
    time_in_force=TimeInForce.DAY,
    status=OrderStatus.SUBMIT_UNKNOWN,
    created_at=NOW,
    sends=(Send(kind=SendKind.SUBMIT, n=1, sender="s", lease_until=NOW, started_at=NOW),),
)


@dataclass
class Filled:
    """A broker that filled the order at a time of its own, and does not find it any more."""

    at: datetime

    async def executions(self, *, after: datetime, page: str | None = None) -> ExecutionPage:
        fill = BrokerUpdate(
            event_id=uuid4(),
            broker="alpaca",
            account_id="A",
            symbol="AAPL",
            client_order_id=ORDER.client_order_id,
            exec_type=ExecType.TRADE,
            side=Side.SELL,
            source=UpdateSource.QUERY,
            transact_time=self.at,
            received_at=self.at,
            exec_id="e1",
        )
        return ExecutionPage(updates=(fill,) if after < self.at else (), next_page=None)

    async def position(self, symbol: str) -> Decimal:
        return Decimal(0)

    async def look_up(self, client_order_id: str) -> LookUpAnswer:
        return NotFound()


@pytest.mark.parametrize("hours", [-12, -1, 0, 1])
async def test_an_execution_is_seen_though_the_clock_that_dated_the_send_was_wrong(hours: int) -> None:
    broker = cast(Broker, Filled(NOW + timedelta(hours=hours, seconds=1)))
    assert (await gather(broker, ORDER, at=NOW)).executions == ("e1",)
