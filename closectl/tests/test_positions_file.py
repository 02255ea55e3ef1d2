"""What a positions file may say, and what is said of one that cannot be imported."""

from __future__ import annotations

from decimal import Decimal

import pytest

from closectl.positions_file import BadFile, read_positions
from closeflow.domain.model import AssetType

HEADER = "account_id,symbol,asset_type,quantity,multiplier,currency"
WITH_ID = f"position_id,{HEADER}"


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(BadFile) as raised:
        read_positions(text.splitlines())
    return raised.value.problems


def test_every_kind_of_position_is_read_as_written() -> None:
    text = """# the desk's book
Currency, Account_ID ,symbol,asset_type,quantity,multiplier,position_id

usd,main,AAPL,stock,100,1,7
USD,main,BRK.B,Stock,-0.250000001,1,
# an option
USD,"main",AAPL261218C00200000,option,-3.0,100,
EUR,other,BTC/USD,crypto,+.5,1,9
"""
    found = read_positions(text.splitlines())
    assert [(one.position_id, one.account_id, one.symbol, one.quantity, one.currency) for one in found] == [
        (7, "main", "AAPL", Decimal(100), "USD"),
        (None, "main", "BRK.B", Decimal("-0.250000001"), "USD"),
        (None, "main", "AAPL261218C00200000", Decimal(-3), "USD"),
        (9, "other", "BTC/USD", Decimal("0.5"), "EUR"),
    ]
    assert [one.asset_type for one in found] == [*[AssetType.STOCK] * 2, AssetType.OPTION, AssetType.CRYPTO]
    assert found[2].multiplier == 100


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("main,AAPL,stock,1,1", "5 fields, the header has 6"),
        ("main,AAPL,stock,1,000,1,USD", "7 fields, the header has 6"),
        (",AAPL,stock,1,1,USD", "account_id is empty"),
        ("main, ,stock,1,1,USD", "symbol is empty"),
        ("main,AAPL,stock,,1,USD", "quantity is empty"),
        ("main,AA\x00PL,stock,1,1,USD", "symbol 'AA\\x00PL' must be at most 128 printable characters"),
        (f"main,{'A' * 129},stock,1,1,USD", f"symbol '{'A' * 129}' must be at most 128 printable characters"),
        ("main,AAPL,bond,1,1,USD", "asset_type 'bond' is not one of stock, option, crypto"),
        ("main,AAPL,stock,ten,1,USD", "quantity 'ten' is not a number written with digits and at most one point"),
        ("main,AAPL,stock,1_000,1,USD", "quantity '1_000' is not a number written with digits and at most one point"),
        ("main,AAPL,stock,1e3,1,USD", "quantity '1e3' is not a number written with digits and at most one point"),
        ("main,AAPL,stock,NaN,1,USD", "quantity 'NaN' is not a number written with digits and at most one point"),
        ("main,AAPL,stock,-inf,1,USD", "quantity '-inf' is not a number written with digits and at most one point"),
        ("main,AAPL,stock,١٢,1,USD", "quantity '١٢' is not a number written with digits and at most one point"),
        ("main,AAPL,stock,0.00,1,USD", "quantity is 0: there is nothing to close"),
        ("main,AAPL,stock,1000000000000000,1,USD", "quantity 1000000000000000 must be below 1000000000000000"),
        (
            "main,AAPL,stock,0.0000000001,1,USD",
            "quantity 1E-10 could not be closed: more than 9 digits after the point",
        ),
        ("main,AAPL,option,1.5,100,USD", "quantity 1.5: options are held in whole contracts"),
        ("main,AAPL,stock,1,0,USD", "multiplier must be above 0"),
        ("main,AAPL,stock,1,-1,USD", "multiplier must be above 0"),
        ("main,AAPL,stock,1,0.0000000000000000001,USD", "multiplier 0.0000000000000000001 has more than 18 digits"),
        ("main,AAPL,stock,1,1,DOLLAR", "currency 'DOLLAR' is not an ISO 4217 code such as USD"),
        ("main,AAPL,stock,1,1,ÄÖÜ", "currency 'ÄÖÜ' is not an ISO 4217 code such as USD"),
        ('main,"AAPL,stock,1,1,USD', "not CSV: unexpected end of data; a position is one line, with its quotes closed"),
        ('main,"AA"PL,stock,1,1,USD', "not CSV: ',' expected after '\"'; a position is one line"),
    ],
)
def test_a_bad_line_is_named_by_its_number_in_the_file(line: str, problem: str) -> None:
    (found,) = problems(f"# comment\n{HEADER}\n\nmain,GOOD,stock,1,1,USD\n{line}\n")
    assert found.startswith(f"line 5: {problem}")


@pytest.mark.parametrize("text", ["0", "-1", "1.0", "9223372036854775808", "1" * 5000, "²", "one"])
def test_a_position_id_is_a_whole_number_of_the_database(text: str) -> None:
    (found,) = problems(f"{WITH_ID}\n{text},main,AAPL,stock,1,1,USD\n")
    assert found == f"line 2: position_id '{text}' is not a whole number from 1 to 9223372036854775807"


def test_every_problem_is_told_at_once() -> None:
    found = problems(f"{HEADER}\nmain,A,stock,x,1,USD\nmain,B,stock,1,1,USD\nmain,C,bond,1,1,USD\n")
    assert [one.partition(":")[0] for one in found] == ["line 2", "line 4"]


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("account_id,symbol,asset_type,quantity,multiplier", "line 2: the column currency is missing; needed are"),
        (f"{HEADER},note", "line 2: the column 'note' is not known; known are account_id"),
        (f"{HEADER},symbol", "line 2: the column symbol is there 2 times"),
        ("main,AAPL,stock,1,1,USD", "line 2: the column account_id is missing"),
    ],
)
def test_a_header_must_name_the_columns(header: str, found: str) -> None:
    assert problems(f"# comment\n{header}\nmain,AAPL,stock,1,1,USD\n")[0].startswith(found)


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n"])
def test_an_empty_file_is_told_what_its_first_line_is(text: str) -> None:
    assert problems(text) == (f"the file is empty; its first line names the columns: {HEADER}",)


def test_a_file_of_no_positions_is_a_file() -> None:
    assert read_positions([HEADER]) == ()


def test_what_is_there_twice_is_named_by_its_lines() -> None:
    text = f"""{WITH_ID}
1,main,AAPL,stock,1,1,USD
2,main,MSFT,stock,1,1,USD
2,main,AAPL,stock,5,1,USD
3,other,AAPL,stock,5,1,USD
"""
    assert problems(text) == (
        "lines 2, 4: account main has AAPL more than once; the broker nets them, so give their sum once",
        "lines 3, 4: position_id 2 is there more than once",
    )
