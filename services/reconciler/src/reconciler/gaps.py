"""Ask the broker for the executions that close a gap (rule R4).

What it says goes to `broker-fill` like everything else it says; nothing of it is booked here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog

from closeflow.broker.protocol import Broker, BrokerUnavailable
from closeflow.domain.model import Incident
from closeflow.kafka.producer import Producer
from closeflow.storage.engine import Database, transaction
from closeflow.storage.filling import database_now
from closeflow.storage.reconciling import GapOrder, close_gap_incidents, held_alone, orders_with_gap
from closeflow.storage.saving import report_incidents
from reconciler.orders import publish

log = structlog.get_logger(__name__)

CLOCKS_APART: Final = timedelta(minutes=5)
"""How far the broker's clock may be behind ours: executions are asked for from that much before the order was made."""
GAP: Final = "gap"


@dataclass(slots=True)
class FillGaps:
    """Read the broker's executions, oldest first, for orders of which it states more than we can name.

    A list that is longer than a cycle may read is read on in the next one, and one that breaks off is read on from the
    page that failed. So a gap that opens meanwhile is looked for at the latest by the reading after this one.
    """

    database: Database
    broker: Broker
    producer: Producer
    grace: timedelta
    incident_after: timedelta
    budget: int
    pages: int
    """How many pages of executions one cycle reads."""
    _reading: tuple[datetime, str | None] | None = None
    """From when the list is read, and its next page."""

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
            self._reading = None
            return 0
        if self._reading is None:
            self._reading = (min(one.created_at for one in gaps) - CLOCKS_APART, None)
        published = await self._read_on({one.client_order_id for one in gaps})
        log.info("gaps_asked_about", orders=len(gaps), published=published, read_on=self._reading is not None)
        return published

    async def _read_on(self, wanted: set[str]) -> int:
        """Publish the wanted of the executions on the next pages."""
        published = 0
        for _ in range(self.pages):
            if self._reading is None:
                break
            after, page = self._reading
            try:
                read = await self.broker.executions(after=after, page=page)
            except BrokerUnavailable as error:
                log.warning("executions_not_listed", reason=error.reason)
                break
            found = [update for update in read.updates if update.client_order_id in wanted]
            await publish(self.producer, found)
            published += len(found)
            self._reading = (after, read.next_page) if read.next_page is not None else None
        return published


def _gap(order: GapOrder) -> Incident:
    return Incident(
        kind=GAP,
        severity="critical",
        detail=f"the broker states {order.missing} more filled than its executions name",
        position_id=order.position_id,
        close_request_id=order.close_request_id,
        client_order_id=order.client_order_id,
    )
