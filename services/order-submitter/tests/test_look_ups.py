"""Look-ups share the account's rate with orders and cancels."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import cast

from closeflow.broker import Broker
from closeflow.domain.answers import LookUpAnswer, NotFound
from closeflow.domain.model import BrokerUpdate, Order, Send
from closeflow.storage.engine import Database
from order_submitter.answers import Entry
from order_submitter.breaker import BreakerRules
from order_submitter.publish import FillPublisher
from order_submitter.recover import Recovery, Watch
from order_submitter.send import PoolLimits, SenderPool

RATE_PER_S = 10


@dataclass
class EmptyBroker:
    """Knows no order, writes down when it was asked, and says so when it was asked often enough."""

    asked_at: list[float] = field(default_factory=list)
    enough: asyncio.Event = field(default_factory=asyncio.Event)

    async def look_up(self, client_order_id: str) -> LookUpAnswer:
        self.asked_at.append(time.monotonic())
        if len(self.asked_at) == RATE_PER_S + 2:
            self.enough.set()
        return NotFound()


async def ignored(update: BrokerUpdate, *, traceparent: str | None = None) -> None:
    raise AssertionError("nothing is published")


class NoSends:
    async def begin(self, order: Order, send: Send) -> bool:
        raise AssertionError("nothing is sent")

    async def record(self, entry: Entry) -> bool:
        raise AssertionError("nothing is recorded")


async def test_look_ups_beyond_the_rate_wait() -> None:
    broker = EmptyBroker()
    limits = PoolLimits(
        in_flight=2, rate_per_s=RATE_PER_S, lease_s=30, breaker=BreakerRules(failures=2, refusals=9, probe_s=5)
    )
    pool = SenderPool(cast(Broker, broker), ignored, NoSends(), limits)
    recovery = Recovery(
        database=cast(Database, None),  # A look-up whose answer proves nothing touches neither it nor the publisher.
        broker=cast(Broker, broker),
        publisher=cast(FillPublisher, None),
        pool=pool,
        watch=Watch(30),
        instance_id="me",
        lease_s=30,
    )
    started = time.monotonic()
    for number in range(RATE_PER_S + 2):
        recovery.ask(f"order-{number}", None)
    await asyncio.wait_for(broker.enough.wait(), 5)
    assert broker.asked_at[-1] - started >= 2 / RATE_PER_S
