"""The positions file: CSV with a header, one position a line, read as a whole before anything is written.

Columns: account_id, symbol, asset_type (stock, option, crypto), quantity (signed; short < 0), multiplier, currency, and
optionally position_id. A fractional quantity has a decimal point. Blank lines and lines that begin with # are skipped.
"""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Final

from closeflow.domain.accept import LOT_DIGITS
from closeflow.domain.events import decimal_text
from closeflow.domain.model import AssetType
from closeflow.storage.importing import NewPosition

REQUIRED: Final = ("account_id", "symbol", "asset_type", "quantity", "multiplier", "currency")
OPTIONAL: Final = ("position_id",)
LARGEST: Final = Decimal("1e15")
DIGITS: Final = 18
LARGEST_ID: Final = 2**63 - 1
LONGEST_NAME: Final = 128
_NUMBER: Final = re.compile(r"[+-]?([0-9]{1,64}(\.[0-9]{0,64})?|\.[0-9]{1,64})")


class BadFile(Exception):
    """The file cannot be imported; `problems` has one line for each thing to mend, with its line number."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def read_positions(lines: Iterable[str]) -> tuple[NewPosition, ...]:
    """Every position of the file; raises BadFile with all its problems at once."""
    problems: list[str] = []
    rows: list[tuple[int, list[str]]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            rows.append((number, [value.strip() for value in next(csv.reader([line], strict=True))]))
        except csv.Error as error:
            problems.append(f"line {number}: not CSV: {error}; a position is one line, with its quotes closed")
    if problems:
        raise BadFile(problems)
    if not rows:
        raise BadFile([f"the file is empty; its first line names the columns: {','.join(REQUIRED)}"])
    (header, names), *rows = rows
    names = [name.lower() for name in names]
    problems += _header_problems(header, names)
    if problems:
        raise BadFile(problems)
    positions: dict[int, NewPosition] = {}
    for number, row in rows:
        if len(row) != len(names):
            problems.append(f"line {number}: {len(row)} fields, the header has {len(names)}")
            continue
        try:
            positions[number] = _position(dict(zip(names, row, strict=True)))
        except ValueError as error:
            problems.append(f"line {number}: {error}")
    problems += _repetitions(positions)
    if problems:
        raise BadFile(problems)
    return tuple(positions.values())


def _header_problems(line: int, names: list[str]) -> Iterable[str]:
    known = (*REQUIRED, *OPTIONAL)
    for name in REQUIRED:
        if name not in names:
            yield f"line {line}: the column {name} is missing; needed are {', '.join(REQUIRED)}"
    for name, count in Counter(names).items():
        if name not in known:
            yield f"line {line}: the column {name!r} is not known; known are {', '.join(known)}"
        elif count > 1:
            yield f"line {line}: the column {name} is there {count} times"


def _position(row: Mapping[str, str]) -> NewPosition:
    for name in REQUIRED:
        if not row[name]:
            raise ValueError(f"{name} is empty")
    try:
        asset_type = AssetType(row["asset_type"].lower())
    except ValueError:
        raise ValueError(f"asset_type {row['asset_type']!r} is not one of {', '.join(AssetType)}") from None
    for name in ("account_id", "symbol"):
        if len(row[name]) > LONGEST_NAME or not row[name].isprintable():
            raise ValueError(f"{name} {row[name]!r} must be at most {LONGEST_NAME} printable characters")
    quantity = _number("quantity", row["quantity"])
    multiplier = _number("multiplier", row["multiplier"])
    if quantity == 0:
        raise ValueError("quantity is 0: there is nothing to close")
    if multiplier <= 0:
        raise ValueError("multiplier must be above 0")
    if asset_type is AssetType.OPTION and quantity != quantity.to_integral_value():
        raise ValueError(f"quantity {quantity}: options are held in whole contracts")
    if len(decimal_text(quantity).partition(".")[2]) > LOT_DIGITS[asset_type]:
        raise ValueError(
            f"quantity {quantity} could not be closed: more than {LOT_DIGITS[asset_type]} digits after the point"
        )
    currency = row["currency"].upper()
    if len(currency) != 3 or not currency.isascii() or not currency.isalpha():
        raise ValueError(f"currency {row['currency']!r} is not an ISO 4217 code such as USD")
    return NewPosition(
        position_id=_position_id(row.get("position_id", "")),
        account_id=row["account_id"],
        symbol=row["symbol"],
        asset_type=asset_type,
        quantity=quantity,
        multiplier=multiplier,
        currency=currency,
    )


def _number(name: str, text: str) -> Decimal:
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{name} {text!r} is not a number written with digits and at most one point")
    value = Decimal(text)
    if abs(value) >= LARGEST:
        raise ValueError(f"{name} {text} must be below {LARGEST:f}")
    if -int(value.as_tuple().exponent) > DIGITS:
        raise ValueError(f"{name} {text} has more than {DIGITS} digits after the point")
    return value


def _position_id(text: str) -> int | None:
    if not text:
        return None
    if len(text) > len(str(LARGEST_ID)) or not text.isascii() or not text.isdigit() or not 0 < int(text) <= LARGEST_ID:
        raise ValueError(f"position_id {text!r} is not a whole number from 1 to {LARGEST_ID}")
    return int(text)


def _repetitions(positions: Mapping[int, NewPosition]) -> Iterable[str]:
    """The broker nets, so an account has one open position per symbol. `positions` are by line."""
    names: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    ids: defaultdict[int, list[int]] = defaultdict(list)
    for number, one in positions.items():
        names[(one.account_id, one.symbol)].append(number)
        if one.position_id is not None:
            ids[one.position_id].append(number)
    for (account, symbol), lines in names.items():
        if len(lines) > 1:
            again = f"account {account} has {symbol} more than once"
            yield f"lines {_listed(lines)}: {again}; the broker nets them, so give their sum once"
    for position_id, lines in ids.items():
        if len(lines) > 1:
            yield f"lines {_listed(lines)}: position_id {position_id} is there more than once"


def _listed(lines: Iterable[int]) -> str:
    return ", ".join(map(str, lines))
