"""Which rows are due: the WHERE clauses of `storage.order_sends` and `storage.due_work`."""

from __future__ import annotations

from datetime import datetime

from closeflow.domain.model import CloseRequest, Order, OrderStatus
from closeflow.domain.orders import status as order_status
from closeflow.domain.retry import is_due
from closeflow.storage.due_work import GapOrder
from tests.simulation.core import QUIET_AFTER
from tests.simulation.database import FINISHED, Database

UNSENT = (OrderStatus.PLANNED, OrderStatus.SUBMIT_UNKNOWN)


def due_orders(database: Database) -> list[Order]:
    """As `submitting.due_orders`."""
    now = database.now()
    return [one for one in database.orders() if one.status not in FINISHED and _to_attend(one, now)]


def _to_attend(order: Order, now: datetime) -> bool:
    if order.next_send_at is None or is_due(order.next_send_at, now):
        return order.status in UNSENT or order.cancel_requested_at is not None
    return order_status.never_taken(order) and order.cancel_requested_at is not None


def unfinished_requests(database: Database) -> list[CloseRequest]:
    """Those that `due_work.due_requests` chooses from; what is not due waits by its decision, too."""
    return [one for one in database.requests() if one.unfinished and one.id not in database.hidden]


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
