"""Decide whether a close is accepted (moves P1, P8 and C1 of lifecycle.md).

The checks run in this order: ownership, replay and fingerprint, halt, closed, zero, active, exposure, version,
quantity and the other fields. So a repeated key gets its first answer whatever became of the position since.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

from closeflow.domain.close.pricing import time_in_force
from closeflow.domain.frozen import quick, replace
from closeflow.domain.lots import LOT_DIGITS, LOTS, is_residual, tradable
from closeflow.domain.model import (
    ZERO,
    AssetType,
    Book,
    CloseRequest,
    Event,
    OrderType,
    Position,
    PositionCause,
    PositionStatus,
    RequestStatus,
    Side,
    TimeInForce,
)
from closeflow.domain.outbox.events import position_event, submit_event
from closeflow.domain.position.exposure import is_clear
from closeflow.domain.position.freeze import is_frozen
from closeflow.domain.text import EXACT, decimal_text, time_text
from closeflow.domain.trading_controls import TradingState

WORKING_TIMEOUT_S: Final = 60
MAX_RETRIES: Final = 3
ALL: Final = Decimal(100)
"""The percentage that is the default."""
TIME_IN_FORCE: Final[Mapping[AssetType, TimeInForce]] = {
    AssetType.STOCK: TimeInForce.DAY,  # Whole and fractional: the broker takes fractional shares for the day only.
    AssetType.OPTION: TimeInForce.DAY,
    AssetType.CRYPTO: TimeInForce.GTC,  # The market has no day.
}


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class CloseCommand:
    """One call to close a position. `request_id` is the id a new request would get; a replay keeps the first one.

    `quantity` None means all of it that can be traded, or `percentage` of it (above 0, at most 100, rounded down to
    the lot). `accounts` None means every account. `expected_quantity` is signed as the position's own.
    """

    request_id: UUID
    position_id: int
    idempotency_key: str
    requested_by: str
    accounts: frozenset[str] | None = None
    only: AssetType | None = None
    """The asset type the route is for; a position of another type is not found there."""
    quantity: Decimal | None = None
    percentage: Decimal | None = None
    order_type: OrderType = OrderType.LIMIT
    limit_price: Decimal | None = None
    max_slippage_bps: int | None = None
    time_in_force: TimeInForce | None = None
    working_timeout_s: int = WORKING_TIMEOUT_S
    deadline_at: datetime | None = None
    expected_quantity: Decimal | None = None
    expected_version: int | None = None
    reason: str | None = None
    """The caller's own words, kept with the request."""
    dry_run: bool = False
    """Every check is made and nothing is kept."""
    traceparent: str | None = None


@quick
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
class ExpectationFailed:
    """The position is not as the caller knew it: its quantity and version now."""

    position_id: int
    quantity: Decimal
    version: int


@dataclass(frozen=True, slots=True)
class FieldInvalid:
    """A field that does not fit this position; `message` says why, to the caller."""

    position_id: int
    field: str
    message: str


Refused = (
    KeyReused
    | NotFound
    | TradingHalted
    | PositionClosed
    | ZeroQuantity
    | AlreadyClosing
    | ExposureUnproven
    | ExpectationFailed
    | FieldInvalid
)
Decision = Accepted | Replayed | Refused


def accept_close(
    book: Book | None, command: CloseCommand, existing: CloseRequest | None, *, trading: TradingState, now: datetime
) -> Decision:
    """Decide one close. `existing` is the request that has the command's key on this position, whatever its state;
    `trading` is the state of the position's account, read in the same transaction."""
    if book is None or not may_see(book.position, command):
        return NotFound(command.position_id)
    position = book.position
    if existing is not None:
        same = existing.fingerprint == fingerprint(command, position.asset_type)
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
    if not _as_expected(position, command):
        return ExpectationFailed(position.id, position.quantity, position.version)
    target = _target(position, command)
    problem = _field_problem(position, command, target, now)
    if problem is not None:
        return FieldInvalid(position.id, *problem)
    return _accept(book, _new_request(position, command, target, now), now)


