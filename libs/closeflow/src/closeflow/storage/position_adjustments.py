"""What an operator added to a position or took from it."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import text

from closeflow.domain.operator.adjust import Adjustment
from closeflow.storage.core.bulk import insert_rows, rows_json, storable
from closeflow.storage.core.engine import Transaction
from closeflow.storage.core.statements import change, fetch
from closeflow.storage.schema import tables

_ADJUST: Final = insert_rows(tables.position_adjustments, ["position_id", "delta", "reason", "source", "by", "at"])
_LAST_ADJUSTMENT: Final = text("""
    SELECT delta, reason, by FROM position_adjustments WHERE position_id = :position_id ORDER BY id DESC LIMIT 1
""")


async def insert_adjustment(
    tx: Transaction, *, position_id: int, adjustment: Adjustment, at: datetime, source: str = "operator"
) -> None:
    """Append it to the position's ledger; the caller changes the quantity in the same transaction."""
    row = {
        "position_id": position_id,
        "delta": adjustment.delta,
        "reason": storable(adjustment.reason),
        "source": source,
        "by": storable(adjustment.by),
        "at": at,
    }
    await change(tx, _ADJUST, {"rows": rows_json([row])})


async def last_adjustment(tx: Transaction, *, position_id: int) -> Adjustment | None:
    """The newest one of the position; None when there is none."""
    rows = await fetch(tx, _LAST_ADJUSTMENT, {"position_id": position_id})
    return Adjustment(**rows[0]) if rows else None
