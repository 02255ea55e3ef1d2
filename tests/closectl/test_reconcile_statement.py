"""A broker's export against the ledger: read by a small file of columns, each bad line refused with its number."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest

from closectl.reconciling.columns import ALPACA, BadColumns, Columns, read_columns
from closectl.reconciling.statement import BadStatement, read_statement
from closeflow.domain.model import ExecKind, Side
from closeflow.storage.core.engine import Database
from closeflow.storage.verify.ledger_rows import Ledger, load_ledger
from closeflow.storage.verify.snapshot import snapshot
from tests.closectl.running import ROLE, Done, closectl
from tests.closectl.seeding import ACCOUNT
from tests.conftest import Database as OnTestStack

FIRST: Final = "fill-1-1-4"
Rows = list[dict[str, Any]]
COLUMNS: Final = """
account = "main"
zone = "America/New_York"
delimiter = ";"

[columns]
execution_id = "Trade ID"
client_order_id = "Reference"
symbol = "Symbol"
side = "Action"
quantity = "Qty"
price = "Price"
time = "Executed"
amount = "Gross"

[only]
Type = ["TRD"]

[side]
buy = ["BTC"]
sell = ["STC"]
"""
HEADER: Final = "Type;Trade ID;Reference;Symbol;Action;Qty;Price;Executed;Gross"
GOOD: Final = "TRD;e-1;;AAPL;STC;4;100.25;2026-03-02 09:30:00;401.00"


@pytest.fixture
def mapped(tmp_path: Path) -> Callable[[str], Columns]:
    def read(text: str) -> Columns:
        file = tmp_path / "columns.toml"
        file.write_text(text)
        return read_columns(file)

    return read


def problems(text: str, columns: Columns) -> tuple[str, ...]:
    with pytest.raises(BadStatement) as refused:
        read_statement(text, columns)
    return refused.value.problems


def test_an_export_is_read_by_its_own_names(mapped: Callable[[str], Columns]) -> None:
    text = "\n".join((HEADER, "DIV;;;AAPL;;;;;1.00", "", GOOD))
    (one,) = read_statement(text, mapped(COLUMNS))
    assert (one.name, one.execution_id, one.symbol, one.side) == ("line 4", "e-1", "AAPL", Side.SELL)
    assert (one.quantity, one.price, one.amount) == (Decimal(4), Decimal("100.25"), Decimal(401))
    assert one.at.isoformat() == "2026-03-02T14:30:00+00:00"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (GOOD.replace(";4;", ";4,5;"), "line 2: Qty '4,5' has a decimal comma; write 4.5"),
        (GOOD.replace("100.25", "1,100.25"), "line 2: Price '1,100.25' has commas between its digits; write 1100.25"),
        (GOOD.replace("100.25", "$100.25"), "line 2: Price '$100.25' has a currency sign; write 100.25"),
        (GOOD.replace("100.25", "-1"), "line 2: Price -1 must not be below 0"),
        (GOOD.replace(";4;", ";0;"), "line 2: Qty is 0; leave such lines out by [only]"),
        (GOOD.replace("STC", "SHORTED"), "line 2: Action 'SHORTED' is not known; say in [side] whether it is a buy or"),
        (GOOD.replace("STC;4", "BTC;-4"), "line 2: Action is BTC and Qty -4; which is it?"),
        (GOOD.replace("2026-03-02 09:30:00", "03/22/2026"), "'03/22/2026' is not a time such as 2026-03-02T14:30:00Z;"),
        (GOOD.replace("2026-03-02 09:30:00", "03/22/2026"), "; write 2026-03-22"),
        (GOOD.replace("2026-03-02 09:30:00", "03/02/2026"), "which of its numbers is the month?"),
        (GOOD.replace("2026-03-02 09:30:00", "9.30"), "'9.30' is not a time such as 2026-03-02T14:30:00Z"),
        (GOOD.replace("AAPL", ""), "line 2: Symbol is empty"),
        (GOOD.replace(";401.00", ""), "line 2: 8 fields, the header has 9"),
        (GOOD.replace("e-1", '"e-1'), "line 2: not CSV: "),
    ],
)
def test_a_bad_line_is_refused_with_its_number_and_what_is_meant(
    mapped: Callable[[str], Columns], line: str, told: str
) -> None:
    (problem,) = problems(f"{HEADER}\n{line}", mapped(COLUMNS))
    assert told in problem


def test_every_bad_line_is_told_at_once(mapped: Callable[[str], Columns]) -> None:
    bad = GOOD.replace(";4;", ";four;")
    found = problems("\n".join((HEADER, bad, GOOD, bad)), mapped(COLUMNS))
    assert [one.partition(":")[0] for one in found] == ["line 2", "line 4"]
    many = problems("\n".join((HEADER, *[bad] * 150)), mapped(COLUMNS))
    assert len(many) == 101
    assert many[-1] == "and 50 lines more"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "the file is empty; its first line names the columns"),
        (HEADER.replace("Qty", "Qtys"), "there is no column 'Qty' (is 'Qtys' meant?); there are Type, "),
        (HEADER.replace(";", ","), 'the fields are separated by commas; say delimiter = ","'),
        (HEADER + ";Qty", "the column 'Qty' is there more than once"),
        ("[1, 2", "not JSON: "),
        ('{"Type": "TRD"}', "entry 1: there is no column 'Symbol'"),
        ("[1]", "entry 1: it is no object such as"),
    ],
)
def test_a_file_that_is_none_is_told(mapped: Callable[[str], Columns], text: str, told: str) -> None:
    assert told in problems(text, mapped(COLUMNS))[0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("quantity = ", "is not TOML"),
        ('[colums]\nsymbol = "S"', "'colums' is not known (is 'columns' meant?)"),
        ('[columns]\nsymbl = "S"', "[columns] 'symbl' is not known (is 'symbol' meant?)"),
        ('[columns]\nsymbol = "S"', 'says not what the export calls quantity, price, time; add quantity = "its name"'),
        ("[columns]\nsymbol = 1", "[columns] symbol must be the name of a column"),
        (COLUMNS.replace("America/New_York", "EST5EDT/Nowhere"), "is not a time zone such as America/New_York"),
        (COLUMNS.replace('";"', '";;"'), "must be one character"),
        (COLUMNS.replace('["TRD"]', '"TRD"'), "[only] Type must be a list of texts"),
        (COLUMNS.replace("buy =", "bought ="), "[side] 'bought' is not known; known are buy, sell"),
        (COLUMNS.replace('symbol = "Symbol"', 'symbol = "Symbol"\naccount = "A"'), "give one of them"),
        ("account = 7", "account must be a text"),
        ("columns = 7", "columns must be a table"),
    ],
)
def test_columns_that_cannot_be_are_told(mapped: Callable[[str], Columns], text: str, told: str) -> None:
    with pytest.raises(BadColumns) as refused:
        mapped(text)
    assert told in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_a_day_alone_is_some_time_of_it(mapped: Callable[[str], Columns]) -> None:
    for told in ("2026-03-02", "20260302"):
        (one,) = read_statement(f"{HEADER}\n{GOOD.replace('2026-03-02 09:30:00', told)}", mapped(COLUMNS))
        assert one.at.isoformat() == "2026-03-02T12:00:00+00:00"


def test_what_alpaca_lists_is_read_without_a_file_of_columns() -> None:
    fill = {
        "id": "20260302143000000::9f3",
        "activity_type": "FILL",
        "type": "partial_fill",
        "transaction_time": "2026-03-02T14:30:00.123Z",
        "price": 100.25,
        "qty": "4",
        "side": "sell_short",
        "symbol": "AAPL",
        "order_id": "o-1",
        "cum_qty": "4",
    }
    bust = {**fill, "id": "b", "type": "trade_bust", "previous_id": fill["id"]}
    other = {"id": "d", "activity_type": "DIV"}
    for text in (json.dumps([fill, other, bust]), "\n".join(map(json.dumps, (fill, other, bust)))):
        first, second = read_statement(text, ALPACA)
        assert (first.price, first.side, first.kind) == (Decimal("100.25"), Side.SELL, ExecKind.TRADE)
        assert (second.kind, second.replaces) == (ExecKind.BUST, fill["id"])


@pytest.fixture
async def export(closes: Database) -> Rows:
    """What the broker's own export would have of the seeded closes."""
    async with snapshot(closes) as tx:
        ledger: Ledger = await load_ledger(tx)
    return [
        {
            "Type": "TRD",
            "Trade ID": one.exec_id,
            "Reference": one.client_order_id,
            "Symbol": one.symbol,
            "Action": str(one.side),
            "Qty": str(one.quantity),
            "Price": str(one.price),
            "Executed": (one.occurred_at + timedelta(milliseconds=3)).isoformat(),
            "Gross": f"{(one.quantity or 0) * (one.price or 0) * one.multiplier:.2f}",
        }
        for one in ledger.rows
    ]


