"""Many rows in one statement, exact to the last digit."""

import uuid
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import StrEnum
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from closeflow.storage.core.bulk import bigints, insert_rows, rows_json, texts, update_rows
from closeflow.storage.core.engine import is_poison, sqlstate, transaction
from closeflow.storage.core.statements import fetch
from closeflow.storage.schema import tables
from tests.conftest import Database
from tests.storage.seeding import add_position, owner


class Asset(StrEnum):
    """An enum as domain data has them, to be written as its value."""

    CRYPTO = "crypto"


POSITION = ("id", "account_id", "symbol", "asset_type", "opening_qty", "quantity", "closed_at")
ADD_POSITIONS = insert_rows(tables.positions, POSITION)
ADD_OR_IGNORE = insert_rows(tables.positions, POSITION, conflict="(id) DO NOTHING", returning=("id",))
SET_QUANTITY = update_rows(
    tables.positions, ("id",), ("quantity", "version"), where="positions.status = 'open'", returning=("id",)
)
PARK = insert_rows(tables.parked_records, ("topic", "partition", "offset", "key", "bytes", "headers", "reason"))


def position(number: int, **changed: object) -> dict[str, object]:
    values: dict[str, object] = {"id": number, "account_id": "acc", "symbol": f"S{number}", "asset_type": Asset.CRYPTO}
    return values | {"opening_qty": Decimal(1), "quantity": Decimal(1), "closed_at": None} | changed


@pytest.fixture
def account(database: Database) -> None:
    with owner(database.admin_dsn) as db:
        add_position(db)


async def written(engine: AsyncEngine) -> dict[int, Any]:
    async with engine.connect() as tx:
        rows = await tx.execute(select(tables.positions).where(tables.positions.c.id > 100))
        return {row.id: row for row in rows}


async def test_the_elements_of_an_array_arrive_as_they_left(engine: AsyncEngine) -> None:
    odd = ["", "NULL", 'a"b', "a\\b", '\\"', "{x,y}", " ", "ä", "1 ACC", "a\nb"]
    numbers = [1, 2**63 - 1, -5]
    statement = text("SELECT CAST(:words AS text[]) AS words, CAST(:numbers AS bigint[]) AS numbers")
    async with transaction(engine) as tx:
        (row,) = await fetch(tx, statement, {"words": texts(odd), "numbers": bigints(numbers)})
        (empty,) = await fetch(tx, statement, {"words": texts([]), "numbers": bigints([])})
    assert (row["words"], row["numbers"]) == (odd, numbers)
    assert (empty["words"], empty["numbers"]) == ([], [])


@pytest.mark.usefixtures("account")
async def test_values_arrive_as_they_left(engine: AsyncEngine) -> None:
    exact = Decimal("12345678901234567890.123456789012345678900")
    at = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=5)))
    async with transaction(engine) as tx:
        await tx.execute(
            ADD_POSITIONS, {"rows": rows_json([position(101, quantity=-exact, closed_at=at), position(102)])}
        )
    found = await written(engine)
    assert str(found[101].quantity) == str(-exact)
    assert found[101].closed_at == at
    assert (found[102].asset_type, found[102].closed_at, found[102].currency) == ("crypto", None, "USD")


@pytest.mark.usefixtures("account")
async def test_rows_that_are_there_already_do_not_come_back(engine: AsyncEngine) -> None:
    async with transaction(engine) as tx:
        first = await tx.execute(ADD_OR_IGNORE, {"rows": rows_json([position(101)])})
        second = await tx.execute(ADD_OR_IGNORE, {"rows": rows_json([position(101), position(102)])})
    assert (first.scalars().all(), second.scalars().all()) == ([101], [102])


@pytest.mark.usefixtures("account")
async def test_an_update_touches_the_rows_named_that_meet_the_condition(engine: AsyncEngine) -> None:
    rows = [position(101), position(102), position(103)]
    changes = [{"id": number, "quantity": Decimal("0.1"), "version": 7} for number in (101, 102)]
    async with transaction(engine) as tx:
        await tx.execute(ADD_POSITIONS, {"rows": rows_json(rows)})
        await tx.execute(tables.positions.update().where(tables.positions.c.id == 102).values(status="closing"))
        changed = await tx.execute(SET_QUANTITY, {"rows": rows_json(changes)})
    assert changed.scalars().all() == [101]
    assert {key: (str(row.quantity), row.version) for key, row in (await written(engine)).items()} == {
        101: ("0.1", 7),
        102: ("1", 1),
        103: ("1", 1),
    }


@pytest.mark.usefixtures("account")
async def test_an_update_says_when_it_was(engine: AsyncEngine) -> None:
    async with transaction(engine) as tx:
        await tx.execute(ADD_POSITIONS, {"rows": rows_json([position(101), position(102)])})
        await tx.execute(SET_QUANTITY, {"rows": rows_json([{"id": 101, "quantity": Decimal(2), "version": 2}])})
    rows = await written(engine)
    assert rows[101].updated_at > rows[101].created_at
    assert rows[102].updated_at == rows[102].created_at


async def test_bytes_and_documents_survive(engine: AsyncEngine) -> None:
    parked = {"topic": "t", "partition": 0, "offset": 2**62, "key": b"\x00\xff", "bytes": None, "reason": "r"}
    document = {"a": [1, None, "x"], "price": Decimal("1.10"), "id": uuid.UUID(int=1)}
    async with transaction(engine) as tx:
        await tx.execute(PARK, {"rows": rows_json([parked | {"headers": document}])})
    async with engine.connect() as tx:
        row = (await tx.execute(select(tables.parked_records))).one()
    assert (row.offset, row.key, row.bytes) == (2**62, b"\x00\xff", None)
    assert row.headers == {"a": [1, None, "x"], "price": "1.10", "id": str(uuid.UUID(int=1))}


@pytest.mark.parametrize(
    "value",
    [1.5, Decimal("NaN"), Decimal("Infinity"), datetime(2026, 1, 1, tzinfo=UTC).replace(tzinfo=None), object()],
    ids=["binary float", "NaN", "infinity", "time without a zone", "anything else"],
)
def test_what_cannot_be_a_value_is_refused_here(value: object) -> None:
    with pytest.raises(TypeError):
        rows_json([{"quantity": value}])


def test_a_misspelt_column_is_noticed_when_the_statement_is_built() -> None:
    with pytest.raises(KeyError, match="quantty"):
        update_rows(tables.positions, ("id",), ("quantty",))


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize(
    ("changed", "state"),
    [
        ({"symbol": "nul \x00"}, "22P05"),
        ({"account_id": "nobody"}, "23503"),
        ({"asset_type": "bond"}, "23514"),
        ({"quantity": "ten"}, "22P02"),
    ],
)
async def test_a_row_the_database_refuses_is_poison(
    engine: AsyncEngine, changed: dict[str, object], state: str
) -> None:
    with pytest.raises(DBAPIError) as caught:
        async with transaction(engine) as tx:
            await tx.execute(ADD_POSITIONS, {"rows": rows_json([position(101), position(102, **changed)])})
    assert (sqlstate(caught.value), is_poison(caught.value)) == (state, True)
    assert await written(engine) == {}
