"""`broker-fill.v1`: what the broker said, whatever the door. Field names follow FIX (tags in contracts.md)."""

from __future__ import annotations

from typing import ClassVar, Final, Self

from pydantic import model_validator

from closeflow.contracts.wire import (
    BrokerSeq,
    Currency,
    Id,
    Name,
    Note,
    PositiveDecimal,
    SignedDecimal,
    Time,
    UnsignedDecimal,
    WireModel,
)
from closeflow.domain.ids import parse_client_order_id
from closeflow.domain.model import BrokerStatus, BrokerUpdate, ExecType, RejectClass, Side, UpdateSource

_LIVE: Final = frozenset(
    {BrokerStatus.NEW, BrokerStatus.PARTIALLY_FILLED, BrokerStatus.PENDING_CANCEL, BrokerStatus.SUSPENDED}
)
"""Where FIX says OrderQty = CumQty + LeavesQty; on a finished order LeavesQty is 0 whatever was left."""

_REQUIRED: Final = {
    ExecType.TRADE: ("exec_id", "last_qty", "last_px"),
    ExecType.TRADE_CANCEL: ("exec_id", "exec_ref_id"),
    ExecType.TRADE_CORRECT: ("exec_id", "exec_ref_id", "last_qty", "last_px"),
}


class BrokerFillV1(WireModel):
    """The wire form of `closeflow.domain.model.BrokerUpdate`. It checks what one message can contradict by itself;
    whether symbol, side and account are the order's only the fill-processor can judge."""

    SCHEMA: ClassVar[str] = "broker-fill"

    event_id: Id
    broker: Name
    account_id: Name
    symbol: Name
    client_order_id: Name
    broker_order_id: Name | None = None
    exec_id: Name | None = None
    exec_ref_id: Name | None = None
    exec_type: ExecType
    order_status: BrokerStatus | None = None
    side: Side
    order_qty: PositiveDecimal | None = None
    cum_qty: UnsignedDecimal | None = None
    leaves_qty: UnsignedDecimal | None = None
    avg_px: UnsignedDecimal | None = None
    last_qty: PositiveDecimal | None = None
    last_px: PositiveDecimal | None = None
    transact_time: Time
    broker_seq: BrokerSeq | None = None
    received_at: Time
    source: UpdateSource
    reject_code: Name | None = None
    reject_class: RejectClass | None = None
    reason: Note | None = None
    position_qty: SignedDecimal | None = None
    commission: SignedDecimal | None = None
    currency: Currency | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in _REQUIRED.get(self.exec_type, ()):
            if getattr(self, name) is None:
                raise ValueError(f"{name} is missing on a {self.exec_type}")
        if self.exec_type is ExecType.TRADE and None not in (self.cum_qty, self.last_qty):
            assert self.cum_qty is not None
            assert self.last_qty is not None
            if self.cum_qty < self.last_qty:
                raise ValueError(f"cum_qty {self.cum_qty} is below last_qty {self.last_qty}")
        if (
            self.order_status in _LIVE
            and self.order_qty is not None
            and self.cum_qty is not None
            and self.leaves_qty is not None
            and self.cum_qty + self.leaves_qty != self.order_qty
        ):
            raise ValueError(
                f"cum_qty {self.cum_qty} + leaves_qty {self.leaves_qty} is not order_qty {self.order_qty} "
                f"on a {self.order_status} order"
            )
        return self

    def to_domain(self) -> BrokerUpdate:
        return BrokerUpdate(
            event_id=self.event_id,
            broker=self.broker,
            account_id=self.account_id,
            symbol=self.symbol,
            client_order_id=self.client_order_id,
            broker_order_id=self.broker_order_id,
            exec_id=self.exec_id,
            exec_ref_id=self.exec_ref_id,
            exec_type=self.exec_type,
            order_status=self.order_status,
            side=self.side,
            order_quantity=self.order_qty,
            cum_quantity=self.cum_qty,
            leaves_quantity=self.leaves_qty,
            average_price=self.avg_px,
            last_quantity=self.last_qty,
            last_price=self.last_px,
            transact_time=self.transact_time,
            broker_seq=self.broker_seq,
            received_at=self.received_at,
            source=self.source,
            reject_code=self.reject_code,
            reject_class=self.reject_class,
            reason=self.reason,
            position_quantity=self.position_qty,
            commission=self.commission,
            currency=self.currency,
        )

    @classmethod
    def from_domain(cls, update: BrokerUpdate) -> Self:
        """Raises pydantic's ValidationError (a ValueError) for an update that no reader would accept."""
        return cls(
            event_id=update.event_id,
            broker=update.broker,
            account_id=update.account_id,
            symbol=update.symbol,
            client_order_id=update.client_order_id,
            broker_order_id=update.broker_order_id,
            exec_id=update.exec_id,
            exec_ref_id=update.exec_ref_id,
            exec_type=update.exec_type,
            order_status=update.order_status,
            side=update.side,
            order_qty=update.order_quantity,
            cum_qty=update.cum_quantity,
            leaves_qty=update.leaves_quantity,
            avg_px=update.average_price,
            last_qty=update.last_quantity,
            last_px=update.last_price,
            transact_time=update.transact_time,
            broker_seq=update.broker_seq,
            received_at=update.received_at,
            source=update.source,
            reject_code=update.reject_code,
            reject_class=update.reject_class,
            reason=update.reason,
            position_qty=update.position_quantity,
            commission=update.commission,
            currency=update.currency,
        )


def broker_fill_key(client_order_id: str) -> bytes:
    """The record key: the close request an id of ours names, so that one request's updates share a partition; a foreign
    client order id is its own key."""
    ours = parse_client_order_id(client_order_id)
    return (str(ours[0]) if ours else client_order_id).encode()
