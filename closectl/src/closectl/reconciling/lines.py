"""What a broker lists of what it executed, from its API or from a file, a line each."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Final

from closectl.reconciling.items import day_of
from closectl.reconciling.statement import Stated
from closeflow.domain.ids import parse_client_order_id
from closeflow.domain.model import BrokerUpdate, ExecKind, ExecType, Side
from closeflow.storage.verify.ledger_rows import Ledger, OrderTerms

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


def from_statement(
    stated: Sequence[Stated], ledger: Ledger, account: str | None, between: tuple[date | None, date | None]
) -> Listing:
    """The executions of an export. `account` is that of the lines that name none; a day that `between` leaves open is
    that of the first or the last line."""
    days = [day_of(one.at) for one in stated]
    first, last = between[0] or min(days), between[1] or max(days)
    by_symbol = {(one.account_id, _bare(one.symbol)): one for one in ledger.orders}
    names = {one.client_order_id: one for one in ledger.orders}
    names |= {one.broker_order_id: one for one in ledger.orders if one.broker_order_id is not None}
    lines: list[Line] = []
    unread: list[Unread] = []
    foreign = 0
    for one in stated:
        if not first <= day_of(one.at) <= last:
            continue
        account_id = one.account or account or ""
        terms = by_symbol.get((account_id, _bare(one.symbol)))
        given = one.client_order_id or one.order_id
        order = names.get(given) if given is not None else None
        unknown = given is not None and order is None
        if unknown and parse_client_order_id(given or "") is not None:
            unread.append(Unread(one.name, f"is of order {given}, which the database does not have"))
        elif terms is None or unknown:
            foreign += 1
        else:
            lines.append(_line(one, order or terms, given is not None))
    accounts = frozenset({one.account or account or "" for one in stated} | ({account} if account else set()))
    return Listing(lines, accounts, foreign, unread, (first, last))


def _line(one: Stated, terms: OrderTerms, is_order: bool) -> Line:
    return Line(
        name=one.name,
        account_id=terms.account_id,
        symbol=terms.symbol,
        multiplier=terms.multiplier,
        currency=terms.currency,
        exec_id=one.execution_id,
        client_order_id=terms.client_order_id if is_order else None,
        kind=one.kind,
        ref=one.replaces,
        side=one.side,
        quantity=one.quantity,
        price=one.price,
        cum_quantity=one.cumulative_quantity,
        at=one.at,
        amount=one.amount,
    )


def _bare(symbol: str) -> str:
    """However an export spells it: without the slash of a pair, the blanks of an option, in capitals."""
    return symbol.upper().replace("/", "").replace(" ", "")
