"""What the broker lists against the ledger of executions: which line is which row, and what has no other side.

A broker's two feeds may name one fill differently, so a line is found by its id, by another name of the row, or by its
order and figures; and a list may have no busts and corrections at all, which is then no difference.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Final

from closectl.reconciling.against_events import PUBLISH_WITHIN, SAME_TIME, Books, of_row
from closectl.reconciling.items import Day, Difference, DifferenceKind, Entry, Found, Key, cash_of, day_of, entry
from closectl.reconciling.lines import Line, Listing
from closeflow.domain.model import ExecKind
from closeflow.domain.text import decimal_text
from closeflow.storage.verify.ledger_rows import LedgerRow

HALF_A_CENT: Final = Decimal("0.005")
Pair = tuple[Line, LedgerRow]


@dataclass(slots=True)
class BrokerCompared:
    """What the broker lists, and which rows are too new for its list to have them."""

    listed: Found = field(default_factory=Found)
    waiting: set[Key] = field(default_factory=set)


def compare_broker(books: Books, listing: Listing, *, at: datetime) -> BrokerCompared:
    """Every line against every row of the listed accounts and days. The list was read before the rows, as of `at`."""
    found = BrokerCompared()
    found.listed.count = len(listing.lines)
    rows = [one for one in books.rows if covers(listing, one)]
    pairs, lines, free = _paired(listing.lines, rows)
    matched = {row.key for _, row in pairs}
    row_of = {id(line): row for line, row in pairs}
    lists_changes = any(one.kind is not ExecKind.TRADE for one in listing.lines)
    for line, row in pairs:
        found.listed.differences += _content(line, row)
    for line in lines:
        if line.at < at - PUBLISH_WITHIN:
            found.listed.differences.append(_not_booked(line, listing.lines, row_of))
    for row in free:
        if row.kind is not ExecKind.TRADE and not lists_changes:
            found.listed.taken_as_told += 1
            found.listed.entries += _of_unlisted(books, row)
        elif row.until >= at - PUBLISH_WITHIN:
            found.waiting.add(row.key)
        else:
            found.listed.differences.append(_not_at_broker(row, rows, matched))
    too_new = {id(line) for line in lines if line.at >= at - PUBLISH_WITHIN}
    found.listed.entries += _entries(books, [one for one in listing.lines if id(one) not in too_new], row_of)
    found.listed.differences += [
        Difference(DifferenceKind.LINE_UNREADABLE, "", "", None, one.name, one.why) for one in listing.unread
    ]
    return found


def covers(listing: Listing, row: LedgerRow) -> bool:
    """Whether the list would have the row."""
    if row.account_id not in listing.accounts:
        return False
    return listing.between is None or listing.between[0] <= day_of(row.occurred_at) <= listing.between[1]


def _paired(lines: Sequence[Line], rows: Sequence[LedgerRow]) -> tuple[list[Pair], list[Line], list[LedgerRow]]:
    """By name first, then by what they say, then what is left of one order and time; and those without another side."""
    pairs: list[Pair] = []
    left, free = list(lines), {one.key: one for one in rows}
    for test in (_one_name, _same_and_counted, _same, _told_otherwise):
        buckets: defaultdict[object, list[LedgerRow]] = defaultdict(list)
        for row in free.values():
            buckets[_bucket(row.account_id, row.symbol, row.kind)].append(row)
        still: list[Line] = []
        for line in left:
            bucket = buckets[_bucket(line.account_id, line.symbol, line.kind)]
            fitting = [row for row in bucket if test(line, row)]
            if not fitting:
                still.append(line)
                continue
            row = min(fitting, key=lambda one: abs(one.occurred_at - line.at))
            bucket.remove(row)
            del free[row.key]
            pairs.append((line, row))
        left = still
    return pairs, left, list(free.values())


def _bucket(account_id: str, symbol: str, kind: ExecKind) -> tuple[str, str, ExecKind]:
    return account_id, symbol.replace("/", ""), kind


def _tail(name: str) -> str:
    """A broker's list may put a time and `::` before the id that its stream has given."""
    return name.rpartition("::")[2]


def _one_name(line: Line, row: LedgerRow) -> bool:
    return line.exec_id is not None and _tail(line.exec_id) in {_tail(one) for one in (row.exec_id, *row.aliases)}


def _one_order(line: Line, row: LedgerRow) -> bool:
    return line.client_order_id in (None, row.client_order_id)


def _same(line: Line, row: LedgerRow) -> bool:
    if not _one_order(line, row) or line.side is not row.side:
        return False
    return row.kind is ExecKind.BUST or (line.quantity, line.price) == (row.quantity, row.price)


def _same_and_counted(line: Line, row: LedgerRow) -> bool:
    return _same(line, row) and line.cum_quantity is not None and line.cum_quantity == row.cum_quantity


def _told_otherwise(line: Line, row: LedgerRow) -> bool:
    counted = line.cum_quantity is not None and line.cum_quantity == row.cum_quantity
    return _one_order(line, row) and (counted or abs(row.occurred_at - line.at) <= SAME_TIME)


def _content(line: Line, row: LedgerRow) -> Iterator[Difference]:
    if row.kind is ExecKind.BUST or row.quantity is None or row.price is None:
        return
    booked = f"booked is {row.side} {_figures(row.quantity, row.price)}"
    if (line.side, line.quantity, line.price) != (row.side, row.quantity, row.price):
        said = f"{line.name} says {line.side} {_figures(line.quantity, line.price)}"
        cash = _worth(row) - _worth(line)
        yield _about(
            row,
            DifferenceKind.FILL_DIFFERS,
            f"{said}, {booked}: {decimal_text(cash)} {row.currency} off",
            cash=cash,
        )
    elif line.amount is not None and _off(line):
        cash = _worth(row) - _cash(line)
        said = f"{line.name} says {decimal_text(line.amount)}"
        yield _about(
            row,
            DifferenceKind.AMOUNT_DIFFERS,
            f"{said}, {booked}, which makes {decimal_text(_worth(row))}: {decimal_text(cash)} {row.currency} off",
            cash=cash,
        )


