"""The positions file: CSV with a header, one position a line, read as a whole before anything is written.

Columns: account_id, symbol, asset_type (stock, option, crypto), quantity (signed; short < 0), multiplier, currency, and
optionally position_id. A fractional quantity has a decimal point. Blank lines and lines that begin with # are skipped.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Final

from closeflow.domain.model import AssetType
from closeflow.storage.importing import NewPosition

REQUIRED: Final = ("account_id", "symbol", "asset_type", "quantity", "multiplier", "currency")
OPTIONAL: Final = ("position_id",)
LARGEST: Final = Decimal("1e15")
DIGITS: Final = 18
LARGEST_ID: Final = 2**63 - 1


class BadFile(Exception):
    """The file cannot be imported; `problems` has one line for each thing to mend, with its line number."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def read_positions(lines: Iterable[str]) -> tuple[NewPosition, ...]:
    """Every position of the file; raises BadFile with all its problems at once."""
    numbered = [
        (number, line)
        for number, line in enumerate(lines, start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not numbered:
        raise BadFile([f"the file is empty; its first line names the columns: {','.join(REQUIRED)}"])
    try:
        header, *rows = csv.reader((line for _, line in numbered), strict=True)
    except csv.Error as error:
        raise BadFile([f"not CSV: {error}"]) from None
    if len(rows) != len(numbered) - 1:
        raise BadFile(["a quoted field goes over the end of its line; each position is one line"])
    names = [name.strip().lower().removeprefix("\ufeff") for name in header]
    problems = list(_header_problems(names))
    if problems:
        raise BadFile(problems)
    positions: list[NewPosition] = []
    for (number, _), row in zip(numbered[1:], rows, strict=True):
        if len(row) != len(names):
            problems.append(f"line {number}: {len(row)} fields, the header has {len(names)}")
            continue
        try:
            positions.append(_position(dict(zip(names, (value.strip() for value in row), strict=True))))
        except ValueError as error:
            problems.append(f"line {number}: {error}")
    problems += _repetitions(positions)
    if problems:
        raise BadFile(problems)
    return tuple(positions)


def _says_something(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _header_problems(names: list[str]) -> Iterable[str]:
    known = (*REQUIRED, *OPTIONAL)
    for name in REQUIRED:
        if name not in names:
            yield f"line 1: the column {name} is missing; needed are {', '.join(REQUIRED)}"
    for name, count in Counter(names).items():
        if name not in known:
            yield f"line 1: the column {name!r} is not known; known are {', '.join(known)}"
        elif count > 1:
            yield f"line 1: the column {name} is there {count} times"


def _position(row: Mapping[str, str]) -> NewPosition:
    for name in REQUIRED:
        if not row[name]:
            raise ValueError(f"{name} is empty")
    try:
        asset_type = AssetType(row["asset_type"].lower())
    except ValueError:
        raise ValueError(f"asset_type {row['asset_type']!r} is not one of {', '.join(AssetType)}") from None
    quantity = _number("quantity", row["quantity"])
    multiplier = _number("multiplier", row["multiplier"])
    if quantity == 0:
        raise ValueError("quantity is 0: there is nothing to close")
    if multiplier <= 0:
        raise ValueError("multiplier must be above 0")
    if asset_type is AssetType.OPTION and quantity != quantity.to_integral_value():
        raise ValueError(f"quantity {quantity}: options are held in whole contracts")
    currency = row["currency"].upper()
    if len(currency) != 3 or not currency.isalpha():
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
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{name} {text!r} is not a number") from None
    if not value.is_finite() or abs(value) >= LARGEST:
        raise ValueError(f"{name} {text} must be finite and below {LARGEST:f}")
    exponent = value.as_tuple().exponent
    if isinstance(exponent, int) and -exponent > DIGITS:
        raise ValueError(f"{name} {text} has more than {DIGITS} digits after the point")
    return value


def _position_id(text: str) -> int | None:
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= LARGEST_ID:
        raise ValueError(f"position_id {text!r} is not a whole number from 1 to {LARGEST_ID}")
    return int(text)


def _repetitions(positions: Iterable[NewPosition]) -> Iterable[str]:
    """The broker nets, so an account has one open position per symbol."""
    positions = list(positions)
    for (account, symbol), count in Counter((one.account_id, one.symbol) for one in positions).items():
        if count > 1:
            yield f"account {account} has {symbol} {count} times; the broker nets them, so give their sum once"
    for position_id, count in Counter(one.position_id for one in positions if one.position_id is not None).items():
        if count > 1:
            yield f"position_id {position_id} is there {count} times"
