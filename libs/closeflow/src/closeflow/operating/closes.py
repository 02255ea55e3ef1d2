"""Retry, abandon and cancel a close by hand."""

from __future__ import annotations

from datetime import timedelta
from typing import Final
from uuid import UUID

from closeflow.domain.model import Book
from closeflow.domain.operator.requests import Outcome, abandon, cancel, retry_now
from closeflow.operating.acting import Operator, OperatorAction, decide_on_book, on_book
from closeflow.storage.core.engine import Database, Transaction, retrying

RESEND_AFTER: Final = timedelta(seconds=30)
"""After which the reconciler emits the attempt again, should nobody have planned it."""


async def retry_request(database: Database, request_id: UUID, operator: Operator) -> Outcome:
    """C8 with P5 by hand: the next attempt now. The outcome says what stands in the way, if anything does."""
    act = OperatorAction(operator, "retry", str(request_id))
    return await on_book(
        database,
        act,
        lambda book, now: retry_now(book, book.requests[request_id], now=now, resend_after=RESEND_AFTER),
        request_id=request_id,
    )


async def abandon_request(database: Database, request_id: UUID, operator: Operator) -> Outcome:
    """C10 with P10: the close fails as `abandoned` and its position is open again; refused while an order may still
    fill."""
    act = OperatorAction(operator, "abandon", str(request_id))
    return await on_book(
        database, act, lambda book, now: abandon(book, book.requests[request_id], now=now), request_id=request_id
    )


async def cancel_request(database: Database, request_id: UUID, operator: Operator) -> Outcome:
    """C4 or C10 where no order is at work, else the order's cancel is asked for and the close fails with what is
    filled."""

    async def work(tx: Transaction) -> Outcome:
        return (await cancel_in(tx, request_id, operator))[1]

    return await retrying(database, work)


async def cancel_in(tx: Transaction, request_id: UUID, operator: Operator) -> tuple[Book, Outcome]:
    """What `cancel_request` does, in a transaction of the caller's; also the book as it was. Raises NotThere."""
    act = OperatorAction(operator, "cancel", str(request_id))
    return await decide_on_book(
        tx, act, lambda book, now: cancel(book, book.requests[request_id], now=now), request_id=request_id
    )
