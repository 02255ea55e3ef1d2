"""What we publish: the payloads of `submit-order`, `position-events` and `execution-events` (schemas/json).

Decimals are strings without an exponent, times RFC 3339 in UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Final, assert_never
from uuid import UUID

from closeflow.domain.ids import (
    correction_event_id,
    execution_event_id,
    position_event_id,
    reversal_event_id,
    submit_event_id,
)
from closeflow.domain.model import CloseRequest, Event, Order, Position, PositionStatus, RequestStatus, Side, Topic
from closeflow.domain.orders.execution_ledger import Corrected, Entry, Recorded, Reversed
from closeflow.domain.orders.status import signed
from closeflow.domain.text import EXACT, decimal_text, time_text

SUBMIT_CLOSE_ORDER: Final = "SUBMIT_CLOSE_ORDER"
POSITION_CLOSING: Final = "POSITION_CLOSING"
POSITION_REDUCED: Final = "POSITION_REDUCED"
POSITION_CLOSED: Final = "POSITION_CLOSED"
POSITION_OPEN: Final = "POSITION_OPEN"
CLOSE_REQUEST_RETRYABLE: Final = "CLOSE_REQUEST_RETRYABLE"
CLOSE_REQUEST_FAILED: Final = "CLOSE_REQUEST_FAILED"
POSITION_REOPENED: Final = "POSITION_REOPENED"
EXECUTION_RECORDED: Final = "EXECUTION_RECORDED"
EXECUTION_REVERSED: Final = "EXECUTION_REVERSED"
EXECUTION_CORRECTED: Final = "EXECUTION_CORRECTED"


_TYPE_OF_STATUS: Final = {
    PositionStatus.OPEN: POSITION_OPEN,
    PositionStatus.CLOSING: POSITION_CLOSING,
    PositionStatus.CLOSED: POSITION_CLOSED,
    PositionStatus.CLOSE_RETRYABLE: CLOSE_REQUEST_RETRYABLE,
    PositionStatus.CLOSE_FAILED: CLOSE_REQUEST_FAILED,
}


def _wire(values: Mapping[str, object]) -> dict[str, object]:
    """The values as JSON has them; absent ones are left out."""

    def one(value: object) -> object:
        match value:
            case Decimal():
                return decimal_text(value)
            case datetime():
                return time_text(value)
            case UUID():
                return str(value)
            case _:
                return value

    return {name: one(value) for name, value in values.items() if value is not None}


def submit_event(request: CloseRequest, quantity: Decimal, *, at: datetime) -> Event:
    """Ask for the request's current attempt. The quantity is information only: the plan is made from what is owed."""
    event_id = submit_event_id(request.id, request.attempt)
    return Event(
        topic=Topic.SUBMIT_ORDER,
        event_type=SUBMIT_CLOSE_ORDER,
        event_id=event_id,
        emission=request.emission,
        key=str(request.position_id),
        position_id=request.position_id,
        close_request_id=request.id,
        attempt=request.attempt,
        traceparent=request.traceparent,
        payload=_wire(
            {
                "event_id": event_id,
                "emission": request.emission,
                "close_request_id": request.id,
                "attempt": request.attempt,
                "position_id": request.position_id,
                "account_id": request.account_id,
                "symbol": request.symbol,
                "asset_type": request.asset_type,
                "side": request.side,
                "quantity": quantity,
                "order_type": request.order_type,
                "limit_price": request.limit_price,
                "max_slippage_bps": request.max_slippage_bps,
                "time_in_force": request.time_in_force,
                "deadline": request.deadline_at,
                "requested_at": at,
            }
        ),
    )


def position_event(before: Position, after: Position, request: CloseRequest | None, *, at: datetime) -> Event:
    """The state of a position after a change, under its new version; the type names the change's main point."""
    event_type = _position_event_type(before, after, request)
    event_id = position_event_id(after.id, after.version)
    return Event(
        topic=Topic.POSITION_EVENTS,
        event_type=event_type,
        event_id=event_id,
        key=str(after.id),
        position_id=after.id,
        position_version=after.version,
        close_request_id=request.id if request else None,
        attempt=request.attempt if request else None,
        traceparent=request.traceparent if request else None,
        payload=_wire(
            {
                "event_id": event_id,
                "event_type": event_type,
                "emission": 1,
                "position_id": after.id,
                "position_version": after.version,
                "account_id": after.account_id,
                "symbol": after.symbol,
                "asset_type": after.asset_type,
                "position_status": after.status,
                "quantity": after.quantity,
                "exposure_unproven": after.exposure_unproven,
                "close_request_id": request.id if request else None,
                "close_request_status": request.status if request else None,
                "filled_qty": request.filled_quantity if request else None,
                "target_qty": request.target_quantity if request else None,
                "reason": request.reason if request else None,
                "occurred_at": at,
            }
        ),
    )


def _position_event_type(before: Position, after: Position, request: CloseRequest | None) -> str:
    moved = before.status is not after.status
    if moved and after.status is PositionStatus.CLOSED:
        return POSITION_CLOSED
    if moved and before.status is PositionStatus.CLOSED:
        return POSITION_REOPENED
    if moved and request is not None and request.status is RequestStatus.FAILED:
        return CLOSE_REQUEST_FAILED
    return POSITION_REDUCED if before.quantity != after.quantity else _TYPE_OF_STATUS[after.status]


def ledger_event(position: Position, request: CloseRequest, order: Order, entry: Entry) -> Event:
    """One entry of the books for accounting. `cash_amount` is what the account receives (a sell is positive); that of a
    reversal takes back what the row it reverses brought, so the sum over all entries is what stands."""
    match entry:
        case Recorded(booked):
            event_type, named, reverses = EXECUTION_RECORDED, booked, None
        case Corrected(booked, replaced):
            event_type, named, reverses = EXECUTION_CORRECTED, booked, replaced
        case Reversed(booked, by):
            event_type, named, reverses = EXECUTION_REVERSED, by, booked
        case _:
            assert_never(entry)
    account = position.account_id
    if isinstance(entry, Reversed):
        event_id = reversal_event_id(named.broker, account, booked.exec_id, named.exec_id)
    elif isinstance(entry, Corrected):
        event_id = correction_event_id(named.broker, account, booked.exec_id, entry.replaced.exec_id)
    else:
        event_id = execution_event_id(named.broker, account, booked.exec_id)
    received = signed(booked.side, booked.quantity)
    if event_type != EXECUTION_REVERSED:
        received = received.copy_negate()
    cash = EXACT.multiply(EXACT.multiply(received, booked.price), position.multiplier)
    cash = EXACT.plus(cash)  # Nothing is paid, not minus nothing.
    return Event(
        topic=Topic.EXECUTION_EVENTS,
        event_type=event_type,
        event_id=event_id,
        key=str(position.id),
        position_id=position.id,
        close_request_id=request.id,
        attempt=order.attempt,
        traceparent=request.traceparent,
        payload=_wire(
            {
                "event_id": event_id,
                "event_type": event_type,
                "emission": 1,
                "exec_id": named.exec_id,
                "broker": named.broker,
                "account_id": position.account_id,
                "position_id": position.id,
                "close_request_id": order.close_request_id,
                "client_order_id": order.client_order_id,
                "symbol": position.symbol,
                "side": Side(booked.side),
                "quantity": booked.quantity,
                "price": booked.price,
                "multiplier": position.multiplier,
                "cash_amount": cash,
                "currency": position.currency,
                "reverses_exec_id": reverses.exec_id if reverses is not None else None,
                "occurred_at": named.occurred_at,
            }
        ),
    )
