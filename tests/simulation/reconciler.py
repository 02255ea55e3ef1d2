"""The reconciler's jobs: what each loads, the decision that the service calls, and what it saves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from closeflow.domain.close.due_requests import wake_batch
from closeflow.domain.close.moves import Conditions
from closeflow.domain.close.orphan_orders import cancel_orphans
from closeflow.domain.market_data import MarketClock
from closeflow.domain.model import BrokerUpdate, CloseRequest, Order
from closeflow.domain.sending.broker_answers import LookUpAnswer
from reconciler.jobs.ask_quiet_orders import denied, stated
from reconciler.jobs.fill_gaps import Seen, lasting_gaps
from tests.simulation.core import ACCOUNT, RESEND_AFTER, UNKNOWN_AFTER
from tests.simulation.database import Tx
from tests.simulation.faults import Crashed, Fault
from tests.simulation.process import DATABASE_ERRORS, KafkaAway, Process
from tests.simulation.queries import orders_with_gap, orphan_orders, quiet_orders, unfinished_requests

GAP_INCIDENT_AFTER: Final = timedelta(seconds=30)


@dataclass(slots=True, kw_only=True)
class Reconciler(Process):
    seen: dict[str, Seen] = field(default_factory=dict)
    """Gaps."""

    def start(self) -> None:
        super(Reconciler, self).start()
        self.seen = {}

    def wake_requests(self) -> bool:
        before = self.around.database.xact
        requests = unfinished_requests(self.around.database)
        if requests:
            self._transact(lambda tx: self._wake(tx, requests))
        return self.around.database.xact > before

    def _wake(self, tx: Tx, due: list[CloseRequest]) -> None:
        positions = {one.id: one.position_id for one in due}
        is_open = not self.around.faults.happens(Fault.MARKET_CLOSED)
        clock = MarketClock(is_open=is_open, next_open=tx.now + timedelta(seconds=20), at=tx.now)
        result = wake_batch(
            tx.lock_books(position_ids=positions.values(), request_ids=positions),
            positions,
            now=tx.now,
            resend_after=RESEND_AFTER,
            unknown_after=UNKNOWN_AFTER,
            conditions={ACCOUNT: Conditions(clock=clock, halted=tx.controls.halted)},
        )
        tx.save(result)

    def ask_quiet_orders(self) -> bool:
        quiet = quiet_orders(self.around.database)
        answers = self._ask(quiet)
        self._publish(stated(answers))
        gone = denied(answers)
        if gone:
            self._transact(lambda tx: tx.incidents.extend(gone))
        return bool(quiet)

    def cancel_orphan_orders(self) -> bool:
        found = orphan_orders(self.around.database)
        if self._told("order_outlives_request"):
            still = [one.client_order_id for one in found]
            self._transact(lambda tx: tx.close_incidents("order_outlives_request", still=still))
        if found:
            answers = self._ask(found)
            self._transact(lambda tx: self._cancel(tx, found, answers))
            self._publish(stated(answers))
        return bool(found)

    def _cancel(self, tx: Tx, orders: list[Order], answers: dict[str, LookUpAnswer]) -> None:
        positions, requests = {one.position_id for one in orders}, {one.close_request_id for one in orders}
        books = tx.lock_books(position_ids=positions, request_ids=requests)
        tx.save(cancel_orphans(books, orders, answers, now=tx.now))

    def fill_gaps(self) -> bool:
        gaps, database = orders_with_gap(self.around.database), self.around.database
        lasting, self.seen = lasting_gaps(
            gaps, self.seen, now=database.now(), patience=GAP_INCIDENT_AFTER, clock=self.monotonic()
        )
        wanted = {one.client_order_id for one in gaps}

        def tell(tx: Tx) -> None:
            tx.incidents += lasting
            tx.close_incidents("gap", still=wanted)

        if lasting or self._told("gap"):
            self._transact(tell)
        if gaps:
            self._publish([one for one in self.around.exchange.executions() if one.client_order_id in wanted])
        return bool(gaps)

    def _ask(self, orders: list[Order]) -> dict[str, LookUpAnswer]:
        return {one.client_order_id: self.around.exchange.look_up(one.client_order_id) for one in orders}

    def _told(self, kind: str) -> bool:
        return any(one == kind for one, _ in self.around.database.incidents)

    def _publish(self, updates: list[BrokerUpdate]) -> None:
        try:
            for update in updates:
                self.around.publish(update)
        except KafkaAway:
            raise Crashed from None

    def _transact(self, work: Callable[[Tx], object]) -> None:
        try:
            self.around.database.transact(work)
        except DATABASE_ERRORS:
            raise Crashed from None
