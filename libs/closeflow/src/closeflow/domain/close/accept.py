"""Decide whether a close is accepted (moves P1, P8 and C1 of lifecycle.md).

The checks run in this order: ownership, replay and fingerprint, halt, closed, zero, active, exposure, quantity. So a
repeated key gets its first answer whatever became of the position since.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

from closeflow.domain.close.outcome import publish_position
from closeflow.domain.frozen import replace
from closeflow.domain.lots import LOT_DIGITS, is_residual, tradable
from closeflow.domain.model import (
    ZERO,
    AssetType,
    Book,
    CloseRequest,
    Event,
    OrderType,
    Position,
    PositionStatus,
    RequestStatus,
    Side,
    TimeInForce,
)
from closeflow.domain.outbox.events import submit_event
from closeflow.domain.position.exposure import is_clear
from closeflow.domain.position.freeze import is_frozen
from closeflow.domain.text import decimal_text
from closeflow.domain.trading_controls import TradingState

WORKING_TIMEOUT_S: Final = 60
MAX_RETRIES: Final = 3
TIME_IN_FORCE: Final[Mapping[AssetType, TimeInForce]] = {
    AssetType.STOCK: TimeInForce.DAY,  # Whole and fractional: the broker takes fractional shares for the day only.
    AssetType.OPTION: TimeInForce.DAY,
    AssetType.CRYPTO: TimeInForce.GTC,  # The market has no day.
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseCommand:
    """One call to close a position. `request_id` is the id a new request would get; a replay keeps the first one.

    `quantity` None means all of it that can be traded. `accounts` None means every account.
    """

    request_id: UUID
    position_id: int
    idempotency_key: str
    requested_by: str
    accounts: frozenset[str] | None = None
    only: AssetType | None = None
    """The asset type the route is for; a position of another type is not found there."""
    quantity: Decimal | None = None
    order_type: OrderType = OrderType.LIMIT
    limit_price: Decimal | None = None
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """The book with its new request; the events belong in the same transaction."""

    book: Book
    request: CloseRequest
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Replayed:
    """The key was used for the same close before: its request, and the position, as they are now."""

    position: Position
    request: CloseRequest


@dataclass(frozen=True, slots=True)
class KeyReused:
    """The key named another close of this position before."""

    request_id: UUID


@dataclass(frozen=True, slots=True)
class NotFound:
    """No such position, or not one of the caller's, or not of the route's asset type: the caller sees no difference."""

    position_id: int


@dataclass(frozen=True, slots=True)
class TradingHalted:
    """The kill switch stops every new close, of this account or of all."""

    position_id: int


@dataclass(frozen=True, slots=True)
class PositionClosed:
    """Nothing is left to close."""

    position_id: int


@dataclass(frozen=True, slots=True)
class ZeroQuantity:
    """What is left is below the smallest quantity that can be traded."""

    position_id: int


@dataclass(frozen=True, slots=True)
class AlreadyClosing:
    """`active_request_id` is absent only while a disagreement between position and requests waits for its repair."""

    position_id: int
    active_request_id: UUID | None


@dataclass(frozen=True, slots=True)
class ExposureUnproven:
    """An earlier order may still fill, or filled by an amount that cannot be named yet, or a request is frozen."""

    position_id: int


@dataclass(frozen=True, slots=True)
class QuantityInvalid:
    """Not a quantity of this position that can be traded; `message` says why, to the caller."""

    position_id: int
    message: str


Refused = (
    KeyReused
    | NotFound
    | TradingHalted
    | PositionClosed
    | ZeroQuantity
    | AlreadyClosing
    | ExposureUnproven
    | QuantityInvalid
)
Decision = Accepted | Replayed | Refused


def accept_close(
    book: Book | None, command: CloseCommand, existing: CloseRequest | None, *, trading: TradingState, now: datetime
) -> Decision:
    """Decide one close. `existing` is the request that has the command's key on this position, whatever its state;
    `trading` is the state of the position's account, read in the same transaction."""
    if book is None or not _may_see(book.position, command):
        return NotFound(command.position_id)
    position = book.position
    if existing is not None:
        same = existing.fingerprint == fingerprint(command)
        return Replayed(position, existing) if same else KeyReused(existing.id)
    if trading is TradingState.HALTED:
        return TradingHalted(position.id)
    if position.status is PositionStatus.CLOSED:
        return PositionClosed(position.id)
    if is_residual(position.asset_type, position.quantity):
        return ZeroQuantity(position.id)
    active = _active_request_id(book)
    if active is not None or position.status not in (PositionStatus.OPEN, PositionStatus.CLOSE_FAILED):
        return AlreadyClosing(position.id, active)
    if position.exposure_unproven or book.disputed or not is_clear(book) or is_frozen(book):
        return ExposureUnproven(position.id)
    everything = tradable(position.asset_type, position.quantity)
    target = everything if command.quantity is None else command.quantity
    problem = _quantity_problem(position, target)
    if problem is not None:
        return QuantityInvalid(position.id, problem)
    return _accept(book, _new_request(position, command, target, now), now)


