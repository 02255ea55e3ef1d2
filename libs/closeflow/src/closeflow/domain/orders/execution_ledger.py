"""The execution ledger of one order: trades, and the busts and corrections that take their place (O15, O16).

Rows are never changed. A bust or a correction names a trade, another correction, or an alias of one; what stands of a
trade is found by following these names, so it does not matter which row came first, and a row whose name nobody knows
yet waits without an effect.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from closeflow.domain.enums import ExecKind
from closeflow.domain.frozen import kept
from closeflow.domain.model import ZERO, Charge, Execution, Order
from closeflow.domain.orders.charges import own_charge, separate_charges


@dataclass(frozen=True, slots=True)
class EffectiveExecution:
    """What is true of one trade now. `by` is the row that says it: the trade itself when nothing changed it."""

    trade: Execution
    by: Execution

    @property
    def busted(self) -> bool:
        """Whether the broker took the trade back (FIX ExecType 150=H)."""
        return self.by.kind is ExecKind.BUST

    @property
    def quantity(self) -> Decimal:
        """What stands of the trade: 0 after a bust, else as corrected last."""
        return ZERO if self.busted else self.by.quantity

    @property
    def price(self) -> Decimal:
        """As corrected last; of a busted trade, its own."""
        return self.trade.price if self.busted else self.by.price


@kept
def effective_executions(order: Order) -> tuple[EffectiveExecution, ...]:
    """Every trade of the order as it stands, in the order in which the trades were booked."""
    if not order.executions:
        return ()
    changes: defaultdict[str, list[tuple[int, Execution]]] = defaultdict(list)
    rows = {one.exec_id: one for one in order.executions}
    for row in order.executions:
        found = _trade_of(row, rows, order)
        if row.kind is not ExecKind.TRADE and found is not None:
            depth, trade = found
            changes[trade.exec_id].append((depth, row))
    trades = (row for row in order.executions if row.kind is ExecKind.TRADE)
    return tuple(EffectiveExecution(trade, _last_word(trade, changes[trade.exec_id])) for trade in trades)


def _trade_of(row: Execution, rows: dict[str, Execution], order: Order) -> tuple[int, Execution] | None:
    """The trade at the end of the row's chain of names and how many names away it is; None while a name is unknown."""
    for depth in range(len(rows) + 1):
        if row.ref_exec_id is None:
            return depth, row
        ref = order.aliases.get(row.ref_exec_id, row.ref_exec_id)
        if ref not in rows:
            return None
        row = rows[ref]
    return None  # Rows that name each other in a circle name no trade.


def _last_word(trade: Execution, changes: list[tuple[int, Execution]]) -> Execution:
    """A bust is final. Of corrections the one furthest along the chain counts, then the later one."""
    if not changes:
        return trade
    age = _ages(row for _, row in changes)
    return max(changes, key=lambda change: (change[1].kind is ExecKind.BUST, change[0], age[change[1].exec_id]))[1]


@kept
def last_reversal(order: Order) -> Execution | None:
    """The newest bust or correction, whether or not the trade that it names is known."""
    reversals = [one for one in order.executions if one.kind is not ExecKind.TRADE]
    if not reversals:
        return None
    age = _ages(reversals)
    return max(reversals, key=lambda one: age[one.exec_id])


def _ages(rows: Iterable[Execution]) -> dict[str, tuple[datetime, int, str]]:
    """By execution id; the later row has the greater one. Between two rows of the stream the sequence decides, against
    any other row the time: of what the activities told first, the sequence is never known."""
    ages: dict[str, tuple[datetime, int, str]] = {}
    latest: datetime | None = None
    for row in sorted(rows, key=lambda one: -1 if one.broker_seq is None else one.broker_seq):
        at = row.occurred_at
        if row.broker_seq is not None:
            at = latest = max(at, latest or at)
        ages[row.exec_id] = (at, -1 if row.broker_seq is None else row.broker_seq, row.exec_id)
    return ages


@dataclass(frozen=True, slots=True)
class Recorded:
    """A trade enters the books, with the charge that goes with it as far as it is known."""

    execution: Execution
    charge: Charge | None = None


@dataclass(frozen=True, slots=True)
class Reversed:
    """`execution` (a trade or a correction) is taken back, and `charge` with it; `by` is the bust or the next
    correction."""

    execution: Execution
    by: Execution
    charge: Charge | None = None


@dataclass(frozen=True, slots=True)
class Corrected:
    """The correction `execution` enters the books in the place of `replaced`, which is reversed."""

    execution: Execution
    replaced: Execution
    charge: Charge | None = None


@dataclass(frozen=True, slots=True)
class Charged:
    """A charge of an execution that is in the books enters them; `instead` was there with the execution, and goes."""

    execution: Execution
    charge: Charge
    instead: Charge | None = None


Entry = Recorded | Reversed | Corrected | Charged


def entries(before: Order, after: Order) -> Iterator[Entry]:
    """What accounting has to be told of the step from one state of the order's ledger to a later one."""
    stood = {one.trade.exec_id: one.by for one in effective_executions(before)}
    for one in effective_executions(after):
        was = stood.get(one.trade.exec_id)
        if was is None:
            was, told = one.trade, own_charge(after, one.trade)
            yield Recorded(was, told)
        else:
            told = own_charge(before, was)
        if was.kind is ExecKind.BUST:
            continue
        if was.exec_id != one.by.exec_id:
            yield Reversed(was, one.by, told)
            if not one.busted:
                yield Corrected(one.by, was, own_charge(after, one.by))
        elif (stated := own_charge(after, was)) is not None and stated != told:
            yield Charged(was, stated, told)
    told_of = separate_charges(before)
    for name, (charge, execution) in separate_charges(after).items():
        if name not in told_of:
            yield Charged(execution, charge)
