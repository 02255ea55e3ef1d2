"""Retry, abandon and cancel a close by hand."""

from __future__ import annotations

from datetime import timedelta
from typing import Final
from uuid import UUID

from closeflow.domain.operator.requests import Outcome, abandon, cancel, retry_now
from closeflow.operating.acting import OperatorAction, on_book
from closeflow.storage.core.engine import Database

RESEND_AFTER: Final = timedelta(seconds=30)
"""After which the reconciler emits the attempt again, should nobody have planned it."""


async def retry_request(database: Database, request_id: UUID, *, by: str, reason: str) -> Outcome:
    """C8 with P5 by hand: the next attempt now. The outcome says what stands in the way, if anything does."""
    act = OperatorAction(by=by, action="retry", subject=str(request_id), reason=reason)
    return await on_book(
        database,
        act,
        lambda book, now: retry_now(book, book.requests[request_id], now=now, resend_after=RESEND_AFTER),
        request_id=request_id,
    )


async def abandon_request(database: Database, request_id: UUID, *, by: str, reason: str) -> Outcome:
    """C10 with P10: the close fails as `abandoned` and its position is open again; refused while an order may still
    fill."""
    act = OperatorAction(by=by, action="abandon", subject=str(request_id), reason=reason)
    return await on_book(
        database, act, lambda book, now: abandon(book, book.requests[request_id], now=now), request_id=request_id
    )


async def cancel_request(database: Database, request_id: UUID, *, by: str, reason: str) -> Outcome:
    """C4 or C10 where no order is at work, else the order's cancel is asked for and the close fails with what is
    filled."""
    act = OperatorAction(by=by, action="cancel", subject=str(request_id), reason=reason)
    return await on_book(
        database, act, lambda book, now: cancel(book, book.requests[request_id], now=now), request_id=request_id
    )
