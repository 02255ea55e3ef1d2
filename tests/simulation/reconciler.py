"""The reconciler's jobs: mirrors `requests.WakeRequests`, `orders.AskQuietOrders`, `gaps.FillGaps`,
`outliving.CancelOrphanOrders`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Final

from closeflow.domain.batch import BatchResult, one_book
from closeflow.domain.close import timeouts
from closeflow.domain.close.timeouts import SUBMIT_UNKNOWN, Conditions, PutOff, Waits
from closeflow.domain.market_data import MarketClock
from closeflow.domain.model import BrokerUpdate, CloseRequest, Incident, Order
from closeflow.domain.orders import status as order_status
from closeflow.domain.sending.broker_answers import Acknowledged, NotFound
from tests.simulation.broker import LIVE
from tests.simulation.core import RESEND_AFTER, UNKNOWN_AFTER
from tests.simulation.database import Tx
from tests.simulation.faults import Crashed, Fault
from tests.simulation.process import DATABASE_ERRORS, KafkaAway, Process
from tests.simulation.queries import due_requests, orders_with_gap, orphan_orders, quiet_orders

OUTLIVES: Final = "order_outlives_request"
GAP_INCIDENT_AFTER: Final = timedelta(seconds=30)


@dataclass(slots=True, kw_only=True)
class Reconciler(Process):
    def wake_requests(self) -> bool:
        """As `WakeRequests.once`."""
        due = due_requests(self.around.database)
        if not due:
            return False
        try:
            self.around.database.transact(lambda tx: self._wake(tx, due))
        except DATABASE_ERRORS:
            raise Crashed from None
        return True

    def _wake(self, tx: Tx, due: list[CloseRequest]) -> None:
        before = tx.lock_books(position_ids={one.position_id for one in due}, request_ids={one.id for one in due})
        books = dict(before)
        for one in due:
            book = books[one.position_id]
            request = book.requests[one.id]
            verdict = timeouts.wake(
                book,
                request,
                now=tx.now,
                resend_after=RESEND_AFTER,
                unknown_after=UNKNOWN_AFTER,
                conditions=self._conditions(tx),
            )
            if isinstance(verdict, Waits):
                continue
            books[one.position_id] = verdict.book
            if isinstance(verdict, PutOff):
                continue
            tx.events += verdict.events
            tx.incidents += verdict.incidents
            if verdict.book.requests[one.id].reason == SUBMIT_UNKNOWN:
                tx.incidents.append(_incident("submit_unknown", one))
        tx.save(BatchResult(before=before, now=tx.now, books=books))

    def _conditions(self, tx: Tx) -> Conditions:
        is_open = not self.around.faults.happens(Fault.MARKET_CLOSED)
        clock = MarketClock(is_open=is_open, next_open=tx.now + timedelta(seconds=20), at=tx.now)
        return Conditions(clock=clock, halted=tx.controls.halted)

    def ask_quiet_orders(self) -> bool:
        """As `AskQuietOrders.once`."""
        quiet = quiet_orders(self.around.database)
        updates: list[BrokerUpdate] = []
        gone: list[Incident] = []
        for order in quiet:
            answer = self.around.exchange.look_up(order.client_order_id)
            if isinstance(answer, Acknowledged):
                updates.append(answer.update)
            elif isinstance(answer, NotFound):
                detail = "acknowledged, and now it does not exist"
                gone.append(
                    Incident(
                        kind="acknowledged_order_not_found",
                        severity="critical",
                        detail=detail,
                        client_order_id=order.client_order_id,
                    )
                )
        self._publish(updates)
        if gone:
            self.around.database.read()
            self._report(gone)
        return bool(quiet)

    def cancel_orphan_orders(self) -> bool:
        """As `CancelOrphanOrders.once`."""
        found = orphan_orders(self.around.database)
        known = any(kind == OUTLIVES for kind, _ in self.around.database.incidents)
        for order in found:
            answer = self.around.exchange.look_up(order.client_order_id)
            lives = False
            if isinstance(answer, Acknowledged):
                self._publish([answer.update])
                lives = answer.update.order_status in LIVE
            try:
                self.around.database.transact(partial(self._end, order=order, lives=lives))
            except DATABASE_ERRORS:
                raise Crashed from None
        if known or found:
            self._report([], kind=OUTLIVES, still=[one.client_order_id for one in orphan_orders(self.around.database)])
        return bool(found)

    def _end(self, tx: Tx, *, order: Order, lives: bool) -> None:
        """As `CancelOrphanOrders._end`."""
        ids = [order.position_id], [order.close_request_id]
        book = tx.lock_books(position_ids=ids[0], request_ids=ids[1])[order.position_id]
        found = book.orders.get(order.client_order_id)
        if found is None or order_status.is_done(found) or book.requests[order.close_request_id].unfinished:
            return
        lives = lives or bool(order_status.broker_statements(found))
        if lives and found.cancel_requested_at is None:
            canceling = order_status.derive(replace(found, cancel_requested_at=tx.now))
            tx.save(
                one_book(book, replace(book, orders={**book.orders, canceling.client_order_id: canceling}), now=tx.now)
            )
        detail = "its request is finished"
        tx.incidents.append(
            Incident(kind=OUTLIVES, severity="critical", detail=detail, client_order_id=order.client_order_id)
        )

    def fill_gaps(self) -> bool:
        """As `FillGaps.once`."""
        gaps = orders_with_gap(self.around.database)
        now = self.around.database.now()
        old = [one for one in gaps if (one.last_broker_update_at or one.created_at) + GAP_INCIDENT_AFTER <= now]
        still = [one.client_order_id for one in gaps]
        known = [key for key in self.around.database.incidents if key[0] == "gap"]
        if old or known:
            self._report([_gap(one.client_order_id) for one in old], still=still)
        if not gaps:
            return False
        wanted = {one.client_order_id for one in gaps}
        self._publish([one for one in self.around.exchange.executions() if one.client_order_id in wanted])
        return True

    def _publish(self, updates: list[BrokerUpdate]) -> None:
        try:
            for update in updates:
                self.around.publish(update)
        except KafkaAway:
            raise Crashed from None

    def _report(self, incidents: list[Incident], still: list[str] | None = None, kind: str = "gap") -> None:
        def work(tx: Tx) -> None:
            tx.incidents += incidents
            if still is not None:
                tx.close_incidents(kind, still=still)

        try:
            self.around.database.transact(work)
        except DATABASE_ERRORS:
            raise Crashed from None


def _incident(kind: str, request: CloseRequest) -> Incident:
    return Incident(
        kind=kind,
        severity="critical",
        detail=kind,
        position_id=request.position_id,
        close_request_id=request.id,
    )


def _gap(client_order_id: str) -> Incident:
    return Incident(kind="gap", severity="critical", detail="more stated than named", client_order_id=client_order_id)