def as_csv(rows: Rows) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), delimiter=";")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def compared(directory: Path, text: str, settings: Mapping[str, str], *more: str, name: str = "export") -> Done:
    (directory / name).write_text(text)
    (directory / "columns.toml").write_text(COLUMNS)
    arguments = [str(directory / name), "--columns", str(directory / "columns.toml"), "--without", "events", *more]
    return closectl("reconcile", "statement", *arguments, **settings)


@pytest.mark.parametrize("write", [as_csv, json.dumps], ids=["csv", "json"])
def test_an_export_that_agrees_has_no_difference(
    export: Rows, closes_database: OnTestStack, tmp_path: Path, write: Callable[[Rows], str]
) -> None:
    rows = export
    foreign = {**rows[0], "Trade ID": "x", "Symbol": "ZZZ", "Reference": ""}
    done = compared(tmp_path, write([*rows, foreign]), {"postgres_dsn": closes_database.dsn(ROLE)}, "--json")
    assert done.exit_code == 0, done
    found = json.loads(done.stdout)
    assert found["agrees"]
    assert (found["counts"]["broker"], found["foreign"]) == (5, 1)
    assert {one["symbol"] for one in found["days"]} == {"AAPL", "MSFT", "NVDA"}
    assert all(one["broker"] == one["executions"] for one in found["days"])


