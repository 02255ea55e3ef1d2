"""Activities of the broker that are no trades: which are decided about, and what of ours they may have changed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date
from typing import Final

from sqlalchemy import text

from closeflow.domain.operator.non_trade_activity import NonTrade
from closeflow.storage.core.bulk import insert_rows, rows_json, storable
from closeflow.storage.core.engine import Transaction
from closeflow.storage.core.statements import change, fetch
from closeflow.storage.schema.operation_tables import non_trade_activities

_DECIDED: Final = text("""
    SELECT activity_id FROM non_trade_activities
    WHERE (broker, account_id) = (:broker, :account_id) AND activity_id = ANY(CAST(:ids AS text[]))
""")
# A position came here on the broker's day or, where its clock is behind UTC, one after that.
_HELD: Final = text("""
    SELECT id, symbol, CAST(created_at AT TIME ZONE 'UTC' AS date) - 1 AS opened FROM positions
    WHERE account_id = :account_id AND symbol = ANY(CAST(:symbols AS text[])) AND quantity <> 0
    ORDER BY id
""")
_RECORD: Final = insert_rows(
    non_trade_activities,
    ("broker", "account_id", "activity_id", "kind", "symbol", "quantity", "outcome"),
)


@dataclass(frozen=True, slots=True)
class Held:
    """A position of ours in a symbol that an activity names."""

    position_id: int
    symbol: str
    opened: date
    """The first day on which the broker may have changed it."""


async def decided_activities(tx: Transaction, *, broker: str, account_id: str, ids: Collection[str]) -> frozenset[str]:
    """Those that ended positions or were told: they count once."""
    rows = await fetch(tx, _DECIDED, {"broker": broker, "account_id": account_id, "ids": list(ids)})
    return frozenset(row["activity_id"] for row in rows)


async def held_positions(tx: Transaction, *, account_id: str, symbols: Collection[str]) -> list[Held]:
    """The account's positions in these symbols that hold something; not locked."""
    rows = await fetch(tx, _HELD, {"account_id": account_id, "symbols": list(symbols)})
    return [Held(row["id"], row["symbol"], row["opened"]) for row in rows]


async def record_activity(tx: Transaction, *, broker: str, account_id: str, activity: NonTrade, outcome: str) -> None:
    """Keep that it is decided. A second record of the same activity is an error of the database."""
    row = {
        "broker": broker,
        "account_id": account_id,
        "activity_id": storable(activity.activity_id),
        "kind": storable(activity.kind),
        "symbol": None if activity.symbol is None else storable(activity.symbol),
        "quantity": activity.quantity,
        "outcome": outcome,
    }
    await change(tx, _RECORD, {"rows": rows_json([row])})
