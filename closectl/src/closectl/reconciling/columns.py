"""What a broker's export calls its columns: a small TOML file, or Alpaca's own names where none is given."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Any, Final, TypeVar
from zoneinfo import ZoneInfo

from closeflow.domain.model import ExecKind, Side

T = TypeVar("T")
NEEDED: Final = ("symbol", "quantity", "price", "time")
COLUMNS: Final = (
    *NEEDED,
    "side",
    "execution_id",
    "order_id",
    "client_order_id",
    "kind",
    "replaces",
    "cumulative_quantity",
    "amount",
    "account",
)
SETTINGS: Final = ("account", "zone", "delimiter", "columns", "only", "side", "kind")
_SIDES: Final = {
    **dict.fromkeys(("buy", "b", "bot", "bought", "buy to cover", "buy to close", "buy to open"), Side.BUY),
    **dict.fromkeys(
        ("sell", "s", "sld", "sold", "sell short", "sell_short", "sell to close", "sell to open"), Side.SELL
    ),
}
_KINDS: Final = {
    **dict.fromkeys(("", "fill", "partial_fill", "trade", "execution"), ExecKind.TRADE),
    **dict.fromkeys(("trade_bust", "bust", "cancel", "cancelled", "canceled"), ExecKind.BUST),
    **dict.fromkeys(("trade_correct", "correct", "correction", "corrected"), ExecKind.CORRECT),
}


class BadColumns(Exception):
    """The file of columns cannot be used; the message says what to mend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """`names`: of what we need, what the export calls it. `only`: by a column of the export, the values of the lines
    that are executions; others are left out. `zone`: of times that do not say theirs."""

    names: Mapping[str, str]
    only: Mapping[str, frozenset[str]] = field(default_factory=dict)
    account: str | None = None
    zone: tzinfo = UTC
    delimiter: str = ","
    sides: Mapping[str, Side] = field(default_factory=lambda: _SIDES)
    kinds: Mapping[str, ExecKind] = field(default_factory=lambda: _KINDS)


ALPACA: Final = Columns(
    names={
        "execution_id": "id",
        "order_id": "order_id",
        "symbol": "symbol",
        "side": "side",
        "quantity": "qty",
        "price": "price",
        "time": "transaction_time",
        "kind": "type",
        "replaces": "previous_id",
        "cumulative_quantity": "cum_qty",
    },
    only={"activity_type": frozenset({"FILL"})},
)
"""As `GET /v2/account/activities` has them."""


def read_columns(file: Path) -> Columns:
    """Raises BadColumns."""
    try:
        told = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise BadColumns(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BadColumns(f"{file} is not UTF-8; save it as that") from None
    except tomllib.TOMLDecodeError as error:
        raise BadColumns(f'{file} is not TOML: {error}; a line is such as quantity = "Qty"') from None
    try:
        return _columns(told)
    except ValueError as error:
        raise BadColumns(f"{file}: {error}") from None


def _columns(told: Mapping[str, Any]) -> Columns:
    for name in told:
        if name not in SETTINGS:
            raise ValueError(f"{name!r} is not known{meant(name, SETTINGS)}; known are {', '.join(SETTINGS)}")
    account, delimiter = _text(told, "account"), _text(told, "delimiter") or ","
    names = _texts(told, "columns")
    for name in names:
        if name not in COLUMNS:
            raise ValueError(f"[columns] {name!r} is not known{meant(name, COLUMNS)}; known are {', '.join(COLUMNS)}")
    missing = [name for name in NEEDED if name not in names]
    if missing:
        raise ValueError(
            f'[columns] says not what the export calls {", ".join(missing)}; add {missing[0]} = "its name"'
        )
    if account is not None and "account" in names:
        raise ValueError("account is given for every line, and [columns] names a column of it; give one of them")
    if len(delimiter) != 1:
        raise ValueError(f'delimiter {delimiter!r} must be one character, such as ";" or "\\t"')
    return Columns(
        names=names,
        only={name: frozenset(values) for name, values in _lists(told, "only").items()},
        account=account,
        zone=_zone(_text(told, "zone")),
        delimiter=delimiter,
        sides=_SIDES | _words(told, "side", {str(one): one for one in Side}),
        kinds=_KINDS | _words(told, "kind", {str(one): one for one in ExecKind}),
    )


def meant(name: str, known: Sequence[str]) -> str:
    """The nearest of the known names, as a question; empty where none is near."""
    by_lower = {one.lower(): one for one in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f" (is {by_lower[near[0]]!r} meant?)" if near else ""


def _text(told: Mapping[str, Any], name: str) -> str | None:
    value = told.get(name)
    if value is not None and (not isinstance(value, str) or not value):
        raise ValueError(f'{name} must be a text, such as {name} = "main"')
    return value


def _table(told: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = told.get(name, {})
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be a table: its lines follow [{name}]")
    return value


def _texts(told: Mapping[str, Any], name: str) -> dict[str, str]:
    found = _table(told, name)
    for ours, theirs in found.items():
        if not isinstance(theirs, str) or not theirs:
            raise ValueError(f'[{name}] {ours} must be the name of a column, such as {ours} = "Qty"')
    return dict(found)


def _lists(told: Mapping[str, Any], name: str) -> dict[str, list[str]]:
    found = _table(told, name)
    for column, values in found.items():
        if not isinstance(values, list) or not values or not all(isinstance(one, str) for one in values):
            raise ValueError(f'[{name}] {column} must be a list of texts, such as {column} = ["FILL"]')
    return dict(found)


def _words(told: Mapping[str, Any], name: str, known: Mapping[str, T]) -> dict[str, T]:
    found: dict[str, T] = {}
    for ours, theirs in _lists(told, name).items():
        if ours not in known:
            raise ValueError(f"[{name}] {ours!r} is not known; known are {', '.join(known)}")
        found |= {one.lower(): known[ours] for one in theirs}
    return found


def _zone(name: str | None) -> tzinfo:
    if name is None:
        return UTC
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        raise ValueError(f"zone {name!r} is not a time zone such as America/New_York") from None
