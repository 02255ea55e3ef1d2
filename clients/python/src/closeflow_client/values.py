"""What the server answers, as values. Statuses and the like are plain text: a newer server may know more of them.
Quantities are Decimals, times have an offset; members that this client does not know are passed over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

from closeflow_client.errors import AnswerUnreadable

Item = TypeVar("Item")
Values = Mapping[str, Any]
"""An object of an answer, whichever way it came: numbers are Decimal or int, times text or datetime."""

FINAL: Final = frozenset({"completed", "failed"})
"""The statuses in which a close request ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseRequest:
    """An accepted close, and how far it is. Quantities are unsigned."""

    close_request_id: UUID
    position_id: int
    position_status: str
    """`open`, `closing`, `closed`, `close_retryable`, `close_failed`, or newer."""
    close_request_status: str
    """`pending`, `submitted`, `retryable`, `completed`, `failed`, or newer."""
    symbol: str
    side: str
    target_qty: Decimal
    filled_qty: Decimal
    remaining_qty: Decimal
    retry_count: int
    created_at: datetime | None
    submitted_at: datetime | None
    completed_at: datetime | None
    reason: str | None
    key: str | None = None
    """The idempotency key, where a close was asked for."""
    replayed: bool = False
    """The key had been accepted before: by an earlier call, or by an attempt of this one whose answer was lost."""

    @property
    def final(self) -> bool:
        """Whether it is over."""
        return self.close_request_status in FINAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A position as it is now; a short one has a negative quantity. `version` goes into `if_version` of a close."""

    position_id: int
    account_id: str
    symbol: str
    asset_type: str
    position_status: str
    quantity: Decimal
    opening_qty: Decimal
    multiplier: Decimal
    currency: str
    exposure_unproven: bool
    active_close_request_id: UUID | None
    closed_at: datetime | None
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosePlan:
    """The order that a close would begin with; without a `limit_price` it would be priced from the market."""

    position_id: int
    symbol: str
    side: str
    quantity: Decimal
    order_type: str
    limit_price: Decimal | None
    time_in_force: str


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """Some of a list; `next_page_token` is empty at its end."""

    items: tuple[Item, ...]
    next_page_token: str


def read_close_request(values: Values, *, key: str | None = None, replayed: bool = False) -> CloseRequest:
    """Raises AnswerUnreadable."""
    read = _Reader(values)
    return CloseRequest(
        close_request_id=read("close_request_id", _uuid),
        position_id=read("position_id", _whole),
        position_status=read("position_status", _text),
        close_request_status=read("close_request_status", _text),
        symbol=read("symbol", _text),
        side=read("side", _text),
        target_qty=read("target_qty", _decimal),
        filled_qty=read("filled_qty", _decimal),
        remaining_qty=read("remaining_qty", _decimal),
        retry_count=read("retry_count", _whole),
        created_at=read.optional("created_at", _time),
        submitted_at=read.optional("submitted_at", _time),
        completed_at=read.optional("completed_at", _time),
        reason=read.optional("reason", _text),
        key=key,
        replayed=replayed,
    )


def read_close_plan(values: Values) -> ClosePlan:
    """Raises AnswerUnreadable."""
    answer = _Reader(values)
    read = _Reader(answer("order", _mapping))
    return ClosePlan(
        position_id=answer("position_id", _whole),
        symbol=read("symbol", _text),
        side=read("side", _text),
        quantity=read("quantity", _decimal),
        order_type=read("order_type", _text),
        limit_price=read.optional("limit_price", _decimal),
        time_in_force=read("time_in_force", _text),
    )


def read_position(values: Values) -> Position:
    """Raises AnswerUnreadable."""
    read = _Reader(values)
    return Position(
        position_id=read("position_id", _whole),
        account_id=read("account_id", _text),
        symbol=read("symbol", _text),
        asset_type=read("asset_type", _text),
        position_status=read("position_status", _text),
        quantity=read("quantity", _decimal),
        opening_qty=read("opening_qty", _decimal),
        multiplier=read("multiplier", _decimal),
        currency=read("currency", _text),
        exposure_unproven=read("exposure_unproven", _bool),
        active_close_request_id=read.optional("active_close_request_id", _uuid),
        closed_at=read.optional("closed_at", _time),
        version=read("version", _whole),
    )


def read_page(values: Values, name: str, read: Callable[[Values], Item]) -> Page[Item]:
    """The page whose items are under `name`. Raises AnswerUnreadable."""
    found = _Reader(values)
    items = found(name, _list)
    return Page(tuple(map(read, items)), found.optional("next_page_token", _text) or "")


@dataclass(frozen=True, slots=True)
class _Reader:
    values: Values

    def __call__(self, name: str, read: Callable[[Any], Item]) -> Item:
        found = self.optional(name, read)
        if found is None:
            raise AnswerUnreadable(f"the answer has no {name}")
        return found

    def optional(self, name: str, read: Callable[[Any], Item]) -> Item | None:
        if not isinstance(self.values, Mapping):
            raise AnswerUnreadable("the answer is not an object")
        value = self.values.get(name)
        try:
            return None if value is None else read(value)
        except (ValueError, TypeError, InvalidOperation):
            raise AnswerUnreadable(f"the answer's {name} cannot be read: {str(value)[:100]!r}") from None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(value)
    return value


def _bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(value)
    return value


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(value)
    return value


def _mapping(value: object) -> Values:
    if not isinstance(value, Mapping):
        raise TypeError(value)
    return value


def _uuid(value: object) -> UUID:
    return UUID(str(value))


def _decimal(value: object) -> Decimal:
    if isinstance(value, float):
        raise TypeError(value)
    found = Decimal(str(value))
    if not found.is_finite():
        raise ValueError(value)
    return found


def _time(value: object) -> datetime:
    found = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    if found.utcoffset() is None:
        raise ValueError(value)
    return found
