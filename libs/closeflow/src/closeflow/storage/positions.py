"""What the positions of an account come to, symbol by symbol, for the comparison with the broker's."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Final

from sqlalchemy import text

from closeflow.storage.core.engine import Transaction

# Symbols are stepped through by the index, so that an account's closed positions are not read one by one. What is under
# way is found by its partial indexes, and MATERIALIZED, so that no index of the account's orders is walked for it.
_HOLDINGS: Final = text("""
    WITH RECURSIVE working AS MATERIALIZED (
        SELECT account_id, symbol FROM orders
        WHERE status NOT IN ('denied', 'lost', 'filled', 'canceled', 'expired', 'rejected')
    ), unnamed AS MATERIALIZED (
        SELECT account_id, symbol FROM orders WHERE stated_cum_qty > executed_qty
    ), busy AS (
        SELECT symbol FROM working WHERE account_id = :account_id
        UNION
        SELECT symbol FROM unnamed WHERE account_id = :account_id
    ), symbols AS (
        (SELECT symbol FROM positions WHERE account_id = :account_id ORDER BY symbol LIMIT 1)
        UNION ALL
        SELECT (SELECT p.symbol FROM positions p WHERE p.account_id = :account_id AND p.symbol > s.symbol
                ORDER BY p.symbol LIMIT 1)
        FROM symbols s WHERE s.symbol IS NOT NULL
    ), held AS (
        SELECT symbol, sum(quantity) AS quantity FROM positions
        WHERE account_id = :account_id AND quantity <> 0 GROUP BY symbol
    )
    SELECT s.symbol, COALESCE(h.quantity, 0) AS quantity,
           (SELECT p.updated_at FROM positions p WHERE p.account_id = :account_id AND p.symbol = s.symbol
            ORDER BY p.updated_at DESC LIMIT 1) <= closeflow_now() - CAST(:grace AS interval)
           AND s.symbol NOT IN (SELECT symbol FROM busy) AS quiet
    FROM symbols s LEFT JOIN held h ON h.symbol = s.symbol WHERE s.symbol IS NOT NULL
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