def fingerprint(command: CloseCommand) -> str:
    """SHA-256 of what the caller asked for, after defaults, so an empty body equals one that spells them out.

    Only what differs from its default is in the text: a field added later leaves the fingerprints of today as they
    are. Equal decimals give equal text (10, 10.0, 1E+1).
    """
    asked = {
        "limit_price": None if command.limit_price is None else decimal_text(command.limit_price),
        "order_type": None if command.order_type is OrderType.LIMIT else command.order_type.value,
        "quantity": None if command.quantity is None else decimal_text(command.quantity),
    }
    text = "\n".join(f"{name}={value}" for name, value in sorted(asked.items()) if value is not None)
    return hashlib.sha256(text.encode()).hexdigest()


def _may_see(position: Position, command: CloseCommand) -> bool:
    if command.only is not None and position.asset_type is not command.only:
        return False
    return command.accounts is None or position.account_id in command.accounts


def _active_request_id(book: Book) -> UUID | None:
    if book.position.active_close_request_id is not None:
        return book.position.active_close_request_id
    return next((request.id for request in book.requests.values() if request.unfinished), None)


def _quantity_problem(position: Position, target: Decimal) -> str | None:
    size = abs(position.quantity)
    if not target.is_finite() or target <= ZERO:
        return "must be greater than 0"
    if target > size:
        return f"must not exceed the position: {decimal_text(size)}"
    digits = LOT_DIGITS[position.asset_type]
    if len(decimal_text(target).partition(".")[2]) <= digits:
        return None
    if digits == 0:
        return f"must be whole: {position.asset_type.value} positions are closed in whole contracts"
    return f"must have at most {digits} digits after the point"


def _new_request(position: Position, command: CloseCommand, target: Decimal, now: datetime) -> CloseRequest:
    return CloseRequest(
        id=command.request_id,
        position_id=position.id,
        account_id=position.account_id,
        idempotency_key=command.idempotency_key,
        fingerprint=fingerprint(command),
        requested_by=command.requested_by,
        status=RequestStatus.PENDING,
        symbol=position.symbol,
        side=Side.SELL if position.quantity > ZERO else Side.BUY,
        asset_type=position.asset_type,
        target_quantity=target,
        filled_quantity=ZERO,
        order_type=command.order_type,
        limit_price=command.limit_price,
        time_in_force=TIME_IN_FORCE[position.asset_type],
        working_timeout_s=WORKING_TIMEOUT_S,
        max_retries=MAX_RETRIES,
        traceparent=command.traceparent,
        created_at=now,
    )


def _accept(book: Book, request: CloseRequest, now: datetime) -> Accepted:
    closing = replace(book.position, status=PositionStatus.CLOSING, active_close_request_id=request.id)
    after = replace(book, position=closing, requests={**book.requests, request.id: request})
    after, published = publish_position(book, after, request, now=now)
    return Accepted(after, request, (submit_event(request, request.target_quantity, at=now), *published))
