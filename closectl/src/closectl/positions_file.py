"""The positions file: CSV with a header, one position a line, read as a whole before anything is written.

Columns: account_id, symbol, asset_type (stock, option, crypto), quantity (signed; short < 0), multiplier, currency, and
optionally position_id and side (long, short). A fractional quantity has a decimal point. Blank lines and lines that
begin with # are skipped.

A broker's export is read with a map from its columns to these. Its other columns are left out, and what it does not
say follows from the asset type: the multiplier, and dollars.
"""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Final

from closectl.symbols import canonical, option_root
from closectl.written_numbers import comma_in, read_number
from closeflow.domain.lots import LOT_DIGITS
from closeflow.domain.model import AssetType
from closeflow.domain.text import decimal_text
from closeflow.storage.imported_positions import NewPosition

REQUIRED: Final = ("account_id", "symbol", "asset_type", "quantity", "multiplier", "currency")
OPTIONAL: Final = ("position_id", "side")
FOLLOWING: Final = frozenset({"multiplier", "currency"})
"""What an export need not have."""
LARGEST_ID: Final = 2**63 - 1
LONGEST_NAME: Final = 128
MULTIPLIERS: Final = {AssetType.STOCK: 1, AssetType.OPTION: 100, AssetType.CRYPTO: 1}
_OF: Final = {AssetType.STOCK: "a stock's", AssetType.OPTION: "an option's", AssetType.CRYPTO: "a crypto's"}
ASSET_TYPES: Final[Mapping[str, AssetType]] = {
    **dict.fromkeys(("stock", "stocks", "equity", "equities", "us_equity", "stk", "etf"), AssetType.STOCK),
    **dict.fromkeys(("option", "options", "us_option", "opt", "equity option"), AssetType.OPTION),
    **dict.fromkeys(("crypto", "cryptocurrency", "crypto currency"), AssetType.CRYPTO),
}
"""As brokers call them."""


class BadFile(Exception):
    """The file cannot be imported; `problems` has one line for each thing to mend, with its line number."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def read_positions(
    lines: Iterable[str], columns: Mapping[str, str] | None = None, constants: Mapping[str, str] | None = None
) -> tuple[NewPosition, ...]:
    """Every position of the file; raises BadFile with all its problems at once.

    `columns` maps names of the file's columns to ours; `constants` are values of ours for every line."""
    rows = _rows(lines)
    if not rows:
        raise BadFile([f"the file is empty; its first line names the columns: {','.join(REQUIRED)}"])
    names = _header(rows, columns or {}, constants or {}, export=columns is not None or constants is not None)
    problems: list[str] = []
    positions: dict[int, NewPosition] = {}
    for number, row in rows[1:]:
        if len(row) != len(names):
            problems.append(f"line {number}: {len(row)} fields, the header has {len(names)}{comma_in(row)}")
            continue
        given = {name: value for name, value in zip(names, row, strict=True) if name}
        try:
            positions[number] = _position({**given, **(constants or {})})
        except ValueError as error:
            problems.append(f"line {number}: {error}")
    problems += _repetitions(positions)
    if problems:
        raise BadFile(problems)
    return tuple(positions.values())


def _rows(lines: Iterable[str]) -> list[tuple[int, list[str]]]:
    """The fields of each line that has any, by its number."""
    rows: list[tuple[int, list[str]]] = []
    problems: list[str] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            rows.append((number, [value.strip() for value in next(csv.reader([line], strict=True))]))
        except csv.Error as error:
            problems.append(f"line {number}: not CSV: {error}; a position is one line, with its quotes closed")
    if problems:
        raise BadFile(problems)
    return rows


def _header(
    rows: Sequence[tuple[int, list[str]]], columns: Mapping[str, str], constants: Mapping[str, str], *, export: bool
) -> list[str]:
    """Our name of each column, empty where it is left out."""
    line, header = rows[0]
    needed = [name for name in REQUIRED if name not in constants and not (export and name in FOLLOWING)]
    problems = [
        f"--map gives the column {theirs!r} the name {ours!r}, which is none of {', '.join((*REQUIRED, *OPTIONAL))}"
        for theirs, ours in columns.items()
        if ours not in (*REQUIRED, *OPTIONAL)
    ]
    if problems:
        raise BadFile(problems)
    names = _named(header, columns, export=export)
    if not set(needed) <= set(names):
        problems = _not_a_header(rows, columns, needed, export=export)
    there = {name.lower() for name in header}
    problems = problems or [
        f"line {line}: --map names the column {theirs!r}, which is not there; there are {', '.join(header)}"
        for theirs in columns
        if theirs.lower() not in there
    ]
    problems = problems or [
        f"line {line}: --set gives {name} the value {value!r}, and the file has that column"
        for name, value in constants.items()
        if name in names
    ]
    problems = problems or list(_header_problems(line, names, needed))
    if problems:
        raise BadFile(problems)
    return names


