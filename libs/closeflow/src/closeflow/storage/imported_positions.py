"""Bring positions in from outside: the import's look-ups and inserts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from sqlalchemy import text

from closeflow.domain.model import AssetType, PositionStatus
from closeflow.storage.core.bulk import insert_rows, rows_json
from closeflow.storage.core.engine import Transaction
from closeflow.storage.schema import tables


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPosition:
    """A position as a file states it; `quantity` is signed. Without an id the database chooses one."""

    position_id: int | None
    account_id: str
    symbol: str
    asset_type: AssetType
    quantity: Decimal
    multiplier: Decimal
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownPosition:
    """What an import compares a line of its file with."""

    id: int
    account_id: str
    symbol: str
    asset_type: AssetType
    opening_quantity: Decimal
    multiplier: Decimal
    currency: str
    status: PositionStatus


# Two imports at once would both find a position missing; one waits for the other.
_LOCK: Final = text("SELECT pg_advisory_xact_lock(hashtext('closeflow'), hashtext('import_positions'))")
_KNOWN: Final = text("""
    SELECT p.* FROM positions p
    WHERE p.id = ANY(CAST(:ids AS bigint[]))
       OR (p.account_id, p.symbol) IN (SELECT * FROM unnest(CAST(:accounts AS text[]), CAST(:symbols AS text[])))
    ORDER BY p.id
""")
_ACCOUNTS: Final = insert_rows(tables.accounts, ["account_id", "broker"], conflict="DO NOTHING")
_COLUMNS: Final = ("account_id", "symbol", "asset_type", "multiplier", "currency", "opening_qty", "quantity")
_POSITIONS: Final = insert_rows(tables.positions, _COLUMNS)
_POSITIONS_WITH_ID: Final = insert_rows(tables.positions, ("id", *_COLUMNS))
# An id that came from outside must not be given out again.
_ADVANCE_IDS: Final = text("""
    SELECT setval(pg_get_serial_sequence('positions', 'id'), GREATEST((SELECT max(id) FROM positions), 1))
""")


async def known_positions(
    tx: Transaction, *, rows: Sequence[NewPosition], names: Collection[tuple[str, str]]
) -> list[KnownPosition]:
    """Every position with an id of the rows, or with one of the names, account and symbol, oldest first; nobody else
    imports until the transaction ends."""
    await tx.execute(_LOCK)
    found = await tx.execute(
        _KNOWN,
        {
            "ids": [row.position_id for row in rows if row.position_id is not None],
            "accounts": [account_id for account_id, _ in names],
            "symbols": [symbol for _, symbol in names],
        },
    )
    return [
        KnownPosition(
            id=row.id,
            account_id=row.account_id,
            symbol=row.symbol,
            asset_type=AssetType(row.asset_type),
            opening_quantity=row.opening_qty,
            multiplier=row.multiplier,
            currency=row.currency,
            status=PositionStatus(row.status),
        )
        for row in found
    ]


async def insert_positions(tx: Transaction, *, broker: str, rows: Collection[NewPosition]) -> None:
    """Insert the positions, and the accounts that are new with this broker."""
    accounts = [{"account_id": account_id, "broker": broker} for account_id in sorted({row.account_id for row in rows})]
    await tx.execute(_ACCOUNTS, {"rows": rows_json(accounts)})
    given = [{"id": row.position_id, **_columns(row)} for row in rows if row.position_id is not None]
    chosen = [_columns(row) for row in rows if row.position_id is None]
    if given:
        await tx.execute(_POSITIONS_WITH_ID, {"rows": rows_json(given)})
        await tx.execute(_ADVANCE_IDS)
    if chosen:
        await tx.execute(_POSITIONS, {"rows": rows_json(chosen)})


def _columns(row: NewPosition) -> dict[str, object]:
    return {
        "account_id": row.account_id,
        "symbol": row.symbol,
        "asset_type": row.asset_type,
        "multiplier": row.multiplier,
        "currency": row.currency,
        "opening_qty": row.quantity,
        "quantity": row.quantity,
    }
