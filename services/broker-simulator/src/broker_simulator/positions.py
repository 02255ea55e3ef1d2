"""Positions at the broker: one per symbol, netted, signed; and the CSV that seeds them."""

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import Final

from .assets import CLASS_OF_TYPE, MULTIPLIER, AssetClass, asset_id
from .numbers import plain
from .orders import ZERO, Side

REQUIRED_COLUMNS: Final = ("account_id", "symbol", "asset_type", "quantity", "multiplier", "currency")
OPTIONAL_COLUMNS: Final = ("position_id",)


class BadPositionsCsv(ValueError):
    """Says which line and column is wrong and what belongs there."""


@dataclass(frozen=True, slots=True)
class Position:
    """`qty` is signed (short < 0), never zero while it is kept."""

    symbol: str
    asset_class: AssetClass
    qty: Decimal
    avg_entry_price: Decimal


@dataclass(frozen=True, slots=True)
class Seed:
    """A position to begin with; the quantity is signed."""

    account_id: str
    symbol: str
    asset_class: AssetClass
    qty: Decimal


def after_fill(
    position: Position | None, symbol: str, asset_class: AssetClass, side: Side, qty: Decimal, price: Decimal
) -> Position:
    """The position after a fill; its quantity may be zero. Crossing zero starts a new average price."""
    before = position or Position(symbol, asset_class, ZERO, price)
    delta = qty if side == "buy" else -qty
    after = before.qty + delta
    if before.qty * after <= 0:
        return replace(before, qty=after, avg_entry_price=price)
    if abs(after) < abs(before.qty):
        return replace(before, qty=after)
    average = (before.avg_entry_price * abs(before.qty) + price * qty) / abs(after)
    return replace(before, qty=after, avg_entry_price=average.quantize(Decimal("0.000001")))


def read_positions_csv(text: str, account_id: str | None = None) -> list[Seed]:
    """Rows of the positions file that closectl imports; with `account_id`, only the rows of that account.

    Columns: account_id, symbol, asset_type (stock, option, crypto), quantity (signed decimal), multiplier, currency,
    and optionally position_id. The header is required. Raises BadPositionsCsv.
    """
    reader = csv.DictReader(io.StringIO(text.lstrip("\ufeff")))
    columns = [name.strip() for name in reader.fieldnames or ()]
    missing = [name for name in REQUIRED_COLUMNS if name not in columns]
    unknown = [name for name in columns if name not in REQUIRED_COLUMNS + OPTIONAL_COLUMNS]
    if missing or unknown:
        raise BadPositionsCsv(
            f"the header must be {','.join(REQUIRED_COLUMNS)} and optionally position_id"
            f" (missing: {', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'})"
        )
    reader.fieldnames = columns
    seeds = [_read_row(row, line) for line, row in enumerate(reader, start=2)]
    return [seed for seed in seeds if account_id is None or seed.account_id == account_id]


def _read_row(row: Mapping[str, str | None], line: int) -> Seed:
    values = {name: (row.get(name) or "").strip() for name in REQUIRED_COLUMNS}
    asset_type = values["asset_type"]
    if asset_type not in CLASS_OF_TYPE:
        raise BadPositionsCsv(f"line {line}: asset_type is {asset_type!r}; use stock, option or crypto")
    if not values["symbol"]:
        raise BadPositionsCsv(f"line {line}: symbol is empty")
    try:
        quantity = Decimal(values["quantity"])
    except InvalidOperation:
        quantity = Decimal("NaN")
    if not quantity.is_finite():
        raise BadPositionsCsv(f"line {line}: quantity is {values['quantity']!r}; use a signed decimal such as -2.5")
    return Seed(values["account_id"], values["symbol"], CLASS_OF_TYPE[asset_type], quantity)


def net(seeds: Iterable[Seed]) -> dict[str, Seed]:
    """One seed per symbol: the broker nets what the portfolio may hold in several positions."""
    by_symbol: dict[str, Seed] = {}
    for seed in seeds:
        known = by_symbol.get(seed.symbol)
        by_symbol[seed.symbol] = replace(known, qty=known.qty + seed.qty) if known else seed
    return by_symbol


def position_json(position: Position, *, price: Decimal, held: Decimal) -> dict[str, object]:
    """`held`: quantity reserved by open closing orders. Short quantities are negative, as Alpaca gives them."""
    units = position.qty * MULTIPLIER[position.asset_class]
    cost, value = units * position.avg_entry_price, units * price
    profit = value - cost
    sign = 1 if position.qty > 0 else -1
    return {
        "asset_id": asset_id(position.symbol),
        "symbol": position.symbol,
        "exchange": "CRYPTO" if position.asset_class == "crypto" else "NASDAQ",
        "asset_class": position.asset_class,
        "asset_marginable": position.asset_class == "us_equity",
        "qty": plain(position.qty),
        "qty_available": plain(sign * max(abs(position.qty) - held, ZERO)),
        "avg_entry_price": plain(position.avg_entry_price),
        "side": "long" if position.qty > 0 else "short",
        "market_value": plain(value),
        "cost_basis": plain(cost),
        "unrealized_pl": plain(profit),
        "unrealized_plpc": plain((profit / abs(cost)).quantize(Decimal("0.000001"))) if cost else "0",
        "unrealized_intraday_pl": "0",
        "unrealized_intraday_plpc": "0",
        "current_price": plain(price),
        "lastday_price": plain(position.avg_entry_price),
        "change_today": "0",
    }
