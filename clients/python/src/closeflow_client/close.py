"""What a caller asks for, checked before anything is sent: no float, no time without an offset."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Literal, TypedDict, get_args
from uuid import UUID

from closeflow_client.keys import check_key, key_in_batch, new_key

MAX_POSITION_ID: Final = 2**63 - 1
MAX_INT: Final = 2**31 - 1
_MOST_DIGITS: Final = 40
Number = Decimal | int
OrderType = Literal["limit", "market"]
TimeInForce = Literal["day", "gtc", "ioc"]


class CloseTerms(TypedDict, total=False):
    """How a position is closed; `Close` says what each means. Without any, the whole position is closed with a limit
    order that is priced from the market, under a new key."""

    key: str | None
    quantity: Number | None
    percentage: Number | None
    order_type: OrderType | None
    limit_price: Number | None
    max_slippage_bps: int | None
    time_in_force: TimeInForce | None
    working_timeout_seconds: int | None
    deadline: datetime | None
    expected_quantity: Number | None
    if_version: int | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Close:
    """One close that is meant. What cannot be sent raises TypeError (a float) or ValueError (a datetime without an
    offset) here; whether it fits the position is for the server to judge."""

    position_id: int
    key: str | None = None
    """The idempotency key; None makes one. Keep it (or what it is made of) where it survives a crash."""
    quantity: Number | None = None
    """Unsigned; not with `percentage`."""
    percentage: Number | None = None
    """Above 0, at most 100, of the position; rounded down to its lot."""
    order_type: OrderType | None = None
    """`limit` by default."""
    limit_price: Number | None = None
    """By default the market's, anew for each attempt."""
    max_slippage_bps: int | None = None
    """Basis points from the mid that the price may give up; not with `limit_price`."""
    time_in_force: TimeInForce | None = None
    """`day` by default, `gtc` for crypto."""
    working_timeout_seconds: int | None = None
    """After which a working order is cancelled and priced anew."""
    deadline: datetime | None = None
    """After which nothing is sent to the broker any more, and the close fails."""
    expected_quantity: Number | None = None
    """Refuse the close unless the position has this quantity, signed as it is shown."""
    if_version: int | None = None
    """Refuse the close unless the position has this version."""
    reason: str | None = None
    """The caller's own words, kept with the close request."""

    def __post_init__(self) -> None:
        check_position_id(self.position_id)
        if self.key is not None:
            check_key(self.key)
        for name in ("quantity", "percentage", "limit_price", "expected_quantity"):
            _check_number(name, getattr(self, name))
        for name, most in (("max_slippage_bps", MAX_INT), ("working_timeout_seconds", MAX_INT), ("if_version", 2**63)):
            check_whole(name, getattr(self, name), most)
        for name, known in (("order_type", get_args(OrderType)), ("time_in_force", get_args(TimeInForce))):
            if getattr(self, name) not in (None, *known):
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")
        if self.reason is not None:
            check_text("reason", self.reason)
        if self.deadline is not None:
            check_time("deadline", self.deadline)

    def with_key(self, key: str) -> Close:
        """The same under this key."""
        return replace(self, key=key)

    def terms(self) -> dict[str, Any]:
        """What is given, by name; without position, key and version."""
        found = {one.name: getattr(self, one.name) for one in fields(self)[2:] if one.name != "if_version"}
        return {name: value for name, value in found.items() if value is not None}


def with_keys(closes: Iterable[Close], batch_key: str | None) -> list[Close]:
    """Each with its own key, a key made of the batch's, or a new one. Raises ValueError where two would be one close,
    or where a close needs a call of its own."""
    found = [one if one.key is not None else one.with_key(_new_key_in(batch_key, one.position_id)) for one in closes]
    seen: set[tuple[int, str | None]] = set()
    for one in found:
        if (one.position_id, one.key) in seen:
            raise ValueError(
                f"two closes of position {one.position_id} have the key {one.key!r}; give each a key of its own"
            )
        if one.if_version is not None:
            raise ValueError("a batch takes no if_version; use expected_quantity, or close() for this position")
        seen.add((one.position_id, one.key))
    return found


def _new_key_in(batch_key: str | None, position_id: int) -> str:
    return new_key() if batch_key is None else key_in_batch(batch_key, position_id)


def check_position_id(position_id: int) -> int:
    """From 1 to 2^63 - 1. Raises TypeError or ValueError."""
    if position_id is None:
        raise TypeError("position_id must be an int, not None")
    check_whole("position_id", position_id, MAX_POSITION_ID)
    if position_id < 1:
        raise ValueError(f"position_id must be from 1 to {MAX_POSITION_ID}, not {position_id}")
    return position_id


def check_request_id(request_id: UUID | str) -> UUID:
    """The id of a close request, which may be given as text. Raises TypeError or ValueError."""
    if isinstance(request_id, UUID):
        return request_id
    if not isinstance(request_id, str):
        raise TypeError(f"the id of a close request must be a UUID, not {type(request_id).__name__}")
    return UUID(request_id)


def check_text(name: str, value: str) -> str:
    """Text that UTF-8 can carry. Raises TypeError or ValueError."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    value.encode()
    return value


def check_time(name: str, value: datetime) -> datetime:
    """A time that is the same everywhere. Raises TypeError or ValueError."""
    if not isinstance(value, datetime):
        raise TypeError(f"{name} must be a datetime, not {type(value).__name__}")
    if value.utcoffset() is None:
        raise ValueError(f"{name} must have an offset: datetime.now(UTC), or {name}.astimezone()")
    return value


def _check_number(name: str, value: object) -> None:
    if value is None:
        return
    if isinstance(value, float):
        raise TypeError(f"{name} is a float, which is not exact: give Decimal('{value}')")
    if isinstance(value, bool) or not isinstance(value, Decimal | int):
        raise TypeError(f"{name} must be a Decimal or an int, not {type(value).__name__}")
    number = Decimal(value)
    if not number.is_finite() or abs(number.adjusted()) > _MOST_DIGITS:
        raise ValueError(f"{name} must be a number with at most {_MOST_DIGITS} digits")


def check_whole(name: str, value: object, most: int) -> None:
    """A whole number from 0 to `most`, or None. Raises TypeError or ValueError."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if not 0 <= value <= most:
        raise ValueError(f"{name} must be from 0 to {most}")
