"""An order as it goes on the wire, and a refusal of it as evidence for the fill-processor."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from closeflow.domain.ids import broker_update_id
from closeflow.domain.model import BrokerUpdate, ExecType, Order, OrderType, Side, TimeInForce, UpdateSource
from closeflow.domain.sending.broker_answers import Refused


def ticket(order: Order) -> Ticket:
    """What goes on the wire: a function of columns that never change."""
    return Ticket(
        client_order_id=order.client_order_id,
        account_id=order.account_id,
        symbol=order.symbol,
        side=order.side,
        quantity=order.quantity,
        order_type=order.order_type,
        time_in_force=order.time_in_force,
        limit_price=order.limit_price,
    )


def refusal_update(order: Ticket, n: int, refusal: Refused, *, broker: str, at: datetime) -> BrokerUpdate:
    """A refusal as evidence for the fill-processor. It has no broker order id; whether it proves absence is decided
    there, under the order's lock."""
    return BrokerUpdate(
        event_id=broker_update_id(broker, order.account_id, order.client_order_id, "refused", n),
        broker=broker,
        account_id=order.account_id,
        symbol=order.symbol,
        client_order_id=order.client_order_id,
        exec_type=ExecType.REJECTED,
        side=order.side,
        source=UpdateSource.SUBMIT,
        transact_time=at,
        received_at=at,
        order_quantity=order.quantity,
        reject_code=refusal.code,
        reject_class=refusal.reject_class if refusal.mapped else None,
        reason=refusal.reason,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """The order as it goes on the wire: every send of one client order id says the same."""

    client_order_id: str
    account_id: str
    symbol: str
    side: Side
    quantity: Decimal
    order_type: OrderType
    time_in_force: TimeInForce
    limit_price: Decimal | None
