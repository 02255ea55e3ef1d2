"""What a positions file may say, and what is said of one that cannot be imported."""

from __future__ import annotations

from decimal import Decimal

import pytest

from closectl.positions_file import BadFile, read_positions
from closeflow.domain.model import AssetType
from closeflow.storage.imported_positions import NewPosition

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
        (
            "main,AAPL,stock,9,999.99,1,USD",
            "7 fields, the header has 6; is a comma in a number, as in 9,999.99? Write 9999.99",
        ),
        ("main,AAPL,stock,1,000,1,USD", "7 fields, the header has 6; is a comma in a number, as in 1,000? Write 1000"),
        ("main,AAPL,stock,1,1,USD,note", "7 fields, the header has 6"),
        (",AAPL,stock,1,1,USD", "account_id is empty"),
        ("main, ,stock,1,1,USD", "symbol is empty"),
        ("main,AAPL,stock,,1,USD", "quantity is empty"),
        ("main,AA\x00PL,stock,1,1,USD", "symbol 'AA\\x00PL' must be at most 128 printable characters"),
        (f"main,{'A' * 129},stock,1,1,USD", f"symbol '{'A' * 129}' must be at most 128 printable characters"),
        ("main,AAPL,bond,1,1,USD", "asset_type 'bond' is not one of stock, option, crypto"),
        ("main,AAPL,stock,ten,1,USD", "quantity 'ten' is not a number written with digits and at most one point"),
        ('main,AAPL,stock,"9,999.99",1,USD', "quantity '9,999.99' has commas between its digits; write 9999.99"),
        ('main,AAPL,stock,"-1,000",1,USD', "quantity '-1,000' has commas between its digits; write -1000"),
        ('main,AAPL,stock,"1.234,5",1,USD', "quantity '1.234,5' has a decimal comma; write 1234.5"),
        ('main,AAPL,stock,"12,5",1,USD', "quantity '12,5' has a decimal comma; write 12.5"),
        ("main,AAPL,stock,(100),1,USD", "quantity '(100)' is in brackets; write -100"),
        ('main,AAPL,stock,"(1,000.5)",1,USD', "quantity '(1,000.5)' is in brackets; write -1000.5"),
        ("main,AAPL,stock,100-,1,USD", "quantity '100-' has its sign behind it; write -100"),
        ("main,AAPL,stock,−100,1,USD", "quantity '−100' has a dash for a sign; write -100"),
        ("main,AAPL,stock,$100,1,USD", "quantity '$100' has a currency sign; write 100"),
        ("main,AAPL,stock,100 shares,1,USD", "quantity '100 shares' is not a number written with digits"),
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
        ("main,AAPL270119C00150000,option,1.5,100,USD", "quantity 1.5: options are held in whole contracts"),
        ("main,AAPL,stock,1,0,USD", "multiplier must be above 0"),
        ("main,AAPL,stock,1,-1,USD", "multiplier must be above 0"),
        ("main,AAPL,stock,1,0.0000000000000000001,USD", "multiplier 0.0000000000000000001 has more than 18 digits"),
        ("main,AAPL,stock,1,100,USD", "multiplier is 100: a stock's is 1"),
        ("main,BTC/USD,crypto,1,10,USD", "multiplier is 10: a crypto's is 1"),
        ("main,AAPL270119C00150000,option,1,1,USD", "multiplier is 1: an option's is 100"),
        ("main,AAPL270119C00150000,option,1,10,USD", "multiplier is 10: an option's is 100"),
        (
            "main,AAPL270119C00150000,stock,1,1,USD",
            "symbol 'AAPL270119C00150000' is an option's symbol; its asset_type",
        ),
        ("main,BTC,crypto,1,1,USD", "symbol 'BTC' is not a pair's symbol, which is written as BTC/USD; is it BTC/USD?"),
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


def test_one_contract_under_two_spellings_is_one_position() -> None:
    text = f"""{HEADER}
main,AAPL270119C00150000,option,2,100,USD
main,AAPL  270119C00150000,option,1,100,USD
main,BTCUSD,crypto,1,1,USD
main,BTC/USD,crypto,1,1,USD
main,brk b,stock,1,1,USD
"""
    assert problems(text) == (
        "lines 2, 3: account main has AAPL270119C00150000 more than once; the broker nets them, so give their sum once",
        "lines 4, 5: account main has BTC/USD more than once; the broker nets them, so give their sum once",
    )


def numbers(found: NewPosition) -> tuple[int, int]:
    return int(found.quantity), int(found.multiplier)


def test_an_adjusted_option_may_have_another_multiplier() -> None:
    (found,) = read_positions([HEADER, "main,AAPL1 270119C00150000,option,1,10,USD"])
    assert (found.symbol, *numbers(found)) == ("AAPL1270119C00150000", 1, 10)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            f"{HEADER.replace(',', ';')}\nmain;AAPL;stock;1;1;USD\n",
            "line 1: the fields are separated by semicolons; separate them by commas, and write numbers with a point",
        ),
        (
            f"{HEADER.replace(',', chr(9))}\nmain\tAAPL\tstock\t1\t1\tUSD\n",
            "line 1: the fields are separated by tabs; separate them by commas, and write numbers with a point",
        ),
        (
            f"Positions of account main\n\n{HEADER}\nmain,AAPL,stock,1,1,USD\n",
            "line 1: the columns are named in line 3; remove the lines before it",
        ),
        (
            f'"Positions as of 03/02/2026, 9:30 AM"\n"x","y"\n{HEADER}\nmain,AAPL,stock,1,1,USD\n',
            "line 1: the columns are named in line 3; remove the lines before it",
        ),
    ],
)
def test_what_is_wrong_with_the_whole_file_is_told_once(text: str, problem: str) -> None:
    assert problems(text) == (problem,)


