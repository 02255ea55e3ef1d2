"""Orders that take too long: unknown, working, or done for a day that is over (C7, O9)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from closeflow.domain.close.moves import Moved, Waits, fail
from closeflow.domain.frozen import replace
from closeflow.domain.incidents import IncidentKind, about_order, about_request
from closeflow.domain.model import (
    Book,
    CloseRequest,
    Incident,
    Order,
    OrderStatus,
    SendKind,
)
from closeflow.domain.orders import status as order_status
from closeflow.domain.reasons import DEADLINE_PASSED, USER_CANCEL
from closeflow.domain.retry import DONE_FOR_DAY_WITHIN

SUBMIT_UNKNOWN: Final = "submit_unknown"
_WORKING: Final = frozenset(
    {OrderStatus.NEW, OrderStatus.PARTIALLY_FILLED, OrderStatus.SUSPENDED, OrderStatus.PENDING_CANCEL}
)
"""Also what the broker suspended, or began to cancel unasked: a request is not held up for ever by either."""


def attend_working_order(
    book: Book, request: CloseRequest, *, now: datetime, unknown_after: timedelta
) -> Moved | Waits:
    """C7 for an order that stays unknown; a cancel (O9) for one that works longer than the request allows, or at all
    once the user gave up or the deadline passed. What was never sent is withdrawn by the cancel, else the request fails
    when its outcome is known (C7)."""
    living = living_orders(book, request)
    if not living:
        return Waits("in progress")
    order = next((one for one in living if one.cancel_requested_at is None), living[-1])
    unknown = order.status is OrderStatus.SUBMIT_UNKNOWN
    if unknown and _unknown_since(order, now) + unknown_after <= now:
        detail = "the broker never said whether it has the order; the position may still be reduced by it"
        told = about_request(request, IncidentKind.SUBMIT_UNKNOWN, detail)
        return replace(fail(book, request, SUBMIT_UNKNOWN, now=now), incidents=(told,))
    if order.cancel_requested_at is None:
        if request.cancel_requested_at is not None:
            return _cancel(book, order, USER_CANCEL, now=now)
        if request.deadline_at is not None and request.deadline_at <= now:
            return _cancel(book, order, DEADLINE_PASSED, now=now)
    if unknown:
        return Waits("not unknown for long")
    done_for_day = order.status is OrderStatus.DONE_FOR_DAY
    if not (order.status in _WORKING or done_for_day) or order.cancel_requested_at is not None:
        return Waits("in progress")
    allowed = DONE_FOR_DAY_WITHIN if done_for_day else timedelta(seconds=request.working_timeout_s)
    if _working_since(order) + allowed > now:
        return Waits("working")
    if not done_for_day:
        return _cancel(book, order, "working_timed_out", now=now)
    return replace(_cancel(book, order, "done_for_day", now=now), incidents=(_not_over(order),))


def living_orders(book: Book, request: CloseRequest) -> list[Order]:
    """Mostly the newest alone; an older one where it lives again."""
    return [order for order in book.orders_of(request.id) if not order_status.is_done(order)]


def _not_over(order: Order) -> Incident:
    detail = "the broker called it done for the day and has not ended it a day later; its cancel is asked for"
    return about_order(order, IncidentKind.ORDER_DONE_FOR_DAY, detail)


def _working_since(order: Order) -> datetime:
    """From the last send that may have reached the broker: what waited for a free sender did not work meanwhile."""
    sends = [one.started_at for one in order.sends if one.kind is SendKind.SUBMIT and one.counts]
    return max(sends, default=order.created_at)


def _unknown_since(order: Order, now: datetime) -> datetime:
    """From the first send, because repeats of an id that never get an answer would put it off for ever."""
    sends = [one.started_at for one in order.sends if one.kind is SendKind.SUBMIT and one.counts]
    return min(sends, default=now)


def _cancel(book: Book, order: Order, why: str, *, now: datetime) -> Moved:
    canceling = order_status.derive(replace(order, cancel_requested_at=now))
    return Moved(replace(book, orders={**book.orders, order.client_order_id: canceling}), (), f"cancel:{why}")
