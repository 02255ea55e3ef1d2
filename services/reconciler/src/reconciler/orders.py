"""Ask the broker about orders it has been silent on, and for the executions that close a gap (rule R4).

What it says goes to `broker-fill` like everything else it says; nothing of it is written here.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, assert_never

import structlog

from closeflow.broker.protocol import Broker, BrokerUnavailable
from closeflow.broker.record import broker_fill_record
from closeflow.contracts.topics import BROKER_FILL
from closeflow.domain.answers import Acknowledged, NotAccepted, NotFound, NotSent, Unanswered
from closeflow.domain.model import BrokerUpdate, Incident
from closeflow.kafka.producer import Outgoing, Producer
from closeflow.storage.engine import Database, transaction
from closeflow.storage.filling import database_now
from closeflow.storage.reconciling import GapOrder, close_gap_incidents, held_alone, orders_with_gap, quiet_orders
from closeflow.storage.saving import report_incidents

log = structlog.get_logger(__name__)

CLOCKS_APART: Final = timedelta(minutes=5)
"""How far the broker's clock may be behind ours: executions are asked for from that much before the order was made."""
MAX_PAGES: Final = 50
GAP: Final = "gap"
GONE: Final = "acknowledged_order_not_found"


async def publish(producer: Producer, updates: Sequence[BrokerUpdate]) -> None:
    """Returns when Kafka has them all."""
    records = [broker_fill_record(update, producer="reconciler") for update in updates]
    await producer.publish_many(
        [Outgoing(topic=BROKER_FILL, key=one.key, value=one.value, headers=one.headers) for one in records]
    )


@dataclass(slots=True)
class AskQuietOrders:
    """Look up acknowledged orders that nothing was heard of, each again after a pause that doubles up to a cap."""

    database: Database
    broker: Broker
    producer: Producer
    quiet_after: timedelta
    ask_again_cap_s: float
    budget: int
    _asked: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Client order id to (monotonic time of the next question, pause)."""

    async def once(self) -> int:
        """Ask about at most `budget` orders; returns how many answers were published."""
        async with held_alone(self.database, "ask_quiet_orders") as mine:
            return await self._cycle() if mine else 0

    async def _cycle(self) -> int:
        now = time.monotonic()
        async with transaction(self.database) as tx:
            quiet = await quiet_orders(
                tx,
                account_id=self.broker.account_id,
                quiet_after=self.quiet_after,
                excluding=[order for order, (due, _) in self._asked.items() if due > now],
                budget=self.budget,
            )
        updates: list[BrokerUpdate] = []
        gone: list[Incident] = []
        for order in quiet:
            _, pause = self._asked.get(order.client_order_id, (now, self.quiet_after.total_seconds() / 2))
            pause = min(self.ask_again_cap_s, pause * 2)
            self._asked[order.client_order_id] = (now + pause, pause)
            answer = await self.broker.look_up(order.client_order_id)
            match answer:
                case Acknowledged(update):
                    updates.append(update)
                case NotFound():
                    gone.append(_gone(order.client_order_id))
                case NotAccepted() | NotSent() | Unanswered():
                    log.warning("broker_did_not_answer", client_order_id=order.client_order_id, reason=answer.reason)
                    break  # A broker in trouble is not helped by the rest of the questions.
                case _:
                    assert_never(answer)
        await publish(self.producer, updates)
        if gone:
            async with transaction(self.database) as tx:
                await report_incidents(tx, incidents=gone)
        self._forget(now)
        return len(updates)

    def _forget(self, now: float) -> None:
        """An order not asked about for two caps has ended or been heard of."""
        self._asked = {
            order: (due, pause) for order, (due, pause) in self._asked.items() if due > now - self.ask_again_cap_s
        }


@dataclass(slots=True)
class FillGaps:
    """Read the broker's executions for orders of which it states more than we can name."""

    database: Database
    broker: Broker
    producer: Producer
    grace: timedelta
    incident_after: timedelta
    budget: int

    async def once(self) -> int:
        """Returns how many executions were published; what is known already is recognised by its consumer."""
        async with held_alone(self.database, "fill_gaps") as mine:
            return await self._cycle() if mine else 0

    async def _cycle(self) -> int:
        async with transaction(self.database) as tx:
            now = await database_now(tx)
            gaps = await orders_with_gap(tx, account_id=self.broker.account_id, grace=self.grace, budget=self.budget)
            await report_incidents(tx, incidents=[_gap(one) for one in gaps if one.since + self.incident_after <= now])
            await close_gap_incidents(tx, kind=GAP, resolution="the executions were found")
        if not gaps:
            return 0
        try:
            updates = await self._executions(min(one.created_at for one in gaps) - CLOCKS_APART)
        except BrokerUnavailable as error:
            log.warning("executions_not_listed", reason=error.reason)
            return 0
        wanted = {one.client_order_id for one in gaps}
        found = [update for update in updates if update.client_order_id in wanted]
        await publish(self.producer, found)
        log.info("gaps_asked_about", orders=len(gaps), executions_listed=len(updates), published=len(found))
        return len(found)

    async def _executions(self, after: datetime) -> list[BrokerUpdate]:
        updates: list[BrokerUpdate] = []
        page = None
        for _ in range(MAX_PAGES):
            read = await self.broker.executions(after=after, page=page)
            updates += read.updates
            page = read.next_page
            if page is None:
                return updates
        log.warning("executions_cut_short", pages=MAX_PAGES)
        return updates


def _gone(client_order_id: str) -> Incident:
    return Incident(
        kind=GONE,
        severity="critical",
        detail="the broker acknowledged this order and now says that it does not exist",
        client_order_id=client_order_id,
    )


def _gap(order: GapOrder) -> Incident:
    return Incident(
        kind=GAP,
        severity="critical",
        detail=f"the broker states {order.missing} more filled than its executions name",
        position_id=order.position_id,
        close_request_id=order.close_request_id,
        client_order_id=order.client_order_id,
    )
