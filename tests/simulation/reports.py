"""What the broker says, in the shapes that `closeflow.broker.alpaca.parse` makes of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from closeflow.domain.ids import broker_update_id
from closeflow.domain.model import ZERO, BrokerStatus, BrokerUpdate, ExecType, UpdateSource
from closeflow.domain.sending.ticket import Ticket
from tests.simulation.core import ACCOUNT, BROKER

_LEAVES: Final = frozenset(
    {BrokerStatus.NEW, BrokerStatus.PARTIALLY_FILLED, BrokerStatus.PENDING_CANCEL, BrokerStatus.SUSPENDED}
)


@dataclass(frozen=True, slots=True)
class Style:
    """How a broker words its reports: whether they carry a sequence, and whether its two feeds name a fill alike.
    One that `reverses` busts and corrects, and no two of its times are alike or in another order than what it did."""

    sequenced: bool
    one_name: bool
    reverses: bool


@dataclass(slots=True, eq=False)
class Fill:
    """An execution of the broker's: a trade, or the bust or correction of `ref`, which it takes the place of."""

    exec_id: str
    activity_id: str
    quantity: Decimal
    price: Decimal
    cum: Decimal
    at: datetime
    kind: ExecType = ExecType.TRADE
    ref: Fill | None = None
    replaced: bool = False

    @property
    def stands(self) -> bool:
        return not self.replaced and self.kind is not ExecType.TRADE_CANCEL


@dataclass(slots=True)
class BrokerOrder:
    broker_order_id: str
    ticket: Ticket
    visible_at: float
    status: BrokerStatus = BrokerStatus.NEW
    cum: Decimal = ZERO
    seq: int = 1
    cancel_asked: bool = False
    cancel_refused: bool = False
    """Or what it asked for was overtaken by a fill that is gone again; then a person has to ask for another."""
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
    """As `trade_update`, for a fill, its bust or its correction."""
    bust = fill.kind is ExecType.TRADE_CANCEL
    return _streamed(
        order,
        fill.kind,
        style,
        at,
        exec_id=fill.exec_id,
        exec_ref_id=fill.ref.exec_id if fill.ref else None,
        last_quantity=None if bust else fill.quantity,
        last_price=None if bust else fill.price,
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
    exec_id, ref_id = _names(fill, style)
    ticket, bust = order.ticket, fill.kind is ExecType.TRADE_CANCEL
    return BrokerUpdate(
        event_id=broker_update_id("fill", order.broker_order_id, exec_id, fill.quantity, fill.price, fill.cum),
        broker=BROKER,
        account_id=ACCOUNT,
        symbol=ticket.symbol,
        client_order_id=ticket.client_order_id,
        exec_type=fill.kind,
        side=ticket.side,
        source=UpdateSource.BACKFILL,
        transact_time=fill.at,
        received_at=at,
        broker_order_id=order.broker_order_id,
        exec_id=exec_id,
        exec_ref_id=ref_id,
        cum_quantity=fill.cum,
        leaves_quantity=ticket.quantity - fill.cum,
        last_quantity=None if bust else fill.quantity,
        last_price=None if bust else fill.price,
    )


def _names(fill: Fill, style: Style) -> tuple[str, str | None]:
    """What the activities call a fill, and what it changes."""
    if style.one_name:
        return fill.exec_id, fill.ref.exec_id if fill.ref else None
    return fill.activity_id, fill.ref.activity_id if fill.ref else None
