"""The accounts that positions are in."""

from __future__ import annotations

from typing import Final

from sqlalchemy import text

from closeflow.storage.core.engine import Transaction
from closeflow.storage.core.statements import fetch

_BROKER: Final = text("SELECT broker FROM accounts WHERE account_id = :account_id")


async def broker_of_account(tx: Transaction, *, account_id: str) -> str | None:
    """The broker that an account is at, by the name that its executions have; None for an unknown account."""
    rows = await fetch(tx, _BROKER, {"account_id": account_id})
    return rows[0]["broker"] if rows else None
