"""What time asks of unfinished requests: retries, repeats of their event, deadlines, orders that take too long.

Moves C8 with P5, C4 and C10 with P3, P6 and P10, C7 with P7, O9; a re-emission of a pending request is no move, and
neither is a retry that is put off until the market, the circuit breaker and the kill switch allow one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, assert_never
from uuid import UUID

from closeflow.domain import lots
from closeflow.domain.batch import BatchResult
from closeflow.domain.close.moves import Conditions, Moved, PutOff, Waits, fail, finish
from closeflow.domain.close.next_attempt import (
    emit_again_if_due,
    retry_if_due,
)
from closeflow.domain.close.timeouts import attend_working_order, living_orders
from closeflow.domain.model import (
    ZERO,
    Book,
    CloseRequest,
    RequestStatus,
)
from closeflow.domain.position import exposure, freeze
from closeflow.domain.reasons import DEADLINE_PASSED, EXTERNALLY_CLOSED, RESIDUAL, USER_CANCEL

_NOT_KNOWN: Final = Conditions(clock=None, halted=True)


@dataclass(slots=True, kw_only=True)
class WakeResult(BatchResult):
    """What time asks of many requests: what is to be written, and the verdict about each."""

    verdicts: dict[UUID, Moved | PutOff | Waits] = field(default_factory=dict)


def wake_batch(
    before: Mapping[int, Book],
    due: Mapping[UUID, int],
    *,
    now: datetime,
    resend_after: timedelta,
    unknown_after: timedelta,
    conditions: Mapping[str, Conditions],
) -> WakeResult:
    """Decide about each due request, given with its position. `conditions` are by account id; what is said of no
    account holds its retries back."""
    result = WakeResult(before=before, now=now)
    for request_id, position_id in due.items():
        book = result.books[position_id]
        request = book.requests[request_id]
        verdict = result.verdicts[request_id] = wake(
            book,
            request,
            now=now,
            resend_after=resend_after,
            unknown_after=unknown_after,
            conditions=conditions.get(request.account_id, _NOT_KNOWN),
        )
        match verdict:
            case Moved(after, events, _, incidents):
                result.put(after)
                result.events += events
                result.incidents += incidents
            case PutOff(after):
                result.put(after)
            case Waits():
                pass
            case _:
                assert_never(verdict)
    return result


def wake(
    book: Book,
    request: CloseRequest,
    *,
    now: datetime,
    resend_after: timedelta,
    unknown_after: timedelta,
    conditions: Conditions | None = None,
) -> Moved | PutOff | Waits:
    """Decide what time asks of one unfinished request. Without `conditions` a retry is an operator's, which they do not
    hold back: the planner looks at them then.

    `resend_after` is how long a pending request may be without an order before its event is sent again the first time;
    `unknown_after` (T_unknown) how long an order may stay unknown before the request is given up as failed.
    """
    if not request.unfinished:
        return Waits("finished")
    if request.status is RequestStatus.SUBMITTED:
        return attend_working_order(book, request, now=now, unknown_after=unknown_after)
    if request.frozen_reason is not None:
        return Waits("frozen")  # Its end would let a new close go round what froze it.
    if request.cancel_requested_at is not None:
        return fail(book, request, USER_CANCEL, now=now)
    if request.deadline_at is not None and request.deadline_at <= now:
        return fail(book, request, DEADLINE_PASSED, now=now)
    if freeze.is_frozen(book):
        return Waits("another close of the position is frozen")
    if living_orders(book, request):  # One that lives again, before the next attempt is planned (ADR 0024).
        return attend_working_order(book, request, now=now, unknown_after=unknown_after)
    if not exposure.is_clear(book):
        return Waits("not clear")
    if lots.is_residual(request.asset_type, book.position.quantity):
        why = EXTERNALLY_CLOSED if book.position.quantity == ZERO else RESIDUAL
        return finish(book, request, RequestStatus.COMPLETED, why, now=now)
    if request.status is RequestStatus.PENDING:
        return emit_again_if_due(book, request, now=now, resend_after=resend_after, conditions=conditions)
    return retry_if_due(book, request, now=now, resend_after=resend_after, conditions=conditions)