def test_what_an_export_says_otherwise_is_named_with_its_line(
    export: Rows, closes_database: OnTestStack, tmp_path: Path
) -> None:
    rows = export
    at = next(number for number, one in enumerate(rows) if one["Trade ID"] == FIRST)
    off, gone, extra = dict(rows[at]), rows[at + 1], {**rows[-1], "Trade ID": "n", "Qty": "1", "Gross": "100.25"}
    off["Gross"] = "401.01"
    extra["Executed"] = "2026-03-02T14:30:00Z"
    text = as_csv([*rows[:at], off, *(one for one in rows[at + 1 :] if one is not gone), extra])
    done = compared(tmp_path, text, {"postgres_dsn": closes_database.dsn(ROLE)}, "--json", "--account", ACCOUNT)
    assert done.exit_code == 1, done
    found = [(one["kind"], one["subject"], one["cash"]) for one in json.loads(done.stdout)["differences"]]
    assert ("amount_differs", f"execution {FIRST}", "-0.01") in found
    assert ("not_booked", f"line {len(rows) + 1}", "-100.25" if extra["Action"] == "sell" else "100.25") in found
    assert any(kind == "not_at_broker" and subject == f"execution {gone['Trade ID']}" for kind, subject, _ in found)
    assert len(found) == 3


def test_a_file_that_is_refused_compares_nothing(export: Rows, closes_database: OnTestStack, tmp_path: Path) -> None:
    rows = export
    rows[1]["Qty"] = "four"
    settings = {"postgres_dsn": closes_database.dsn(ROLE)}
    done = compared(tmp_path, as_csv(rows), settings)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "line 3: Qty 'four' is not a number" in done.stderr
    none = compared(tmp_path, HEADER, settings)
    assert "has no executions; give --since and --until" in none.stderr
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    assert "is not UTF-8" in closectl("reconcile", "statement", str(tmp_path / "bytes"), **settings).stderr
