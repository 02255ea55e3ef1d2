"""The order-submitter's senders with the broker in memory: nothing that they rely on is Alpaca's alone."""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

import pytest

from closeflow.contracts import BrokerFillV1
from closeflow.contracts.codec import decode
from closeflow.domain.ids import client_order_id
from closeflow.domain.model import (
    BrokerStatus,
    BrokerUpdate,
    ExecType,
    Order,
    OrderStatus,
    OrderType,
    RejectClass,
    Send,
    SendAnswer,
    SendKind,
    Side,
    TimeInForce,
)
from closeflow.kafka.broker_fill import broker_fill_record
from order_submitter.sending.breaker import BreakerRules
from order_submitter.sending.pool import Job, PoolLimits, SenderPool
from order_submitter.sending.send_log import Entry

from .in_memory import InMemoryBroker
from .venue import Venue

NOW: Final = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)
REQUEST_ID: Final = uuid.UUID("01932f4e-8a10-7c3b-9d21-5f0f7e6a1b22")
ORDER: Final = Order(
    client_order_id=client_order_id(REQUEST_ID, 1),
    close_request_id=REQUEST_ID,
    attempt=1,
    position_id=41,
    account_id="acc-1",
    symbol="AAPL",
    side=Side.SELL,
    quantity=Decimal(10),
    order_type=OrderType.LIMIT,
    limit_price=Decimal(100),
    time_in_force=TimeInForce.DAY,
    status=OrderStatus.PLANNED,
    created_at=NOW,
)
LIMITS: Final = PoolLimits(
    in_flight=2, rate_per_s=1000, lease_s=30, breaker=BreakerRules(failures=9, refusals=9, probe_s=5)
)


@dataclass
class Desk:
    """A pool at a venue, what it published and what it recorded."""

    venue: Venue = field(default_factory=Venue)
    published: list[BrokerUpdate] = field(default_factory=list)
    recorded: list[SendAnswer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pool = SenderPool(InMemoryBroker(self.venue), self.publish, self, LIMITS)

    async def begin(self, order: Order, send: Send) -> bool:
        return True

    async def publish(self, update: BrokerUpdate, *, traceparent: str | None = None) -> None:
        record = broker_fill_record(update, service="order-submitter", traceparent=traceparent)
        self.published.append(decode(BrokerFillV1, record.value, record.headers).to_domain())

    async def record(self, entry: Entry) -> bool:
        self.recorded.append(entry.answered.answer)
        return True

    async def send(self, kind: SendKind = SendKind.SUBMIT) -> SendAnswer:
        named = self.venue.orders.get(ORDER.client_order_id)
        order = replace(ORDER, broker_order_id=named.order_id if named else "v-9")
        send = Send(kind=kind, n=1, sender="me", lease_until=NOW + timedelta(seconds=30), started_at=NOW)
        assert self.pool.reserve(kind)
        self.pool.start([Job(order=order, send=send, checked_at=time.monotonic())])
        await asyncio.wait_for(asyncio.gather(*self.pool.tasks), 5)
        return self.recorded[-1]

    def stated(self) -> list[BrokerStatus | ExecType]:
        return [one.order_status or one.exec_type for one in self.published]


async def test_an_order_is_taken_once_and_what_the_venue_says_is_published() -> None:
    desk = Desk()
    assert await desk.send() is SendAnswer.ACCEPTED
    assert desk.stated() == [BrokerStatus.NEW]
    assert desk.published[0].broker_order_id == "v-1"


async def test_an_id_that_the_venue_has_seen_is_looked_up() -> None:
    desk = Desk()
    await desk.send()
    desk.venue.fill(ORDER.client_order_id, Decimal(4))
    assert await desk.send() is SendAnswer.ACCEPTED
    assert desk.stated() == [BrokerStatus.NEW, BrokerStatus.PARTIALLY_FILLED]
    assert len(desk.venue.orders) == 1


async def test_a_refusal_is_evidence_of_its_class() -> None:
    desk = Desk(Venue(is_closed=True))
    assert await desk.send() is SendAnswer.REJECTED
    [refusal] = desk.published
    assert (refusal.exec_type, refusal.reject_class) == (ExecType.REJECTED, RejectClass.RETRYABLE)
    assert (refusal.reject_code, refusal.broker_order_id) == ("market_closed", None)


@pytest.mark.parametrize(
    ("venue", "answer", "taken"),
    [
        (Venue(logged_on=False), SendAnswer.NOT_SENT, 0),
        (Venue(throttled_s=1.0), SendAnswer.NOT_ACCEPTED, 0),
        (Venue(is_silent=True), SendAnswer.UNKNOWN, 1),
    ],
    ids=["logged out", "throttled", "silent"],
)
async def test_without_a_report_nothing_is_concluded(venue: Venue, answer: SendAnswer, taken: int) -> None:
    desk = Desk(venue)
    assert await desk.send() is answer
    assert (desk.published, len(desk.venue.orders)) == ([], taken)


async def test_a_cancel_names_the_order_as_it_was_sent() -> None:
    desk = Desk()
    await desk.send()
    assert await desk.send(SendKind.CANCEL) is SendAnswer.ACCEPTED
    assert desk.venue.orders[ORDER.client_order_id].ord_status == "4"


async def test_a_cancel_that_comes_too_late_ends_by_what_the_venue_then_states() -> None:
    desk = Desk(Venue(fills_at_once=True))
    await desk.send()
    assert await desk.send(SendKind.CANCEL) is SendAnswer.ACCEPTED
    assert desk.stated() == [BrokerStatus.NEW, BrokerStatus.FILLED]


async def test_a_cancel_of_what_the_venue_does_not_know_is_refused() -> None:
    desk = Desk()
    assert await desk.send(SendKind.CANCEL) is SendAnswer.REJECTED
    assert desk.published == []
