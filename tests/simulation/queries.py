"""Which rows are due: the WHERE clauses of `storage.order_sends` and `storage.due_work`."""

from __future__ import annotations

from datetime import datetime, timedelta

from closeflow.domain.model import CloseRequest, Order, OrderStatus, RequestStatus, SendAnswer, SendKind
from closeflow.domain.orders import status as order_status
from closeflow.domain.retry import DONE_FOR_DAY_WITHIN, is_due
from closeflow.storage.due_work import GapOrder
from tests.simulation.core import QUIET_AFTER, RESEND_AFTER, UNKNOWN_AFTER
from tests.simulation.database import FINISHED, Database

UNSENT = (OrderStatus.PLANNED, OrderStatus.SUBMIT_UNKNOWN)
WORKING = (OrderStatus.NEW, OrderStatus.PARTIALLY_FILLED, OrderStatus.SUSPENDED, OrderStatus.PENDING_CANCEL)


def due_orders(database: Database) -> list[Order]:
    """As `submitting.due_orders`."""
    now = database.now()
    return [one for one in database.orders() if one.status not in FINISHED and _to_attend(one, now)]


def _to_attend(order: Order, now: datetime) -> bool:
    if order.next_send_at is None or is_due(order.next_send_at, now):
        return order.status in UNSENT or order.cancel_requested_at is not None
    counting = (
        one
        for one in order.sends
        if one.kind is SendKind.SUBMIT and one.answer not in (SendAnswer.NOT_SENT, SendAnswer.NOT_ACCEPTED)
    )
    return order.status is OrderStatus.PLANNED and order.cancel_requested_at is not None and not any(counting)


def due_requests(database: Database) -> list[CloseRequest]:
    """As `reconciling.due_requests`."""
    now = database.now()
    return [
        one
        for one in database.requests()
        if one.unfinished and one.id not in database.hidden and _to_wake(database, one, now)
    ]


def _to_wake(database: Database, request: CloseRequest, now: datetime) -> bool:
    if request.status is RequestStatus.SUBMITTED:
        orders = database.books[request.position_id].orders_of(request.id)
        return any(_overdue(one, request, now) for one in orders)
    if request.frozen_reason is not None:
        return False
    if request.cancel_requested_at is not None or (request.deadline_at is not None and request.deadline_at <= now):
        return True
    if request.status is RequestStatus.PENDING:
        return is_due(request.next_attempt_at or request.created_at + RESEND_AFTER, now)
    return request.auto_retry and is_due(request.next_attempt_at or request.created_at, now)


def _overdue(order: Order, request: CloseRequest, now: datetime) -> bool:
    if order.status is OrderStatus.SUBMIT_UNKNOWN and order.created_at <= now - UNKNOWN_AFTER:
        return True
    if order.cancel_requested_at is not None or order.status in FINISHED:
        return False
    if request.cancel_requested_at is not None or (request.deadline_at is not None and request.deadline_at <= now):
        return True
    sent = [one.started_at for one in order.sends if one.kind is SendKind.SUBMIT and one.counts]
    since = max(sent, default=order.created_at)
    if order.status is OrderStatus.DONE_FOR_DAY:
        return since <= now - DONE_FOR_DAY_WITHIN
    return order.status in WORKING and since <= now - timedelta(seconds=request.working_timeout_s)


def orphan_orders(database: Database) -> list[Order]:
    """As `inconsistencies.orphan_orders`, without its grace: what is on its way within a transaction is not seen."""
    finished = {one.id for one in database.requests() if not one.unfinished}
    return [one for one in database.orders() if one.close_request_id in finished and not order_status.is_done(one)]


def quiet_orders(database: Database) -> list[Order]:
    """As `reconciling.quiet_orders`."""
    now = database.now()
    return [
        one
        for one in database.orders()
        if one.status not in FINISHED
        and one.status not in UNSENT
        and (one.last_broker_update_at or one.created_at) <= now - QUIET_AFTER
    ]


def orders_with_gap(database: Database) -> list[GapOrder]:
    """As `due_work.orders_with_gap`."""
    return [
        GapOrder(
            one.client_order_id,
            one.position_id,
            one.close_request_id,
            one.created_at,
            str(one.stated_cum_quantity - one.executed_quantity),
            one.last_broker_update_at or one.created_at,
        )
        for one in database.orders()
        if one.stated_cum_quantity > one.executed_quantity
    ]
