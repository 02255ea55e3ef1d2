"""A broker's activity export, CSV or JSON, read as a whole: a line that cannot be read is refused with its number."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, tzinfo
from datetime import time as time_of_day
from decimal import Decimal
from typing import Any, Final

from closectl.reconciling.columns import NEEDED, Columns, meant
from closectl.written_numbers import comma_in, read_number
from closeflow.domain.model import ExecKind, Side

MOST_TOLD: Final = 100
_LISTS: Final = ("activities", "data", "items", "transactions", "trades")
_SLASHED: Final = ("%m/%d/%Y %H:%M:%S", "%m/%d/%Y %H:%M", "%m/%d/%Y")


class BadStatement(Exception):
    """The file cannot be compared; `problems` has one line for each thing to mend."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """An execution as a line of the export says it. `account` is None where the export does not say."""

    name: str
    account: str | None
    symbol: str
    execution_id: str | None
    order_id: str | None
    client_order_id: str | None
    kind: ExecKind
    replaces: str | None
    side: Side
    quantity: Decimal
    price: Decimal
    cumulative_quantity: Decimal | None
    amount: Decimal | None
    at: datetime


def read_statement(text: str, columns: Columns) -> list[Stated]:
    """Every execution of the export, in its order; raises BadStatement with all its problems at once."""
    rows = _json_rows(text) if text.lstrip()[:1] in ("[", "{") else _csv_rows(text, columns)
    problems: list[str] = []
    found: list[Stated] = []
    checked = False
    for name, row in rows:
        if isinstance(row, str):
            problems.append(f"{name}: {row}")
            continue
        if not checked:
            _check_names(name, row, columns)
            checked = True
        if any(row.get(column, "") not in values for column, values in columns.only.items()):
            continue
        try:
            found.append(_stated(name, row, columns))
        except ValueError as error:
            problems.append(f"{name}: {error}")
    if problems:
        more = len(problems) - MOST_TOLD
        raise BadStatement([*problems[:MOST_TOLD], *([f"and {more} lines more"] if more > 0 else [])])
    return found


Row = Mapping[str, str] | str
"""A line by the export's names, or why it is none."""


def _csv_rows(text: str, columns: Columns) -> Iterator[tuple[str, Row]]:
    reader = csv.reader(text.splitlines(keepends=True), delimiter=columns.delimiter, strict=True)
    header: list[str] = []
    while True:
        number = reader.line_num + 1
        try:
            row = [value.strip() for value in next(reader)]
        except StopIteration:
            break
        except csv.Error as error:
            yield f"line {number}", f"not CSV: {error}; close its quotes, and write a quote inside of quotes twice"
            continue
        if not any(row):
            continue
        if not header:
            header = row
            _check_header(number, header, columns)
        elif len(row) != len(header):
            yield f"line {number}", f"{len(row)} fields, the header has {len(header)}{comma_in(row)}"
        else:
            yield f"line {number}", dict(zip(header, row, strict=True))
    if not header:
        raise BadStatement(["the file is empty; its first line names the columns"])


def _check_header(number: int, header: Sequence[str], columns: Columns) -> None:
    for separator, called in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars"), (",", "commas")):
        if len(header) == 1 and header[0].count(separator) > 1:
            told = json.dumps(separator)
            raise BadStatement([f"line {number}: the fields are separated by {called}; say delimiter = {told}"])
    twice = sorted({name for name in header if header.count(name) > 1 and name in columns.names.values()})
    if twice:
        raise BadStatement(
            [f"line {number}: the column {twice[0]!r} is there more than once; name one of them otherwise"]
        )
    _check_names(f"line {number}", dict.fromkeys(header, ""), columns)


