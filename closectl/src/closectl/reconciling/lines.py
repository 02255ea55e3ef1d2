"""What a broker lists of what it executed, from its API or from a file, a line each."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Final

from closeflow.domain.ids import parse_client_order_id
from closeflow.domain.model import BrokerUpdate, ExecKind, ExecType, Side
from closeflow.storage.verify.ledger_rows import OrderTerms

_KINDS: Final[Mapping[ExecType, ExecKind]] = {
    ExecType.TRADE: ExecKind.TRADE,
    ExecType.TRADE_CANCEL: ExecKind.BUST,
    ExecType.TRADE_CORRECT: ExecKind.CORRECT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """An execution as the broker lists it. `name` tells where, such as `line 7`; `client_order_id` is our order, None
    where the list names none and it has to be found by its figures. `amount`: what the broker makes of the cash."""

    name: str
    account_id: str
    symbol: str
    multiplier: Decimal
    currency: str
    exec_id: str | None
    client_order_id: str | None
    kind: ExecKind
    ref: str | None
    side: Side
    quantity: Decimal
    price: Decimal
    cum_quantity: Decimal | None
    at: datetime
    amount: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Unread:
    """What the broker lists and cannot be compared."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Listing:
    """Of these accounts. `foreign`: how many lines were of orders that are not ours. `between`: the first and the last
    day that it covers, None where it has everything."""

    lines: Sequence[Line]
    accounts: frozenset[str]
    foreign: int = 0
    unread: Sequence[Unread] = ()
    between: tuple[date, date] | None = None


def from_updates(updates: Collection[BrokerUpdate], orders: Sequence[OrderTerms], account_id: str) -> Listing:
    """Executions as the adapter tells them, each id once."""
    terms = {one.client_order_id: one for one in orders}
    lines: list[Line] = []
    foreign = 0
    unread: list[Unread] = []
    by_id: dict[str, Line] = {}
    for one in {one.exec_id: one for one in updates if one.exec_id is not None}.values():
        kind = _KINDS.get(one.exec_type)
        if kind is None or one.exec_id is None:
            continue
        order = terms.get(one.client_order_id)
        if order is None and parse_client_order_id(one.client_order_id) is None:
            foreign += 1
            continue
        if order is None:
            why = f"is of order {one.client_order_id}, which the database does not have"
            unread.append(Unread(f"activity {one.exec_id}", why))
            continue
        replaced = by_id.get(one.exec_ref_id or "")
        quantity = one.last_quantity if one.last_quantity is not None else replaced and replaced.quantity
        price = one.last_price if one.last_price is not None else replaced and replaced.price
        line = Line(
            name=f"activity {one.exec_id}",
            account_id=one.account_id,
            symbol=order.symbol,
            multiplier=order.multiplier,
            currency=order.currency,
            exec_id=one.exec_id,
            client_order_id=order.client_order_id,
            kind=kind,
            ref=one.exec_ref_id,
            side=one.side,
            quantity=quantity or Decimal(0),
            price=price or Decimal(0),
            cum_quantity=one.cum_quantity,
            at=one.transact_time,
        )
        by_id[one.exec_id] = line
        lines.append(line)
    return Listing(lines, frozenset({account_id}), foreign, unread)
