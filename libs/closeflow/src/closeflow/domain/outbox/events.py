"""What we publish about requests, positions and executions: which event a change makes, and what it says."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Final, assert_never

from closeflow.domain.ids import (
    charge_event_id,
    correction_event_id,
    execution_event_id,
    position_event_id,
    reversal_event_id,
    submit_event_id,
)
from closeflow.domain.model import (
    ZERO,
    Charge,
    CloseRequest,
    Event,
    Order,
    Payload,
    Position,
    PositionCause,
    PositionStatus,
    RequestStatus,
    Side,
)
from closeflow.domain.orders.execution_ledger import Charged, Corrected, Entry, Recorded, Reversed
from closeflow.domain.outbox.payloads import ExecutionPayload, PositionPayload, SubmitOrderPayload
from closeflow.domain.text import EXACT

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
EXECUTION_CHARGED: Final = "EXECUTION_CHARGED"
_TYPE_OF_STATUS: Final = {
    PositionStatus.OPEN: POSITION_OPEN,
    PositionStatus.CLOSING: POSITION_CLOSING,
    PositionStatus.CLOSED: POSITION_CLOSED,
    PositionStatus.CLOSE_RETRYABLE: CLOSE_REQUEST_RETRYABLE,
    PositionStatus.CLOSE_FAILED: CLOSE_REQUEST_FAILED,
}


def submit_event(request: CloseRequest, quantity: Decimal, *, at: datetime) -> Event:
    """Ask for the request's current attempt."""
    payload = SubmitOrderPayload(
        event_id=submit_event_id(request.id, request.attempt),
        emission=request.emission,
        position_id=request.position_id,
        account_id=request.account_id,
        symbol=request.symbol,
        close_request_id=request.id,
        attempt=request.attempt,
        asset_type=request.asset_type,
        side=request.side,
        quantity=quantity,
        order_type=request.order_type,
        limit_price=request.limit_price,
        max_slippage_bps=request.max_slippage_bps,
        time_in_force=request.time_in_force,
        deadline=request.deadline_at,
        requested_at=at,
    )
    return _event(SUBMIT_CLOSE_ORDER, payload, request)


def position_event(
    before: Position,
    after: Position,
    request: CloseRequest | None,
    *,
    cause: PositionCause,
    average_price: Decimal | None = None,
    at: datetime,
) -> Event:
    """The state of a position after a change, under its new version; the type names the change's main point.
    `average_price` is of all that the request has filled."""
    payload = PositionPayload(
        event_id=position_event_id(after.id, after.version),
        position_id=after.id,
        account_id=after.account_id,
        symbol=after.symbol,
        event_type=_position_event_type(before, after, request),
        cause=cause,
        position_version=after.version,
        asset_type=after.asset_type,
        multiplier=after.multiplier,
        currency=after.currency,
        position_status=after.status,
        quantity=after.quantity,
        quantity_change=after.quantity - before.quantity,
        opening_qty=after.opening_quantity,
        exposure_unproven=after.exposure_unproven,
        close_request_id=request.id if request else None,
        close_request_status=request.status if request else None,
        side=request.side if request else None,
        target_qty=request.target_quantity if request else None,
        filled_qty=request.filled_quantity if request else None,
        average_price=average_price,
        reason=request.reason if request else None,
        closed_at=after.closed_at,
        occurred_at=at,
    )
    return _event(payload.event_type, payload, request, position_version=after.version)


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
    """One entry of the books for accounting; the sum of `net_amount` over all entries is what stands."""
    account = position.account_id
    charge_id, currency = None, position.currency
    match entry:
        case Recorded(booked, charge):
            event_type, named, reverses = EXECUTION_RECORDED, booked, None
            event_id = execution_event_id(named.broker, account, booked.exec_id)
            commission, fees = _charged(charge)
        case Corrected(booked, replaced, charge):
            event_type, named, reverses = EXECUTION_CORRECTED, booked, replaced
            event_id = correction_event_id(named.broker, account, booked.exec_id, replaced.exec_id)
            commission, fees = _charged(charge)
        case Reversed(booked, by, charge):
            event_type, named, reverses = EXECUTION_REVERSED, by, booked
            event_id = reversal_event_id(named.broker, account, booked.exec_id, named.exec_id)
            commission, fees = _charged(None, less=charge)
        case Charged(booked, charge, instead):
            event_type, named, reverses = EXECUTION_CHARGED, booked, None
            event_id = charge_event_id(named.broker, account, charge.charge_id, booked.exec_id)
            commission, fees = _charged(charge, less=instead)
            charge_id, currency = charge.charge_id, charge.currency or currency
        case _:
            assert_never(entry)
    cash = cash_amount(
        event_type, side=booked.side, quantity=booked.quantity, price=booked.price, multiplier=position.multiplier
    )
    payload = ExecutionPayload(
        event_id=event_id,
        position_id=position.id,
        account_id=account,
        symbol=position.symbol,
        event_type=event_type,
        exec_id=named.exec_id,
        charge_id=charge_id,
        broker=named.broker,
        close_request_id=order.close_request_id,
        client_order_id=order.client_order_id,
        side=Side(booked.side),
        quantity=booked.quantity,
        price=booked.price,
        multiplier=position.multiplier,
        cash_amount=cash,
        commission=commission,
        fees=fees,
        net_amount=net_amount(cash, commission, fees),
        currency=currency,
        reverses_exec_id=reverses.exec_id if reverses is not None else None,
        occurred_at=entry.charge.occurred_at if isinstance(entry, Charged) else named.occurred_at,
    )
    return _event(event_type, payload, request, attempt=order.attempt)


def cash_amount(event_type: str, *, side: Side, quantity: Decimal, price: Decimal, multiplier: Decimal) -> Decimal:
    """What the account receives (a sell) or pays (a buy, negative), exact, before commission and fees; a reversal has
    the opposite sign, and a charge moves nothing but commission and fees."""
    if event_type == EXECUTION_CHARGED:
        return ZERO
    value = EXACT.multiply(EXACT.multiply(quantity, price), multiplier)
    receives = (side is Side.SELL) != (event_type == EXECUTION_REVERSED)
    return value if receives else EXACT.minus(value)  # Nothing is paid, not minus nothing.


def net_amount(cash: Decimal, commission: Decimal | None, fees: Decimal | None) -> Decimal:
    """By how much the event changes the account's cash, exact."""
    return EXACT.subtract(EXACT.subtract(cash, commission or ZERO), fees or ZERO)


def _charged(charge: Charge | None, *, less: Charge | None = None) -> tuple[Decimal | None, Decimal | None]:
    """Commission and fees of an entry; absent where the broker has stated neither."""
    if charge is None and less is None:
        return None, None
    commission = (charge.commission if charge else ZERO) - (less.commission if less else ZERO)
    return commission, (charge.fees if charge else ZERO) - (less.fees if less else ZERO)


def _event(
    event_type: str,
    payload: Payload,
    request: CloseRequest | None,
    *,
    attempt: int | None = None,
    position_version: int | None = None,
) -> Event:
    """Of the request's current attempt, unless another one is named."""
    if attempt is None and request is not None:
        attempt = request.attempt
    return Event(
        topic=payload.TOPIC,
        event_type=event_type,
        payload=payload,
        event_id=payload.event_id,
        emission=payload.emission,
        key=str(payload.position_id),
        position_id=payload.position_id,
        close_request_id=request.id if request else None,
        attempt=attempt,
        position_version=position_version,
        traceparent=request.traceparent if request else None,
    )
