"""The positions file, walks and numbers, without a server."""

from decimal import Decimal

import pytest

from broker_simulator.behaviour import FillInParts, steps_of
from broker_simulator.numbers import parse_time, plain, rfc3339
from broker_simulator.positions import BadPositionsCsv, after_fill, net, read_positions_csv
from broker_simulator.quotes import Quote, QuoteBoard

HEADER = "account_id,symbol,asset_type,quantity,multiplier,currency"


def test_rows_are_read_netted_and_chosen_by_account() -> None:
    text = f"\ufeff{HEADER},position_id\nA,AAPL,stock,1.5,1,USD,1\nA,AAPL,stock,-4,1,USD,\nB,TSLA,stock,2,1,USD,3\n"
    assert {symbol: seed.qty for symbol, seed in net(read_positions_csv(text)).items()} == {
        "AAPL": Decimal("-2.5"),
        "TSLA": Decimal(2),
    }
    assert [seed.symbol for seed in read_positions_csv(text, "B")] == ["TSLA"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "header"),
        ("account_id,symbol\n", "missing: asset_type"),
        (f"{HEADER},colour\n", "unknown: colour"),
        (f"{HEADER}\nA,AAPL,share,1,1,USD\n", "line 2: asset_type"),
        (f"{HEADER}\nA,,stock,1,1,USD\n", "line 2: symbol"),
        (f"{HEADER}\nA,AAPL,stock,NaN,1,USD\n", "line 2: quantity"),
        (f"{HEADER}\nA,AAPL,stock\n", "line 2: quantity"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(text: str, words: str) -> None:
    with pytest.raises(BadPositionsCsv, match=words):
        read_positions_csv(text)


def test_the_average_price_follows_the_fills() -> None:
    opened = after_fill(None, "AAPL", "us_equity", "buy", Decimal(10), Decimal(100))
    more = after_fill(opened, "AAPL", "us_equity", "buy", Decimal(10), Decimal(110))
    less = after_fill(more, "AAPL", "us_equity", "sell", Decimal(5), Decimal(200))
    crossed = after_fill(less, "AAPL", "us_equity", "sell", Decimal(20), Decimal(90))
    assert [f"{p.qty}@{plain(p.avg_entry_price)}" for p in (more, less, crossed)] == ["20@105", "15@105", "-5@90"]


def test_the_same_seed_walks_the_same_way() -> None:
    def walked(seed: int) -> list[Quote | None]:
        board = QuoteBoard(seed, {})
        quotes = []
        for tick in range(50):
            board.tick(tick)
            quotes.append(board.quote("AAPL", tick))
        return quotes

    assert walked(1) == walked(1) != walked(2)
    assert len(set(walked(1))) == 50


def test_parts_add_up() -> None:
    for quantity, parts in [("10", 3), ("2", 5), ("0.7", 3), ("0.000000001", 4)]:
        steps = steps_of(FillInParts(parts=parts), Decimal(quantity)) or ()
        assert sum(step.quantity or 0 for step in steps) == Decimal(quantity)
        assert len(steps) <= parts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-02T03:04:05.123456789Z", "2026-01-02T03:04:05.123456Z"),
        ("2026-01-02T03:04:05 01:00", "2026-01-02T02:04:05.000000Z"),
        ("2026-01-02", "2026-01-02T00:00:00.000000Z"),
    ],
)
def test_times_are_read_to_the_microsecond(text: str, expected: str) -> None:
    assert rfc3339(parse_time(text) or 0) == expected


def test_numbers_are_written_plainly() -> None:
    assert [plain(Decimal(text)) for text in ("1.500", "1E+2", "-0.0", "0.000000001")] == [
        "1.5",
        "100",
        "0",
        "0.000000001",
    ]
