"""Which history of the database the broker's orders of an account were last compared with.

A database that was promoted or restored may lack what was committed last: orders that the broker has, fills of them.
Until the comparison is noted, `lock_controls` calls the account halted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import text

from closeflow.storage.core.bulk import texts
from closeflow.storage.core.engine import Transaction
from closeflow.storage.core.statements import change, fetch

_READ: Final = text("""
    SELECT closeflow_history() AS now, h.history AS noted, h.seen_at
    FROM (VALUES (1)) AS one LEFT JOIN account_histories h ON h.account_id = :account_id
""")
_NOTE: Final = text("""
    INSERT INTO account_histories (account_id, history)
    SELECT account_id, closeflow_history() FROM accounts WHERE account_id = :account_id
    ON CONFLICT (account_id) DO UPDATE SET history = EXCLUDED.history, seen_at = EXCLUDED.seen_at
""")
_ORDERS: Final = text("""
    SELECT o.client_order_id, o.status FROM orders o WHERE o.client_order_id = ANY(CAST(:orders AS text[]))
""")
_REQUESTS: Final = text("SELECT id, position_id FROM close_requests WHERE id = ANY(CAST(:requests AS uuid[]))")
# By positions_symbol_status_account_id_id_idx.
_HELD: Final = text("""
    SELECT id, symbol FROM positions
    WHERE symbol = ANY(CAST(:symbols AS text[])) AND account_id = :account_id
      AND status IN ('open', 'closing', 'close_retryable', 'close_failed')
    ORDER BY id
""")


@dataclass(frozen=True, slots=True)
class History:
    """`now` is what the database is, `noted` what it was when the orders were last known to be in it, and `seen_at`
    when that was seen last, by its own clock. None where it never was."""

    now: str
    noted: str | None
    seen_at: datetime | None

    @property
    def is_settled(self) -> bool:
        """Whether nothing has to be compared."""
        return self.noted is None or self.noted == self.now


async def read_history(tx: Transaction, *, account_id: str) -> History:
    """As it is in this transaction."""
    (row,) = await fetch(tx, _READ, {"account_id": account_id})
    return History(row["now"], row["noted"], row["seen_at"])


async def note_history(tx: Transaction, *, account_id: str) -> None:
    """The database has every order that the broker has, as of now. Nothing for an account that is not there yet."""
    await change(tx, _NOTE, {"account_id": account_id})


async def order_statuses(tx: Transaction, *, client_order_ids: Collection[str]) -> Mapping[str, str]:
    """The status of each of these orders that is in the database."""
    rows = await fetch(tx, _ORDERS, {"orders": texts(client_order_ids)})
    return {row["client_order_id"]: row["status"] for row in rows}


async def positions_of_requests(tx: Transaction, *, request_ids: Collection[UUID]) -> Mapping[UUID, int]:
    """The position of each of these requests that is in the database."""
    rows = await fetch(tx, _REQUESTS, {"requests": texts(map(str, request_ids))})
    return {row["id"]: row["position_id"] for row in rows}


async def held_positions(tx: Transaction, *, account_id: str, symbols: Collection[str]) -> list[tuple[int, str]]:
    """Every position of the account in these symbols that is not closed, with its symbol."""
    rows = await fetch(tx, _HELD, {"symbols": texts(symbols), "account_id": account_id})
    return [(row["id"], row["symbol"]) for row in rows]
