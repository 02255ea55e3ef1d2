"""What the positions of an account come to, symbol by symbol, for the comparison with the broker's."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Final

from sqlalchemy import text

from closeflow.storage.engine import Transaction

_HOLDINGS: Final = text("""
    WITH busy AS (
        SELECT symbol FROM orders
        WHERE account_id = :account_id
          AND status NOT IN ('denied', 'lost', 'filled', 'canceled', 'expired', 'rejected')
        UNION
        SELECT symbol FROM orders WHERE account_id = :account_id AND stated_cum_qty > executed_qty
    )
    SELECT p.symbol, sum(p.quantity) AS quantity,
           max(p.updated_at) <= closeflow_now() - CAST(:grace AS interval)
           AND p.symbol NOT IN (SELECT symbol FROM busy) AS quiet
    FROM positions p WHERE p.account_id = :account_id GROUP BY p.symbol
""")


@dataclass(frozen=True, slots=True)
class Holding:
    """The signed sum of an account's positions in a symbol, those that hold an overfill included. `quiet`: no order of
    it is live or unknown, no fill is without a name, and nothing changed for the grace period."""

    quantity: Decimal
    quiet: bool


async def holdings(tx: Transaction, *, account_id: str, grace: timedelta) -> dict[str, Holding]:
    """By symbol, of every symbol that the account ever had a position in."""
    rows = await tx.execute(_HOLDINGS, {"account_id": account_id, "grace": grace})
    return {row.symbol: Holding(row.quantity, row.quiet) for row in rows}
