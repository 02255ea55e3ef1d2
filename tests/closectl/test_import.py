"""Importing positions into a real database: what is new, what is the same, what contradicts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text

from closectl.import_positions import Imported, ImportRefused, import_positions
from closectl.positions_file import read_positions
from closeflow.domain.model import AssetType
from closeflow.storage.core.engine import Database, make_engine, transaction
from tests.conftest import Database as OnTestStack

HEADER = "position_id,account_id,symbol,asset_type,quantity,multiplier,currency"
FIRST = ("7,main,AAPL,stock,100,1,USD", ",main,MSFT,stock,-5,1,USD", ",main,BTC/USD,crypto,0.75,1,USD")


@pytest.fixture
async def desk(database: OnTestStack) -> AsyncIterator[Database]:
    """The operator's engine: an import may do what its role may do."""
    made = make_engine(database.dsn("closeflow_operator"), pool_size=2, application_name="closeflow-tests")
    yield made
    await made.dispose()


async def bring_in(desk: Database, *lines: str, broker: str = "alpaca") -> Imported:
    return await import_positions(desk, read_positions([HEADER, *lines]), broker=broker)


async def everything(desk: Database) -> list[tuple[object, ...]]:
    async with transaction(desk) as tx:
        rows = await tx.execute(
            text("SELECT id, account_id, symbol, opening_qty, quantity, status, version FROM positions ORDER BY id")
        )
        return [tuple(row) for row in rows]


async def close_by_hand(engine: Database, symbol: str) -> None:
    async with transaction(engine) as tx:
        closed = "UPDATE positions SET quantity = 0, status = 'closed', closed_at = now() WHERE symbol = :symbol"
        await tx.execute(text(closed), {"symbol": symbol})


async def test_positions_come_in_as_opened_with_their_ids_or_new_ones(desk: Database) -> None:
    assert await bring_in(desk, *FIRST) == Imported(added=3, unchanged=0)
    found = await everything(desk)
    assert [(row[2], row[3] == row[4], row[5], row[6]) for row in found] == [
        ("AAPL", True, "open", 1),
        ("MSFT", True, "open", 1),
        ("BTC/USD", True, "open", 1),
    ]
    assert found[0][0] == 7
    assert {row[0] for row in found[1:]} == {8, 9}, "ids that the database gives lie above those of the file"


async def test_the_same_file_again_changes_nothing(desk: Database, engine: Database) -> None:
    await bring_in(desk, *FIRST)
    await close_by_hand(engine, "MSFT")
    await close_by_hand(engine, "AAPL")
    before = await everything(desk)
    assert await bring_in(desk, *FIRST) == Imported(added=0, unchanged=3)
    assert await everything(desk) == before


async def test_a_longer_file_adds_what_is_new(desk: Database) -> None:
    await bring_in(desk, *FIRST)
    assert await bring_in(desk, *FIRST, ",other,AAPL,stock,1,1,USD") == Imported(added=1, unchanged=3)
    assert await bring_in(desk, "20,main,TSLA,stock,1,1,USD") == Imported(added=1, unchanged=0)
    assert [row[0] for row in await everything(desk)] == [7, 8, 9, 10, 20]


async def test_a_symbol_that_was_closed_can_be_opened_again(desk: Database, engine: Database) -> None:
    await bring_in(desk, *FIRST)
    await close_by_hand(engine, "AAPL")
    assert await bring_in(desk, ",main,AAPL,stock,30,1,USD") == Imported(added=1, unchanged=0)
    assert await bring_in(desk, ",main,AAPL,stock,30,1,USD") == Imported(added=0, unchanged=1)
    await close_by_hand(engine, "AAPL")
    assert await bring_in(desk, "40,main,AAPL,stock,30,1,USD") == Imported(added=1, unchanged=0)


@pytest.mark.parametrize(
    ("line", "conflict"),
    [
        ("7,main,AAPL,stock,99,1,USD", "the file says quantity 99, the position was opened with 100"),
        (",main,AAPL,stock,99,1,USD", "the file says quantity 99, the position was opened with 100"),
        (",main,AAPL,stock,100,1,EUR", "the file says currency EUR, the position was opened with USD"),
        ("7,main,TSLA,stock,100,1,USD", "the file says symbol TSLA, the position was opened with AAPL"),
        ("7,other,AAPL,stock,100,1,USD", "the file says account_id other, the position was opened with main"),
        ("9,main,AAPL,stock,100,1,USD", "the file says position_id 9, the position was opened with 7"),
    ],
)
async def test_a_contradiction_writes_nothing(desk: Database, line: str, conflict: str) -> None:
    await bring_in(desk, FIRST[0])
    before = await everything(desk)
    with pytest.raises(ImportRefused) as raised:
        await bring_in(desk, ",main,NEW,stock,1,1,USD", line)
    assert raised.value.conflicts == (f"position 7 ({' '.join(line.split(',')[1:3])}): {conflict}",)
    assert await everything(desk) == before


@pytest.mark.parametrize(
    ("changes", "conflict"),
    [
        ({"asset_type": AssetType.CRYPTO}, "the file says asset_type crypto, the position was opened with stock"),
        ({"multiplier": Decimal(100)}, "the file says multiplier 100, the position was opened with 1"),
    ],
)
async def test_what_is_here_otherwise_is_a_contradiction(
    desk: Database, changes: dict[str, Any], conflict: str
) -> None:
    """The reader lets neither of these pass, and positions are here from before it did so."""
    await bring_in(desk, FIRST[0])
    (row,) = read_positions([HEADER, FIRST[0]])
    with pytest.raises(ImportRefused) as raised:
        await import_positions(desk, [replace(row, **changes)], broker="alpaca")
    assert raised.value.conflicts == (f"position 7 (main AAPL): {conflict}",)


async def test_a_position_under_another_spelling_is_the_same_one(desk: Database, engine: Database) -> None:
    option = "main,AAPL270119C00150000,option,2,100,USD"
    await bring_in(desk, f",{option}", ",main,BTC/USD,crypto,1,1,USD", ",main,BRK.B,stock,5,1,USD")
    spelled = {"AAPL270119C00150000": "AAPL  270119C00150000", "BTC/USD": "BTCUSD", "BRK.B": "brk b"}
    async with transaction(engine) as tx:
        for symbol, old in spelled.items():
            change = text("UPDATE positions SET symbol = :old WHERE symbol = :symbol")
            await tx.execute(change, {"old": old, "symbol": symbol})
    again = (f",{option}", ",main,BTC-USD,crypto,1,1,USD", ",main,BRK B,stock,5,1,USD")
    assert await bring_in(desk, *again) == Imported(added=0, unchanged=3)
    with pytest.raises(ImportRefused):
        await bring_in(desk, ",main,AAPL  270119C00150000,option,3,100,USD")