def fingerprint(command: CloseCommand, asset_type: AssetType) -> str:
    """SHA-256 of what the caller asked for, after defaults, so an empty body equals one that spells them out.

    Only what differs from its default is in the text, by name: a field added later leaves the fingerprints of today as
    they are. Equal decimals give equal text (10, 10.0, 1E+1). The expected version is no part of it: it says what the
    caller knew, not what is asked for, and a repetition may know more.
    """
    asked: dict[str, object] = {
        "deadline": None if command.deadline_at is None else time_text(command.deadline_at),
        "expected_quantity": _decimal_or_none(command.expected_quantity),
        "limit_price": _decimal_or_none(command.limit_price),
        "max_slippage_bps": command.max_slippage_bps,
        "order_type": None if command.order_type is OrderType.LIMIT else command.order_type.value,
        "percentage": None if command.percentage == ALL else _decimal_or_none(command.percentage),
        "quantity": _decimal_or_none(command.quantity),
        "reason": command.reason,
        "time_in_force": None if command.time_in_force is TIME_IN_FORCE[asset_type] else command.time_in_force,
        "working_timeout_s": None if command.working_timeout_s == WORKING_TIMEOUT_S else command.working_timeout_s,
    }
    given = [f"{name}={value}" for name, value in asked.items() if value is not None]
    return hashlib.sha256("\n".join(given).encode()).hexdigest() if given else _OF_DEFAULTS


_OF_DEFAULTS: Final = hashlib.sha256(b"").hexdigest()


def _decimal_or_none(value: Decimal | None) -> str | None:
    return None if value is None else decimal_text(value)


def may_see(position: Position, command: CloseCommand) -> bool:
    """Whether the position is there for who sent the command, and on the route that it came by."""
    if command.only is not None and position.asset_type is not command.only:
        return False
    return command.accounts is None or position.account_id in command.accounts


def _active_request_id(book: Book) -> UUID | None:
    if book.position.active_close_request_id is not None:
        return book.position.active_close_request_id
    return next((request.id for request in book.requests.values() if request.unfinished), None)


def _as_expected(position: Position, command: CloseCommand) -> bool:
    if command.expected_version is not None and command.expected_version != position.version:
        return False
    return command.expected_quantity is None or command.expected_quantity == position.quantity


def _target(position: Position, command: CloseCommand) -> Decimal:
    if command.quantity is not None:
        return command.quantity
    everything = tradable(position.asset_type, position.quantity)
    if command.percentage is None:
        return everything
    return tradable(position.asset_type, EXACT.divide(EXACT.multiply(everything, command.percentage), ALL))


def _field_problem(position: Position, command: CloseCommand, target: Decimal, now: datetime) -> tuple[str, str] | None:
    """The first field that does not fit, and why."""
    if command.percentage is not None and target == ZERO:
        lot = decimal_text(LOTS[position.asset_type])
        return "percentage", f"comes to less than the smallest quantity of a {position.asset_type.value}, {lot}"
    wrong = _quantity_problem(position, target)
    if wrong is not None:
        return "quantity", wrong
    asked = command.time_in_force
    if asked is not None and (possible := time_in_force(position.asset_type, target, asked)) is not asked:
        return "time_in_force", f"must be {possible.value} for this quantity of {position.asset_type.value}"
    if command.deadline_at is not None and command.deadline_at <= now:
        return "deadline", f"must be in the future; it is {time_text(now)} now"
    return None


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
        fingerprint=fingerprint(command, position.asset_type),
        requested_by=command.requested_by,
        status=RequestStatus.PENDING,
        symbol=position.symbol,
        side=Side.SELL if position.quantity > ZERO else Side.BUY,
        asset_type=position.asset_type,
        target_quantity=target,
        filled_quantity=ZERO,
        order_type=command.order_type,
        limit_price=command.limit_price,
        requested_reason=command.reason,
        max_slippage_bps=command.max_slippage_bps,
        time_in_force=command.time_in_force or TIME_IN_FORCE[position.asset_type],
        working_timeout_s=command.working_timeout_s,
        deadline_at=command.deadline_at,
        max_retries=MAX_RETRIES,
        traceparent=command.traceparent,
        created_at=now,
    )


def _accept(book: Book, request: CloseRequest, now: datetime) -> Accepted:
    before = book.position
    closing = replace(
        before, status=PositionStatus.CLOSING, active_close_request_id=request.id, version=before.version + 1
    )
    after = replace(book, position=closing, requests={**book.requests, request.id: request})
    submit = submit_event(request, request.target_quantity, at=now)
    accepted = position_event(before, closing, request, cause=PositionCause.CLOSE_ACCEPTED, at=now)
    return Accepted(after, request, (submit, accepted))