def _json_rows(text: str) -> Iterator[tuple[str, Row]]:
    """A list of objects, one in an object, or an object a line."""
    try:
        told = json.loads(text, parse_float=str, parse_int=str)
    except (ValueError, RecursionError) as error:
        lines = [(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
        if len(lines) > 1 and all(line.lstrip().startswith("{") for _, line in lines):
            yield from _json_lines(lines)
            return
        raise BadStatement([f"not JSON: {error}; give a list of objects, or an object a line"]) from None
    if isinstance(told, dict):
        lists = [told[name] for name in _LISTS if isinstance(told.get(name), list)]
        told = lists[0] if lists else [told]
    for number, one in enumerate(told, start=1):
        yield f"entry {number}", _object(one)


def _json_lines(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[str, Row]]:
    for number, line in lines:
        try:
            yield f"line {number}", _object(json.loads(line, parse_float=str, parse_int=str))
        except (ValueError, RecursionError) as error:
            yield f"line {number}", f"not JSON: {error}; write one whole object in the line"


def _object(one: Any) -> Row:
    if not isinstance(one, dict):
        return 'it is no object such as {"symbol": "AAPL", …}'
    return {str(name): "" if value is None else str(value).strip() for name, value in one.items()}


def _check_names(name: str, row: Mapping[str, str], columns: Columns) -> None:
    """What every line must have is looked for in the first one, so that a wrong name is told once."""
    wanted = [columns.names[one] for one in NEEDED] + list(columns.only)
    missing = [one for one in wanted if one not in row]
    if missing:
        there = list(row)
        raise BadStatement(
            [
                f"{name}: there is no column {one!r}{meant(one, there)}; there are {', '.join(there)}. Say what the "
                "export calls it in the file of --columns"
                for one in missing
            ]
        )


def _stated(name: str, row: Mapping[str, str], columns: Columns) -> Stated:
    def text(ours: str) -> str:
        return row.get(columns.names.get(ours, ""), "") if ours in columns.names else ""

    def number(ours: str) -> Decimal | None:
        return read_number(columns.names[ours], text(ours)) if text(ours) else None

    for ours in NEEDED:
        if not text(ours):
            raise ValueError(f"{columns.names[ours]} is empty; a line that is no execution is left out by [only]")
    quantity, price = number("quantity"), number("price")
    assert quantity is not None
    assert price is not None
    kind = columns.kinds.get(text("kind").lower())
    if kind is None:
        raise ValueError(
            f"{columns.names['kind']} {text('kind')!r} is not known; say in [kind] if it is a trade, bust or correct"
        )
    side = _side(text("side"), quantity, columns)
    if price < 0:
        raise ValueError(f"{columns.names['price']} {price} must not be below 0")
    if quantity == 0:
        raise ValueError(f"{columns.names['quantity']} is 0; leave such lines out by [only]")
    return Stated(
        name=name,
        account=text("account") or None,
        symbol=text("symbol"),
        execution_id=text("execution_id") or None,
        order_id=text("order_id") or None,
        client_order_id=text("client_order_id") or None,
        kind=kind,
        replaces=text("replaces") or None,
        side=side,
        quantity=abs(quantity),
        price=price,
        cumulative_quantity=number("cumulative_quantity"),
        amount=number("amount"),
        at=_time(columns.names["time"], text("time"), columns.zone),
    )


def _side(told: str, quantity: Decimal, columns: Columns) -> Side:
    """By its column, or by the sign of the quantity where there is none."""
    if "side" not in columns.names:
        return Side.SELL if quantity < 0 else Side.BUY
    side = columns.sides.get(told.lower())
    if side is None:
        raise ValueError(f"{columns.names['side']} {told!r} is not known; say in [side] whether it is a buy or a sell")
    if quantity < 0 and side is Side.BUY:
        raise ValueError(f"{columns.names['side']} is {told} and {columns.names['quantity']} {quantity}; which is it?")
    return side


def _time(name: str, told: str, zone: tzinfo) -> datetime:
    """RFC 3339; without an offset by the export's zone. A day alone is its noon, because any time of it may be."""
    try:
        return datetime.combine(date.fromisoformat(told), time_of_day(12), tzinfo=UTC)
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(told)
        return (at.replace(tzinfo=zone) if at.tzinfo is None else at).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{name} {told!r} is not a time such as 2026-03-02T14:30:00Z{_meant_time(told)}") from None


def _meant_time(told: str) -> str:
    for form in _SLASHED:
        try:
            at = datetime.strptime(told, form).replace(tzinfo=UTC)
        except ValueError:
            continue
        if at.day <= 12 and at.day != at.month:
            return "; which of its numbers is the month? Write the year, the month, the day"
        return f"; write {at.date() if form == _SLASHED[-1] else at.replace(tzinfo=None).isoformat()}"
    return ""
