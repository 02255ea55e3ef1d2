"""The check before the wire: whether an order that was planned may still go out as it stands."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from closeflow.domain import market_data
from closeflow.domain.account_limits import LIMITS_MISSING, WINDOW_FULL, breach, room_at
from closeflow.domain.enums import SENDABLE
from closeflow.domain.incidents import IncidentKind, about_order
from closeflow.domain.model import ZERO, Book, Incident, Order, RejectClass, RequestStatus, SendAnswer, Side
from closeflow.domain.orders import status as order_status
from closeflow.domain.position import exposure, freeze
from closeflow.domain.reasons import DEADLINE_PASSED, USER_CANCEL
from closeflow.domain.trading_controls import TRADING_HALTED, Controls

HELD_S: Final = 1.0
"""When an order that may not go now is looked at again, unless it is known when it may."""


@dataclass(frozen=True, slots=True)
class Clear:
    """It may go on the wire now."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Not now; nothing is decided. `until` is when it may be different, where that is known."""

    reason: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Withdraw:
    """O2: it must never go, and the broker cannot have seen it. `incident` is what a person must know of it."""

    code: str
    reject_class: RejectClass
    incident: Incident | None = None


Check = Clear | Hold | Withdraw


def recheck(book: Book, order: Order, *, controls: Controls, now: datetime, may_repeat: bool = False) -> Check:
    """Whether this order may be sent, under the book's locks and in the transaction that inserts the send's row.
    `controls` are read in that transaction too.

    `may_repeat` says that rule R6 allows the same id again: a look-up, made after every unanswered send's lease, did
    not find it, and the broker de-duplicates for ever, or `absence.may_repeat` holds.
    """
    request = book.requests.get(order.close_request_id)
    if request is None:
        return Hold("request_not_loaded")
    if order.status not in SENDABLE or order_status.broker_statements(order) or order.executions:
        return Hold("not_sendable")
    seen = not order_status.never_taken(order)
    if seen:
        refused = any(one.answer is SendAnswer.REJECTED for one in order_status.submits(order))
        # After a refusal a repeat would be refused again, and prove as little.
        if not may_repeat or refused:
            return Hold("earlier_send_open")
    stopped = _stopped(book, order, now=now) or _breached(book, order, controls)
    if stopped is not None:
        return Hold(stopped.code) if seen else stopped
    if freeze.is_frozen(book):
        return Hold("frozen")
    if not all(order_status.is_named(one) for one in book.orders.values()):
        return Hold("fills_not_named")
    return _controlled(order, controls, now=now)


def _controlled(order: Order, controls: Controls, *, now: datetime) -> Clear | Hold:
    """The kill switch, and room in the account's window of submits."""
    if controls.halted or controls.account_id != order.account_id:
        return Hold(TRADING_HALTED)
    if controls.limits is None:
        return Hold(LIMITS_MISSING)
    free_at = room_at(controls.limits, now=now)
    return Clear() if free_at is None else Hold(WINDOW_FULL, free_at)


def _breached(book: Book, order: Order, controls: Controls) -> Withdraw | None:
    if controls.limits is None:
        return None
    price = _worth(order)
    if price is None:
        return Withdraw("order_without_price", RejectClass.RETRYABLE)  # The next plan has a quote.
    multiplier = book.position.multiplier
    found = breach(controls.limits, quantity=order.quantity, price=price, multiplier=multiplier)
    if found is None:
        return None
    return Withdraw(
        found.code,
        RejectClass.TERMINAL,
        about_order(order, IncidentKind.ACCOUNT_LIMIT_BREACHED, found.detail),
    )


def _worth(order: Order) -> Decimal | None:
    """The price that the order is measured at: its limit or the touch it was planned at, whichever is higher."""
    noted = market_data.noted_touch(order.side, order.quote)
    return max((one for one in (order.limit_price, noted) if one is not None), default=None)


def _stopped(book: Book, order: Order, *, now: datetime) -> Withdraw | None:
    request = book.requests[order.close_request_id]
    if request.cancel_requested_at is not None:
        return Withdraw(USER_CANCEL, RejectClass.TERMINAL)
    if order.cancel_requested_at is not None:
        return Withdraw("withdrawn", RejectClass.RETRYABLE)
    current = request.attempt == order.attempt and book.position.active_close_request_id == request.id
    if request.status is not RequestStatus.SUBMITTED or not current:
        return Withdraw("not_the_current_attempt", RejectClass.TERMINAL)
    if (order.symbol, order.account_id) != (book.position.symbol, book.position.account_id):
        return Withdraw("not_the_positions_order", RejectClass.TERMINAL)
    if request.deadline_at is not None and request.deadline_at <= now:
        return Withdraw(DEADLINE_PASSED, RejectClass.TERMINAL)
    if book.position.quantity != ZERO and (order.side is Side.SELL) != (book.position.quantity > ZERO):
        return Withdraw("side_changed", RejectClass.TERMINAL)
    if exposure.oversells(book, request):
        return Withdraw("more_than_owed", RejectClass.RETRYABLE)
    return None