def _not_booked(line: Line, lines: Sequence[Line], row_of: Mapping[int, LedgerRow]) -> Difference:
    twin = next((one for one in lines if one is not line and id(one) in row_of and _alike(one, line)), None)
    order = "" if line.client_order_id is None else f" of order {line.client_order_id}"
    what = f"{line.kind} {line.side} {_figures(line.quantity, line.price)}{order}"
    if twin is not None:
        kind, detail = DifferenceKind.LISTED_TWICE, f"({what}) is {twin.name} again; it is booked once"
    else:
        kind, detail = DifferenceKind.NOT_BOOKED, f"({what}) is listed by the broker and not booked"
    cash = -_worth(line) if line.kind is ExecKind.TRADE else None
    return Difference(kind, line.account_id, line.symbol, day_of(line.at), line.name, detail, cash)


def _alike(one: Line, other: Line) -> bool:
    first, second = (
        (line.client_order_id, line.kind, line.symbol, line.side, line.quantity, line.price, line.cum_quantity)
        for line in (one, other)
    )
    return first == second and abs(one.at - other.at) <= SAME_TIME


def _not_at_broker(row: LedgerRow, rows: Sequence[LedgerRow], matched: Collection[Key]) -> Difference:
    twin = next((one for one in rows if one.key in matched and twins(one, row)), None)
    if twin is not None:
        return booked_twice(row, twin)
    figures = "" if row.quantity is None or row.price is None else f" {row.side} {_figures(row.quantity, row.price)}"
    return _about(
        row,
        DifferenceKind.NOT_AT_BROKER,
        f"({row.kind}{figures} of order {row.client_order_id}) is booked; the broker does not list it",
        cash=_worth(row) if row.kind is ExecKind.TRADE else None,
    )


def twins(one: LedgerRow, other: LedgerRow) -> bool:
    """Whether two rows say the same of one order, at the same time or count."""
    if one.key == other.key or one.kind is not other.kind or one.client_order_id != other.client_order_id:
        return False
    if (one.side, one.quantity, one.price) != (other.side, other.quantity, other.price):
        return False
    counted = one.cum_quantity is not None and one.cum_quantity == other.cum_quantity
    return counted or abs(one.occurred_at - other.occurred_at) <= SAME_TIME


def booked_twice(row: LedgerRow, twin: LedgerRow) -> Difference:
    """That the row is the other one under a second id."""
    detail = f"is execution {twin.exec_id} of order {row.client_order_id} again: one execution is booked under two ids"
    return _about(row, DifferenceKind.BOOKED_TWICE, detail, cash=_worth(row))


def _entries(books: Books, lines: Sequence[Line], row_of: Mapping[int, LedgerRow]) -> Iterator[Entry]:
    """The broker's own sums: each line on the day of the row that it is, else on its own. What a line takes back may be
    older than the list; then it is taken from the ledger."""
    by_id = {_tail(one.exec_id): one for one in lines if one.exec_id is not None}
    for line in lines:
        row = row_of.get(id(line))
        of = Day(line.account_id, line.symbol, day_of(line.at), line.currency) if row is None else of_row(row)
        rows = () if row is None else (row.key,)
        replaced = by_id.get(_tail(line.ref or ""))
        if line.kind is not ExecKind.TRADE and replaced is not None:
            before = row_of.get(id(replaced))
            both = rows if before is None else (*rows, before.key)
            yield entry(of, replaced.side, replaced.quantity, _cash(replaced), back=True, rows=both)
        elif row is not None and row.replaces is not None:
            older = books.by_key.get((row.broker, row.account_id, row.replaces))
            yield from books.leaving(older, row.exec_id) if older is not None else ()
        if line.kind is not ExecKind.BUST:
            yield entry(of, line.side, line.quantity, _cash(line), back=False, rows=rows)


def _of_unlisted(books: Books, row: LedgerRow) -> list[Entry]:
    """What the ledger books of a bust or correction that the broker's list never has."""
    replaced = books.by_key.get((row.broker, row.account_id, row.replaces or ""))
    if replaced is None:
        return []
    return books.leaving(replaced, row.exec_id) + (books.entering(row) if row.kind is ExecKind.CORRECT else [])


def _worth(one: Line | LedgerRow) -> Decimal:
    if one.quantity is None or one.price is None:
        return Decimal(0)
    return cash_of(side=one.side, quantity=one.quantity, price=one.price, multiplier=one.multiplier)


def _off(line: Line) -> Decimal:
    """By how much the broker's own amount, whatever its sign, is off what its figures make; nothing within half a
    cent, because it is rounded."""
    off = Decimal(0) if line.amount is None else abs(line.amount) - abs(_worth(line))
    return off if abs(off) >= HALF_A_CENT else Decimal(0)


def _cash(line: Line) -> Decimal:
    worth = _worth(line)
    return worth + _off(line) * (1 if worth >= 0 else -1)


def _figures(quantity: Decimal, price: Decimal) -> str:
    return f"{decimal_text(quantity)} @ {decimal_text(price)}"


def _about(row: LedgerRow, kind: DifferenceKind, detail: str, *, cash: Decimal | None = None) -> Difference:
    day = day_of(row.occurred_at)
    return Difference(kind, row.account_id, row.symbol, day, f"execution {row.exec_id}", detail, cash)
