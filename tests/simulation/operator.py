"""The operator's verbs, on requests that chance picks: cancel, retry now, abandon."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from closeflow.domain import operate
from closeflow.domain.model import Book, CloseRequest
from tests.simulation.core import RESEND_AFTER
from tests.simulation.database import Tx
from tests.simulation.process import DATABASE_ERRORS, Process

Verb = Callable[[Tx, Book, CloseRequest], operate.Outcome]


@dataclass(slots=True, kw_only=True)
class Operator(Process):
    def cancel(self, request: CloseRequest) -> bool:
        return self._do(request, lambda tx, book, one: operate.cancel(book, one, now=tx.now))

    def retry(self, request: CloseRequest) -> bool:
        return self._do(
            request, lambda tx, book, one: operate.retry_now(book, one, now=tx.now, resend_after=RESEND_AFTER)
        )

    def abandon(self, request: CloseRequest) -> bool:
        return self._do(request, lambda tx, book, one: operate.abandon(book, one, now=tx.now))

    def _do(self, request: CloseRequest, verb: Verb) -> bool:
        """Whether it changed anything. One that fails is simply given again, or not."""

        def work(tx: Tx) -> bool:
            book = tx.lock_books(position_ids=[request.position_id], request_ids=[request.id])[request.position_id]
            outcome = verb(tx, book, book.requests[request.id])
            if not isinstance(outcome, operate.Done):
                return False
            tx.save_books([(book, outcome.book)])
            tx.events += outcome.events
            tx.incidents += outcome.incidents
            return True

        try:
            return self.around.database.transact(work)
        except DATABASE_ERRORS:
            return True
