"""What keeps an order back, for how long, and which others with it."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, cast
from uuid import uuid4

import pytest

from closeflow.broker import MayBegin
from closeflow.domain.close import due_orders
from closeflow.domain.close.due_orders import DueResult
from closeflow.domain.model import (
    AssetType,
    Book,
    Order,
    OrderStatus,
    OrderType,
    Position,
    PositionStatus,
    RejectClass,
    Send,
    SendAnswer,
    SendKind,
    Side,
    TimeInForce,
)
from closeflow.domain.retry import is_due
from closeflow.domain.sending.broker_answers import Refused
from closeflow.domain.sending.claim import Sender
from order_submitter.sending.breaker import CLOSED, Breaker, BreakerRules, BreakerState
from order_submitter.sending.claims import Claims
from order_submitter.sending.pool import Job, PoolLimits, SenderPool
from order_submitter.sending.send_log import Entry

NOW = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)
RULES = BreakerRules(failures=2, refusals=9, probe_s=5)


def an_order() -> Order:
    return Order(
        client_order_id="cf-1",
        close_request_id=uuid4(),
        attempt=1,
        position_id=41,
        account_id="main",
        symbol="AAPL",
        side=Side.SELL,
        quantity=Decimal(10),
        order_type=OrderType.MARKET,
        time_in_force=TimeInForce.DAY,
        status=OrderStatus.PLANNED,
        created_at=NOW,
    )


def a_position() -> Position:
    return Position(
        id=41,
        account_id="main",
        symbol="AAPL",
        asset_type=AssetType.STOCK,
        multiplier=Decimal(1),
        currency="USD",
        opening_quantity=Decimal(10),
        quantity=Decimal(10),
        status=PositionStatus.CLOSING,
        version=2,
    )


def test_an_order_that_a_long_pause_holds_back_is_not_due_at_once() -> None:
    """A moment further ahead than any pause counts as a wrong clock's, and would be written anew all the time."""
    absent = cast(Any, None)
    pool = SenderPool(absent, absent, absent, PoolLimits(in_flight=2, rate_per_s=10, lease_s=30, breaker=RULES))
    pool.budget.refused(900.0)
    order = an_order()
    book = Book(position=a_position(), base_quantity=Decimal(10), ledger_quantity=Decimal(10))
    result = DueResult(before={order.position_id: book}, now=NOW)
    due_orders._claim(result, order, SendKind.SUBMIT, Sender(instance_id="me", lease_s=30, turns=Claims(pool)))
    waiting = result.books[order.position_id].orders[order.client_order_id]
    assert waiting.next_send_at is not None
    assert not is_due(waiting.next_send_at, NOW)
    assert is_due(waiting.next_send_at, NOW + timedelta(minutes=10))


class Refusing:
    """A broker that takes no order, for a reason in words that no table knows."""

    name, account_id = "fake", "main"

    async def submit(self, *_: object, may_begin: MayBegin, **__: object) -> Refused:
        assert await may_begin()
        return Refused("alpaca_40310000", RejectClass.TERMINAL, "40310000: the moon is wrong", mapped=False)


class Recorded:
    """A log of sends that keeps what is written to it."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    async def begin(self, *_: object) -> bool:
        return True

    async def record(self, entry: Entry) -> bool:
        self.entries.append(entry)
        return True


@pytest.mark.parametrize("before", [CLOSED, Breaker(state=BreakerState.HALF_OPEN, failures=2, probe_at=0.0)])
async def test_orders_refused_in_the_same_unknown_words_wait_alone(before: Breaker) -> None:
    """They may be of one kind: the closes of every other kind go on."""
    kept, limits = Recorded(), PoolLimits(in_flight=21, rate_per_s=1000, lease_s=30, breaker=RULES)
    pool = SenderPool(cast(Any, Refusing()), cast(Any, None), kept, limits)
    for _ in range(20):
        assert pool.reserve(SendKind.SUBMIT)
        send = Send(kind=SendKind.SUBMIT, n=1, sender="me", lease_until=NOW, started_at=NOW)
        pool.start([Job(order=an_order(), send=send, checked_at=time.monotonic())])
    pool.breaker = before
    await asyncio.wait_for(asyncio.gather(*pool.tasks), 10)
    assert {one.answered.answer for one in kept.entries} == {SendAnswer.NOT_ACCEPTED}
    assert {one.incident and one.incident.kind for one in kept.entries} == {"broker_refuses_orders"}
    assert pool.breaker == CLOSED
    assert pool.reserve(SendKind.SUBMIT)
