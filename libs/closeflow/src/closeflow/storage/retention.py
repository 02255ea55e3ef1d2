"""The end of rows that are over; the database itself keeps those that are too young (migration 0020)."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import text

from closeflow.storage.core.engine import Transaction

_DROP: Final = text("SELECT closeflow_drop_expired(:table, :before, :batch)")


async def drop_expired(tx: Transaction, *, table: str, before: datetime, batch: int) -> int:
    """Drop up to `batch` rows that were over before then; returns how many. From `before` on the table is whole."""
    return int((await tx.execute(_DROP, {"table": table, "before": before, "batch": batch})).scalar_one())
