"""Ask the broker about orders that outlive their request, and have those cancelled that live."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

import structlog

from closeflow.broker.protocol import Broker
from closeflow.clock import monotonic
from closeflow.domain.close.orphan_orders import cancel_orphans
from closeflow.domain.incidents import IncidentKind, about_order
from closeflow.domain.model import OrderRef
from closeflow.domain.sending.broker_answers import LookUpAnswer
from closeflow.kafka.producer import Producer
from closeflow.storage.advisory_locks import cycle_alone
from closeflow.storage.book.load import lock_books
from closeflow.storage.core.engine import Database, StatementError, Transaction, database_now, retrying, transaction
from closeflow.storage.incidents import report_incidents
from closeflow.storage.inconsistencies import close_orphan_incidents, orphan_orders
from closeflow.unit_of_work import MoveRefused, apart_where_one_breaks, first_line, save
from reconciler.jobs.ask_quiet_orders import Pauses, Rest, ask, publish, stated

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class CancelOrphanOrders:
    """Each is asked about again after a pause that doubles up to a cap; its cancel is asked for once, and sent by the
    order-submitter."""

    database: Database
    broker: Broker
    producer: Producer
    grace: timedelta
    budget: int
    pauses: Pauses = field(default_factory=Pauses)
    rest: Rest = field(default_factory=Rest)

    async def once(self) -> int:
        """Returns how many cancels were asked for."""
        async with cycle_alone(self.database, "cancel_orphan_orders") as mine:
            return await self._cycle() if mine else 0

    async def _cycle(self) -> int:
        now = monotonic()
        async with transaction(self.database) as tx:
            await close_orphan_incidents(tx, kind=IncidentKind.ORDER_OUTLIVES_REQUEST, resolution="the order is done")
            found = await orphan_orders(
                tx,
                account_id=self.broker.account_id,
                grace=self.grace,
                excluding=self.pauses.not_before(now),
                budget=self.budget,
            )
        if not found:
            return 0
        for one in found:
            self.pauses.asked(one.client_order_id, now)
        answers = await ask(self.broker, [one.client_order_id for one in found], self.rest)
        cancel = partial(self._cancel, answers=answers)
        canceled = await apart_where_one_breaks(found, cancel, alone=self._report, also_locked=True)
        # Afterwards, for what the database can do does not wait for Kafka.
        await publish(self.producer, stated(answers))
        return sum(canceled)

    async def _cancel(self, orders: Sequence[OrderRef], *, answers: Mapping[str, LookUpAnswer]) -> int:
        async def work(tx: Transaction) -> list[str]:
            positions, requests = {one.position_id for one in orders}, {one.close_request_id for one in orders}
            books = await lock_books(tx, position_ids=positions, request_ids=requests)
            result = cancel_orphans(books, orders, answers, now=await database_now(tx))
            await save(tx, result)
            return result.canceled

        canceled = await retrying(self.database, work)
        for client_order_id in canceled:
            log.warning("outliving_order_canceled", client_order_id=client_order_id)
        return len(canceled)

    async def _report(self, order: OrderRef, error: StatementError | MoveRefused) -> int:
        log.error("outliving_order_not_ended", client_order_id=order.client_order_id, exc_info=error)
        detail = f"it cannot be ended: {first_line(error)}"
        async with transaction(self.database) as tx:
            await report_incidents(tx, incidents=[about_order(order, IncidentKind.ORDER_OUTLIVES_REQUEST, detail)])
        return 0