SCHWAB = """"Symbol","Description","Qty (Quantity)","Price","Mkt Val","Security Type","Account"
"AAPL","APPLE INC","100","190.1","19010","Equity","main"
"BRK/B","BERKSHIRE","-5","400","-2000","Equity","main"
"AAPL  270119C00150000","CALL","3","10","3000","Option","main"
"""
ALPACA = """asset_id,symbol,exchange,asset_class,qty,side,market_value
x,AAPL,NASDAQ,us_equity,100,long,19000
x,TSLA,NASDAQ,us_equity,5,short,-1000
x,MSFT,NASDAQ,us_equity,-5,short,-1000
x,AAPL270119C00150000,,us_option,3,long,3000
x,BTCUSD,,crypto,0.25,long,15000
"""
IBKR = """ClientAccountID,CurrencyPrimary,AssetClass,Symbol,Quantity,Multiplier
main,USD,STK,BRK B,5,1
main,USD,OPT,AAPL  270119C00150000,-2,100
"""


def test_an_export_with_names_and_columns_of_its_own_is_read_with_a_map() -> None:
    columns = {"Qty (Quantity)": "quantity", "Security Type": "asset_type", "Account": "account_id"}
    found = read_positions(SCHWAB.splitlines(), columns)
    assert [(one.account_id, one.symbol, one.asset_type, *numbers(one), one.currency) for one in found] == [
        ("main", "AAPL", AssetType.STOCK, 100, 1, "USD"),
        ("main", "BRK.B", AssetType.STOCK, -5, 1, "USD"),
        ("main", "AAPL270119C00150000", AssetType.OPTION, 3, 100, "USD"),
    ]


def test_a_side_gives_the_sign() -> None:
    columns = {"qty": "quantity", "asset_class": "asset_type", "exchange": "account_id"}
    rows = ALPACA.replace(",,", ",NASDAQ,").splitlines()
    found = read_positions(rows, columns)
    assert [(one.symbol, str(one.quantity)) for one in found] == [
        ("AAPL", "100"),
        ("TSLA", "-5"),
        ("MSFT", "-5"),
        ("AAPL270119C00150000", "3"),
        ("BTC/USD", "0.25"),
    ]
    wrong = [rows[0], "x,TSLA,NASDAQ,us_equity,-5,long,1", "x,AAPL,NASDAQ,us_equity,5,flat,1"]
    with pytest.raises(BadFile) as raised:
        read_positions(wrong, columns)
    assert raised.value.problems == (
        "line 2: side is long and quantity -5; which is it?",
        "line 3: side 'flat' is not long or short",
    )


def test_a_map_may_name_every_column() -> None:
    columns = {
        "ClientAccountID": "account_id",
        "CurrencyPrimary": "currency",
        "AssetClass": "asset_type",
    }
    found = read_positions(IBKR.splitlines(), columns)
    assert [(one.symbol, *numbers(one)) for one in found] == [("BRK.B", 5, 1), ("AAPL270119C00150000", -2, 100)]


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        (
            {"Qty": "quantity"},
            "line 1: --map names the column 'Qty', which is not there; there are Symbol, Description",
        ),
        ({"Account": "account"}, "--map gives the column 'Account' the name 'account', which is none of account_id,"),
        ({"Account": "symbol", "Security Type": "asset_type"}, "line 1: the column symbol is there 2 times"),
        ({"Security Type": "asset_type"}, "line 1: the column account_id is missing"),
    ],
)
def test_a_map_that_does_not_fit_is_told(columns: dict[str, str], problem: str) -> None:
    with pytest.raises(BadFile) as raised:
        read_positions(SCHWAB.splitlines(), columns)
    assert any(one.startswith(problem) for one in raised.value.problems)


def test_a_constant_stands_for_a_column_that_is_not_there() -> None:
    columns = {"Qty (Quantity)": "quantity", "Security Type": "asset_type"}
    rows = [line.rsplit(",", 1)[0] for line in SCHWAB.splitlines()]
    found = read_positions(rows, columns, {"account_id": "main", "currency": "usd"})
    assert {(one.account_id, one.currency) for one in found} == {("main", "USD")}


@pytest.mark.parametrize(
    ("header", "columns", "constants"),
    [
        (HEADER, None, {"account_id": "other"}),
        (HEADER.replace("account_id", "Account"), {"account": "account_id"}, {"account_id": "other"}),
        (HEADER, None, {"currency": "EUR"}),
    ],
)
def test_a_value_for_every_line_does_not_override_a_column(
    header: str, columns: dict[str, str] | None, constants: dict[str, str]
) -> None:
    with pytest.raises(BadFile) as raised:
        read_positions([header, "main,AAPL,stock,1,1,USD"], columns, constants)
    ((name, value),) = constants.items()
    assert raised.value.problems == (f"line 1: --set gives {name} the value {value!r}, and the file has that column",)
