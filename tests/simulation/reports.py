"""What the broker says, in the shapes that `closeflow.broker.alpaca.parse` makes of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from closeflow.domain.answers import Ticket
from closeflow.domain.ids import broker_update_id
from closeflow.domain.model import ZERO, BrokerStatus, BrokerUpdate, ExecType, UpdateSource
from tests.simulation.core import ACCOUNT, BROKER

_LEAVES: Final = frozenset(
    {BrokerStatus.NEW, BrokerStatus.PARTIALLY_FILLED, BrokerStatus.PENDING_CANCEL, BrokerStatus.SUSPENDED}
)


@dataclass(frozen=True, slots=True)
class Style:
    """How a broker words its reports: whether they carry a sequence, and whether its two feeds name a fill alike."""

    sequenced: bool
    one_name: bool


@dataclass(slots=True)
class Fill:
    exec_id: str
    activity_id: str
    quantity: Decimal
    price: Decimal
    cum: Decimal
    at: datetime


@dataclass(slots=True)
class BrokerOrder:
    broker_order_id: str
    ticket: Ticket
    visible_at: float
    status: BrokerStatus = BrokerStatus.NEW
    cum: Decimal = ZERO
    seq: int = 1
    cancel_asked: bool = False
    fills: list[Fill] = field(default_factory=list)

    @property
    def leaves(self) -> Decimal:
        return self.ticket.quantity - self.cum


def statement(order: BrokerOrder, style: Style, *, source: UpdateSource, at: datetime) -> BrokerUpdate:
    """As `order_update`."""
    ticket = order.ticket
    return BrokerUpdate(
        event_id=broker_update_id("order", order.broker_order_id, order.status, order.seq, order.cum),
        broker=BROKER,
        account_id=ACCOUNT,
        symbol=ticket.symbol,
        client_order_id=ticket.client_order_id,
        exec_type=ExecType.ORDER_STATUS,
        side=ticket.side,
        source=source,
        transact_time=at,
        received_at=at,
        order_status=order.status,
        order_quantity=ticket.quantity,
        broker_order_id=order.broker_order_id,
        cum_quantity=order.cum,
        leaves_quantity=order.leaves if order.status in _LEAVES else None,
        broker_seq=order.seq if style.sequenced else None,
    )


def event(
    order: BrokerOrder, exec_type: ExecType, style: Style, *, at: datetime, without_quantity: bool = False
) -> BrokerUpdate:
    """As `trade_update`, for an event that names no execution."""
    return _streamed(order, exec_type, style, at, cum_quantity=None if without_quantity else order.cum)


def trade(order: BrokerOrder, fill: Fill, style: Style, *, at: datetime) -> BrokerUpdate:
    """As `trade_update`, for a fill."""
    return _streamed(
        order,
        ExecType.TRADE,
        style,
        at,
        exec_id=fill.exec_id,
        last_quantity=fill.quantity,
        last_price=fill.price,
    )


def _streamed(order: BrokerOrder, exec_type: ExecType, style: Style, at: datetime, **fields: Any) -> BrokerUpdate:
    said = statement(order, style, source=UpdateSource.STREAM, at=at)
    cum = fields.get("cum_quantity", order.cum)
    said_as = (exec_type, order.seq, fields.get("exec_id"), cum, at.isoformat())
    return replace(
        said,
        exec_type=exec_type,
        event_id=broker_update_id("stream", order.broker_order_id, *said_as),
        leaves_quantity=None if cum is None else said.leaves_quantity,
        **fields,
    )


def activity(order: BrokerOrder, fill: Fill, style: Style, *, at: datetime) -> BrokerUpdate:
    """As `fill_activity`: the other feed's name, no sequence, no status."""
    exec_id = fill.exec_id if style.one_name else fill.activity_id
    ticket = order.ticket
    return BrokerUpdate(
        event_id=broker_update_id("fill", order.broker_order_id, exec_id, fill.quantity, fill.price, fill.cum),
        broker=BROKER,
        account_id=ACCOUNT,
        symbol=ticket.symbol,
        client_order_id=ticket.client_order_id,
        exec_type=ExecType.TRADE,
        side=ticket.side,
        source=UpdateSource.BACKFILL,
        transact_time=fill.at,
        received_at=at,
        broker_order_id=order.broker_order_id,
        exec_id=exec_id,
        cum_quantity=fill.cum,
        leaves_quantity=ticket.quantity - fill.cum,
        last_quantity=fill.quantity,
        last_price=fill.price,
    )