def _named(header: Sequence[str], columns: Mapping[str, str], *, export: bool) -> list[str]:
    ours = {theirs.lower(): name for theirs, name in columns.items()}
    names = [ours.get(name.lower(), name.lower()) for name in header]
    return [name if not export or name in (*REQUIRED, *OPTIONAL) else "" for name in names]


def _not_a_header(
    rows: Sequence[tuple[int, list[str]]], columns: Mapping[str, str], needed: Sequence[str], *, export: bool
) -> list[str]:
    """What the first line is, if it is none that names columns with something missing."""
    line, header = rows[0]
    for separator, called in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and header[0].count(separator) > 1:
            return [
                f"line {line}: the fields are separated by {called}; separate them by commas, and write numbers with "
                "a point"
            ]
    for later, row in rows[1:]:
        if set(needed) <= set(_named(row, columns, export=export)):
            return [f"line {line}: the columns are named in line {later}; remove the lines before it"]
    return []


def _header_problems(line: int, names: list[str], needed: Sequence[str]) -> Iterable[str]:
    known = (*REQUIRED, *OPTIONAL)
    for name in needed:
        if name not in names:
            yield f"line {line}: the column {name} is missing; needed are {', '.join(needed)}"
    for name, count in Counter(filter(None, names)).items():
        if name not in known:
            yield f"line {line}: the column {name!r} is not known; known are {', '.join(known)}"
        elif count > 1:
            yield f"line {line}: the column {name} is there {count} times"


def _position(row: Mapping[str, str]) -> NewPosition:
    for name in REQUIRED:
        if not row.get(name) and not (name in FOLLOWING and name not in row):
            raise ValueError(f"{name} is empty")
    asset_type = ASSET_TYPES.get(row["asset_type"].lower())
    if asset_type is None:
        raise ValueError(f"asset_type {row['asset_type']!r} is not one of {', '.join(AssetType)}")
    for name in ("account_id", "symbol"):
        if len(row[name]) > LONGEST_NAME or not row[name].isprintable():
            raise ValueError(f"{name} {row[name]!r} must be at most {LONGEST_NAME} printable characters")
    quantity = _sided(read_number("quantity", row["quantity"]), row.get("side", ""))
    multiplier = read_number("multiplier", row.get("multiplier") or str(MULTIPLIERS[asset_type]))
    if quantity == 0:
        raise ValueError("quantity is 0: there is nothing to close")
    if multiplier <= 0:
        raise ValueError("multiplier must be above 0")
    try:
        symbol = canonical(asset_type, row["symbol"])
    except ValueError as error:
        raise ValueError(f"symbol {row['symbol']!r} {error}") from None
    adjusted = asset_type is AssetType.OPTION and option_root(symbol)[-1].isdigit()
    if multiplier != MULTIPLIERS[asset_type] and not adjusted:
        raise ValueError(f"multiplier is {decimal_text(multiplier)}: {_OF[asset_type]} is {MULTIPLIERS[asset_type]}")
    if asset_type is AssetType.OPTION and quantity != quantity.to_integral_value():
        raise ValueError(f"quantity {quantity}: options are held in whole contracts")
    if len(decimal_text(quantity).partition(".")[2]) > LOT_DIGITS[asset_type]:
        raise ValueError(
            f"quantity {quantity} could not be closed: more than {LOT_DIGITS[asset_type]} digits after the point"
        )
    currency = row.get("currency", "USD").upper()
    if len(currency) != 3 or not currency.isascii() or not currency.isalpha():
        raise ValueError(f"currency {row['currency']!r} is not an ISO 4217 code such as USD")
    return NewPosition(
        position_id=_position_id(row.get("position_id", "")),
        account_id=row["account_id"],
        symbol=symbol,
        asset_type=asset_type,
        quantity=quantity,
        multiplier=multiplier,
        currency=currency,
    )


def _sided(quantity: Decimal, side: str) -> Decimal:
    """Some exports state a short position by its side, some by its sign, some by both."""
    match side.lower():
        case "":
            return quantity
        case "short":
            return -abs(quantity)
        case "long" if quantity >= 0:
            return quantity
        case "long":
            raise ValueError(f"side is long and quantity {decimal_text(quantity)}; which is it?")
        case _:
            raise ValueError(f"side {side!r} is not long or short")


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
