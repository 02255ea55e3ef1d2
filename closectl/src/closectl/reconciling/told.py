"""The records of `execution-events` as they lie there, read without refusing any: an audit must see what is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from uuid import UUID

from closectl.reconciling.items import Key
from closeflow.domain.model import Side
from closeflow.domain.outbox.events import (
    EXECUTION_CHARGED,
    EXECUTION_CORRECTED,
    EXECUTION_RECORDED,
    EXECUTION_REVERSED,
)
from closeflow.kafka.read_to_end import TailRecord

_LARGEST: Final = Decimal(10) ** 30
_OWN: Final = frozenset({"emission"})
"""What may differ between two emissions of one event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """An accounting event. `key` is the row of the ledger that it enters, or takes back (`back`); `by` is the execution
    that it names as the reason, which is the row itself when it enters it."""

    event_id: UUID
    emission: int
    back: bool
    key: Key
    by: str
    position_id: str
    client_order_id: str
    symbol: str
    side: Side
    quantity: Decimal
    price: Decimal
    multiplier: Decimal
    cash: Decimal
    currency: str
    occurred_at: datetime
    content: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldCharge:
    """The commission and fees of an accounting event of any type, signed: what is taken back is below 0."""

    event_id: UUID
    alone: bool
    """Whether it is an event of its own, and not part of an execution's."""
    written_at: datetime | None
    """When its outbox row was written, as the record says."""
    account_id: str
    client_order_id: str
    symbol: str
    commission: Decimal
    fees: Decimal
    currency: str
    occurred_at: datetime

    @property
    def amount(self) -> Decimal:
        """What it takes from the account."""
        return self.commission + self.fees


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A record that no consumer can book, by its place, and why."""

    place: str
    why: str


def read_told(
    records: Iterable[TailRecord],
) -> tuple[list[Told], list[Unreadable], list[tuple[Told, Told]], list[ToldCharge]]:
    """Each event once, as the first record of its id says it, as consumers take it; what cannot be read; the records
    of one id that do not say the same; and what every record charges."""
    first: dict[UUID, Told] = {}
    charges: list[ToldCharge] = []
    unreadable: list[Unreadable] = []
    contradicting: list[tuple[Told, Told]] = []
    for record in records:
        try:
            value = _value(record)
            charge = _charge(value, record)
            if value.get("event_type") == EXECUTION_CHARGED:
                charges.append(charge)
                continue
            one = _told(value)
            charges.append(charge)
        except (ValueError, KeyError, TypeError, InvalidOperation, RecursionError) as error:
            place = f"record {record.topic}/{record.partition}/{record.offset}"
            unreadable.append(Unreadable(place, _why(error)))
            continue
        known = first.setdefault(one.event_id, one)
        if known is not one and known.content != one.content:
            contradicting.append((known, one))
    return list(first.values()), unreadable, contradicting, charges


def _why(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]}"
    return str(error) or type(error).__name__


def _value(record: TailRecord) -> Mapping[str, Any]:
    value = json.loads(record.value or b"", parse_float=Decimal)
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    return value


def _told(value: Mapping[str, Any]) -> Told:
    kind = value["event_type"]
    if kind not in (EXECUTION_RECORDED, EXECUTION_CORRECTED, EXECUTION_REVERSED):
        raise ValueError(f"its event_type {kind!r} is not known")
    back = kind == EXECUTION_REVERSED
    named = value["reverses_exec_id" if back else "exec_id"]
    return Told(
        event_id=UUID(value["event_id"]),
        emission=int(value.get("emission", 1)),
        back=back,
        key=(str(value["broker"]), str(value["account_id"]), str(named)),
        by=str(value["exec_id"]),
        position_id=str(value["position_id"]),
        client_order_id=str(value.get("client_order_id")),
        symbol=str(value["symbol"]),
        side=Side(value["side"]),
        quantity=_number(value, "quantity"),
        price=_number(value, "price"),
        multiplier=_number(value, "multiplier"),
        cash=_number(value, "cash_amount"),
        currency=str(value["currency"]),
        occurred_at=_time(value["occurred_at"]),
        content={name: one for name, one in value.items() if name not in _OWN},
    )


def written_at(record: TailRecord) -> datetime | None:
    """When the outbox row of the record was written."""
    for name, raw in record.headers:
        if name == "ce_time" and raw is not None:
            try:
                at = datetime.fromisoformat(raw.decode(errors="replace"))
            except ValueError:
                return None
            return at if at.tzinfo is not None else None
    return None


def _charge(value: Mapping[str, Any], record: TailRecord) -> ToldCharge:
    return ToldCharge(
        event_id=UUID(value["event_id"]),
        alone=value["event_type"] == EXECUTION_CHARGED,
        written_at=written_at(record),
        account_id=str(value["account_id"]),
        client_order_id=str(value.get("client_order_id")),
        symbol=str(value["symbol"]),
        commission=_number(value, "commission") if value.get("commission") is not None else Decimal(0),
        fees=_number(value, "fees") if value.get("fees") is not None else Decimal(0),
        currency=str(value["currency"]),
        occurred_at=_time(value["occurred_at"]),
    )


def _number(value: Mapping[str, Any], name: str) -> Decimal:
    number = Decimal(str(value[name]))
    if not number.is_finite() or abs(number) >= _LARGEST:
        raise ValueError(f"its {name} {value[name]!r} is not a number that can be added")
    return number


def _time(text: object) -> datetime:
    at = datetime.fromisoformat(str(text))
    if at.tzinfo is None:
        raise ValueError(f"its occurred_at {text!r} has no offset")
    return at
