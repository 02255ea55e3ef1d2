"""Where the ledger may lack what the broker did: orders of symbols that differ, and trades that are withheld."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Final

from sqlalchemy import text

from closeflow.domain.model import BrokerUpdate
from closeflow.storage.engine import Transaction
from closeflow.storage.reconciling import GapOrder
from closeflow.storage.rows import rows_json

MISMATCH: Final = "position_mismatch"
WITHHELD: Final = "execution_withheld"
LOOK_BACK: Final = timedelta(days=7)
"""How old an order may be of which the broker takes something back: to the end of the next trading day, and a holiday
or two."""

NO_NAME: Final = """
    NOT EXISTS (SELECT FROM executions e
                WHERE (e.broker, e.account_id, e.exec_id) = (w.broker, w.account_id, w.exec_id))
    AND NOT EXISTS (SELECT FROM execution_aliases a
                    WHERE (a.broker, a.account_id, a.alias_id) = (w.broker, w.account_id, w.exec_id))
    AND NOT EXISTS (SELECT FROM executions r
                    WHERE r.client_order_id = w.client_order_id AND r.ref_exec_id = w.exec_id)
    AND NOT EXISTS (SELECT FROM order_statements t
                    WHERE t.client_order_id = w.client_order_id AND t.kind = 'canceled' AND t.source = 'operator')
"""
"""Of a row `w` of withheld_executions: neither booked nor another name, nor taken back under its own name, nor dropped
by an operator with its order."""
STILL_WITHHELD: Final = f"""EXISTS (
    SELECT FROM withheld_executions w WHERE w.client_order_id = i.client_order_id AND {NO_NAME})"""
_IN_DOUBT: Final = text("""
    SELECT o.client_order_id, o.position_id, o.close_request_id, o.created_at, o.last_broker_update_at AS since
    FROM incidents i
    JOIN orders o ON o.account_id = :account_id AND o.symbol = substr(i.subject, length(:account_id) + 2)
                  AND o.created_at >= closeflow_now() - CAST(:look_back AS interval)
    WHERE i.kind = :kind AND i.closed_at IS NULL AND starts_with(i.subject, :account_id || '/')
      AND o.broker_order_id IS NOT NULL
    ORDER BY o.created_at DESC LIMIT :budget
""")
_WITHHELD: Final = text(f"""
    SELECT o.client_order_id, o.position_id, o.close_request_id, o.created_at, sum(w.quantity) AS missing,
           min(w.recorded_at) AS since
    FROM withheld_executions w JOIN orders o USING (client_order_id)
    WHERE o.account_id = :account_id AND o.stated_cum_qty <= o.executed_qty AND {NO_NAME}
      AND w.recorded_at <= closeflow_now() - CAST(:after AS interval)
    GROUP BY o.client_order_id ORDER BY o.client_order_id LIMIT :budget
""")  # noqa: S608 (constants of ours)
_KNOWN: Final = text("""
    SELECT r.exec_id FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (broker text, account_id text, exec_id text)
    WHERE EXISTS (SELECT FROM executions e
                  WHERE (e.broker, e.account_id, e.exec_id) = (r.broker, r.account_id, r.exec_id))
       OR EXISTS (SELECT FROM execution_aliases a
                  WHERE (a.broker, a.account_id, a.alias_id) = (r.broker, r.account_id, r.exec_id))
""")


async def orders_in_doubt(tx: Transaction, *, account_id: str, budget: int) -> list[GapOrder]:
    """The newest orders of symbols of which the broker holds another quantity than we do: it may have taken back, or
    done, what no feed told."""
    parameters = {"account_id": account_id, "kind": MISMATCH, "look_back": LOOK_BACK, "budget": budget}
    return [
        GapOrder(row.client_order_id, row.position_id, row.close_request_id, row.created_at, MISMATCH, row.since)
        for row in await tx.execute(_IN_DOUBT, parameters)
    ]


async def withheld_orders(tx: Transaction, *, account_id: str, after: timedelta, budget: int) -> list[GapOrder]:
    """Orders with a trade that has been withheld for long, though the broker states no more than is booked."""
    rows = await tx.execute(_WITHHELD, {"account_id": account_id, "after": after, "budget": budget})
    return [
        GapOrder(
            row.client_order_id, row.position_id, row.close_request_id, row.created_at, str(row.missing), row.since
        )
        for row in rows
    ]


async def known_executions(tx: Transaction, updates: Sequence[BrokerUpdate]) -> Collection[str]:
    """Which of their execution ids are booked or aliases."""
    keys = [
        {"broker": one.broker, "account_id": one.account_id, "exec_id": one.exec_id} for one in updates if one.exec_id
    ]
    return {row.exec_id for row in await tx.execute(_KNOWN, {"rows": rows_json(keys)})}
