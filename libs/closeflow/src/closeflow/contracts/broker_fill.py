"""`broker-fill.v1`: what the broker said, whatever the door. Field names follow FIX."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar, Final, Self

from pydantic import model_validator

from closeflow.contracts.wire import (
    AsideCurrency,
    AsideName,
    AsideNumber,
    AsidePrice,
    BrokerSeq,
    Id,
    Name,
    Note,
    PositiveDecimal,
    Price,
    Time,
    UnsignedDecimal,
    WireModel,
    is_time,
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
    ExecType.CHARGE: ("exec_id", "exec_ref_id"),
}

_KINDS: Final = frozenset(ExecType)
_OF_KINDS: Final = {
    "exec_id": frozenset(_REQUIRED),
    "exec_ref_id": frozenset({ExecType.TRADE_CANCEL, ExecType.TRADE_CORRECT, ExecType.CHARGE}),
    "last_qty": frozenset({ExecType.TRADE, ExecType.TRADE_CORRECT}),
    "last_px": frozenset({ExecType.TRADE, ExecType.TRADE_CORRECT}),
    "reject_class": _KINDS - frozenset(_REQUIRED),
    "commission": frozenset({ExecType.TRADE, ExecType.TRADE_CORRECT, ExecType.CHARGE}),
    "fees": frozenset({ExecType.TRADE, ExecType.TRADE_CORRECT, ExecType.CHARGE}),
}
"""What only these kinds of update have a use for."""


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
    avg_px: AsidePrice = None
    last_qty: PositiveDecimal | None = None
    last_px: Price | None = None
    transact_time: Time
    broker_seq: BrokerSeq | None = None
    received_at: Time
    source: UpdateSource
    reject_code: AsideName = None
    reject_class: RejectClass | None = None
    reason: Note | None = None
    position_qty: AsideNumber = None
    commission: AsideNumber = None
    fees: AsideNumber = None
    currency: AsideCurrency = None

    @model_validator(mode="before")
    @classmethod
    def _leave_out_what_says_nothing(cls, values: Any) -> Any:
        """An empty text is no value, and what the kind of update has no use for is not looked at (FIX sends LastQty 0
        with an acknowledgement). A time that cannot be read, or a zero one, gives way to when we heard of it: no fill
        may be lost for it."""
        if not isinstance(values, dict):
            return values
        kept = {name: value for name, value in values.items() if value != "" or name not in _OPTIONAL}
        kind = kept.get("exec_type")
        if isinstance(kind, str) and kind in _KINDS:
            for name in _OF_KINDS.keys() & kept.keys():
                if kind not in _OF_KINDS[name]:
                    del kept[name]
        if {"transact_time", "received_at"} <= set(kept) and not is_time(kept["transact_time"]):
            kept["transact_time"] = kept["received_at"]
        return kept

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
        """The same values; `from_domain` of it makes an equal record. The broker's own `message` is not in it."""
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
            fees=self.fees,
            currency=self.currency,
        )

    @classmethod
    def from_domain(cls, update: BrokerUpdate) -> Self:
        """Raises pydantic's ValidationError (a ValueError) for an update that no reader would accept."""
        return cls.model_validate({name: value for name, value in _fields(update).items() if value is not None})


_OPTIONAL: Final = frozenset(name for name, field in BrokerFillV1.model_fields.items() if not field.is_required())


def broken_broker_fill(update: BrokerUpdate) -> bytes:
    """The value for an update that `from_domain` refuses: every field under its name and as the broker stated it, so
    that the reader names the one that is wrong, and reads the record when it comes again after a repair; beside them
    the broker's own message."""
    fields = {name: _as_stated(value) for name, value in _fields(update).items() if value is not None}
    return json.dumps({**fields, "broker_message": update.message}, default=str).encode()


def _as_stated(value: object) -> object:
    match value:
        case Decimal() if value.is_finite():
            return format(value, "f")
        case datetime():
            return value.isoformat()
        case int():
            return value
        case _:
            return str(value)


def _fields(update: BrokerUpdate) -> dict[str, Any]:
    return {
        "event_id": update.event_id,
        "broker": update.broker,
        "account_id": update.account_id,
        "symbol": update.symbol,
        "client_order_id": update.client_order_id,
        "broker_order_id": update.broker_order_id,
        "exec_id": update.exec_id,
        "exec_ref_id": update.exec_ref_id,
        "exec_type": update.exec_type,
        "order_status": update.order_status,
        "side": update.side,
        "order_qty": update.order_quantity,
        "cum_qty": update.cum_quantity,
        "leaves_qty": update.leaves_quantity,
        "avg_px": update.average_price,
        "last_qty": update.last_quantity,
        "last_px": update.last_price,
        "transact_time": update.transact_time,
        "broker_seq": update.broker_seq,
        "received_at": update.received_at,
        "source": update.source,
        "reject_code": update.reject_code,
        "reject_class": update.reject_class,
        "reason": update.reason,
        "position_qty": update.position_quantity,
        "commission": update.commission,
        "fees": update.fees,
        "currency": update.currency,
    }


def broker_fill_key(client_order_id: str) -> bytes:
    """The record key: the close request an id of ours names, so that one request's updates share a partition; a foreign
    client order id is its own key, whatever characters it has."""
    ours = parse_client_order_id(client_order_id)
    return (str(ours[0]) if ours else client_order_id).encode(errors="backslashreplace")
