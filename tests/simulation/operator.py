"""The operator's verbs, on requests and orders that chance picks: cancel, retry now, abandon, declare lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from closeflow.domain.batch import one_book
from closeflow.domain.model import Book, CloseRequest, Order, OrderStatus
from closeflow.domain.operator import declare_lost, requests
from closeflow.domain.sending import absence
from tests.simulation.core import ABSENT_FOR, RESEND_AFTER
from tests.simulation.database import Tx
from tests.simulation.faults import Fault
from tests.simulation.process import DATABASE_ERRORS, Process
from tests.simulation.submitter import gather

Verb = Callable[[Tx, Book, CloseRequest], requests.Outcome]


@dataclass(slots=True, kw_only=True)
class Operator(Process):
    asked: dict[str, absence.Asked] = field(default_factory=dict)

    def cancel(self, request: CloseRequest) -> bool:
        return self._do(request, lambda tx, book, one: requests.cancel(book, one, now=tx.now))

    def retry(self, request: CloseRequest) -> bool:
        return self._do(
            request, lambda tx, book, one: requests.retry_now(book, one, now=tx.now, resend_after=RESEND_AFTER)
        )

    def abandon(self, request: CloseRequest) -> bool:
        return self._do(request, lambda tx, book, one: requests.abandon(book, one, now=tx.now))

    def asks(self, order: Order) -> bool:
        """As the first half of `closectl orders lost`: what the broker says now. Before, senders without an answer that
        are gone are confirmed to be, as `closectl senders exited` does."""
        database, exchange = self.around.database, self.around.exchange
        for one in order.sends:
            if one.answer is None and one.sender not in self.around.lives:
                database.exited.setdefault(one.sender, database.now())
        self.asked[order.client_order_id] = gather(exchange, order, tx=database.read())
        return True

    def declares_lost(self, order: Order) -> bool:
        """As its second half, in the transaction that judges the evidence. Whether it is lost now."""
        asked, database = self.asked.pop(order.client_order_id), self.around.database

        def verb(tx: Tx, book: Book, _: CloseRequest) -> requests.Outcome:
            found = book.orders[order.client_order_id]
            known = absence.Known(exited=database.exited, expected=book.position.quantity)
            points = absence.evidence(found, asked, known, now=tx.now, within=ABSENT_FOR)
            gathered = {order.client_order_id: points}
            return declare_lost.declare_lost(book, gathered, reason="gone", now=tx.now, only=order.client_order_id)

        done = self._do(database.books[order.position_id].requests[order.close_request_id], verb)
        now = database.order(order.client_order_id)
        if now is not None and now.status is OrderStatus.LOST:
            self.around.faults.saw(Fault.DECLARED_LOST)
        return done

    def _do(self, request: CloseRequest, verb: Verb) -> bool:
        """Whether it changed anything. One that fails is simply given again, or not."""

        def work(tx: Tx) -> bool:
            tx.by_hand = True
            book = tx.lock_books(position_ids=[request.position_id], request_ids=[request.id])[request.position_id]
            outcome = verb(tx, book, book.requests[request.id])
            if not isinstance(outcome, requests.Done):
                return False
            tx.save(one_book(book, outcome.book, now=tx.now, events=outcome.events, incidents=outcome.incidents))
            return True

        try:
            return self.around.database.transact(work)
        except DATABASE_ERRORS:
            return True
