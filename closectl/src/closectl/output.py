"""What commands print: tables for people, one JSON document with --json, errors on standard error with an exit code."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, NoReturn
from uuid import UUID

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from closeflow.domain.text import decimal_text, time_text

console = Console()
errors = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)


def visible(text: str) -> str:
    """Somebody else's text with control characters written out, so that it cannot play with the terminal."""
    return "".join(one if one.isprintable() or one in "\n\t" else ascii(one)[1:-1] for one in text)


def plain(value: Any) -> str:
    """A value as a person reads it."""
    match value:
        case None:
            return ""
        case Decimal():
            return decimal_text(value)
        case datetime():
            return value.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
        case _:
            return visible(str(value))


def json_value(value: Any) -> Any:
    """A value as JSON has it: decimals and ids are strings, times RFC 3339 in UTC."""
    match value:
        case Decimal():
            return decimal_text(value)
        case datetime():
            return time_text(value)
        case UUID() | StrEnum():
            return str(value)
        case Mapping():
            return {str(key): json_value(one) for key, one in value.items()}
        case list() | tuple() | set() | frozenset():
            return [json_value(one) for one in value]
        case _:
            return value


def print_json(value: Any) -> None:
    """One document on standard output; decimals and times are strings."""
    typer.echo(json.dumps(json_value(value), indent=2))


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Iterable[str], *, title: str = "") -> None:
    """A table of these columns, in this order; a column that a row lacks is empty."""
    table = Table(title=title or None, title_justify="left", header_style="bold", box=None, pad_edge=False)
    names = list(columns)
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(plain(row.get(name))) for name in names))
    console.print(table)


def fail(message: str, *, code: int = 1) -> NoReturn:
    """Exit codes: 1 refused or a violation, 2 the environment (settings, a server that is away)."""
    errors.print(f"closectl: {visible(message)}")
    raise typer.Exit(code)
