"""Where the ledger may lack what the broker did: orders of symbols that differ, withheld trades, and the evidence."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Final

from sqlalchemy import text

from closeflow.domain.incidents import IncidentKind
from closeflow.domain.model import BrokerUpdate, Order
from closeflow.domain.sending.absence import Known
from closeflow.storage.core.bulk import rows_json
from closeflow.storage.core.engine import Transaction
from closeflow.storage.core.statements import fetch
from closeflow.storage.due_work import GapOrder
from closeflow.storage.predicates import NO_NAME

LOOK_BACK: Final = timedelta(days=7)
"""How old an order may be of which the broker takes something back: to the end of the next trading day, and a holiday
or two."""

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
    parameters = {
        "account_id": account_id,
        "kind": IncidentKind.POSITION_MISMATCH,
        "look_back": LOOK_BACK,
        "budget": budget,
    }
    return [
        GapOrder(
            row.client_order_id,
            row.position_id,
            row.close_request_id,
            row.created_at,
            IncidentKind.POSITION_MISMATCH,
            row.since,
        )
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


_TAKEN_BY: Final = text("""
    SELECT client_order_id FROM executions
    WHERE (broker, account_id, exec_id) = (:broker, :account_id, :exec_id)
    UNION ALL
    SELECT e.client_order_id FROM execution_aliases a JOIN executions e USING (broker, account_id, exec_id)
    WHERE (a.broker, a.account_id, a.alias_id) = (:broker, :account_id, :exec_id)
""")


_SENDERS_OF_ORDER: Final = text("""
    SELECT instance_id, exited_at, says_it_closes FROM senders WHERE instance_id = ANY(CAST(:senders AS text[]))
""")


_EXPECTED: Final = text("""
    SELECT COALESCE(sum(quantity), 0) AS quantity FROM positions
    WHERE (account_id, symbol) = (:account_id, :symbol) AND quantity <> 0
""")


_DENIED: Final = text("""
    SELECT count, opened_at FROM incidents
    WHERE kind = 'acknowledged_order_not_found' AND client_order_id = :client_order_id AND closed_at IS NULL
""")


async def order_of_execution(tx: Transaction, *, broker: str, account_id: str, exec_id: str) -> str | None:
    """The client order id under which an execution id, or an alias, is booked."""
    key = {"broker": broker, "account_id": account_id, "exec_id": exec_id}
    rows = await fetch(tx, _TAKEN_BY, key)
    return rows[0]["client_order_id"] if rows else None


async def load_known(tx: Transaction, *, order: Order) -> Known:
    """What the tables say, besides its book, of whether an order can still live (rule R6)."""
    senders = sorted({one.sender for one in order.sends})
    rows = await fetch(tx, _SENDERS_OF_ORDER, {"senders": senders})
    expected = await fetch(tx, _EXPECTED, {"account_id": order.account_id, "symbol": order.symbol})
    denied = await fetch(tx, _DENIED, {"client_order_id": order.client_order_id})
    return Known(
        exited={row["instance_id"]: row["exited_at"] for row in rows if row["exited_at"] is not None},
        says_it_closes=[row["instance_id"] for row in rows if row["says_it_closes"]],
        expected=expected[0]["quantity"],
        denied=(denied[0]["count"], denied[0]["opened_at"]) if denied else None,
    )
