"""Commissions and fees: which are booked, and the orders whose executions they are of."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import text

from closeflow.domain.model import Side
from closeflow.storage.core.engine import Transaction
from closeflow.storage.core.statements import fetch

# By the primary key.
_KNOWN: Final = text("""
    SELECT charge_id FROM execution_charges
    WHERE (broker, account_id) = (:broker, :account_id) AND charge_id = ANY(CAST(:ids AS text[]))
""")
# By the unique index of orders on broker_order_id, and the executions' on client_order_id.
_ORDERS: Final = text("""
    SELECT o.broker_order_id, o.client_order_id, o.symbol, o.side, e.exec_id,
           ARRAY(SELECT a.alias_id FROM execution_aliases a
                 WHERE (a.broker, a.account_id, a.exec_id) = (e.broker, e.account_id, e.exec_id)) AS aliases
    FROM orders o JOIN executions e USING (client_order_id)
    WHERE o.broker_order_id = ANY(CAST(:ids AS text[])) AND o.account_id = :account_id
    ORDER BY e.recorded_at, e.exec_id
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChargedOrder:
    """An order of ours at the broker; `executions` has the booked name of each under every name that is known."""

    client_order_id: str
    symbol: str
    side: Side
    executions: Mapping[str, str]


async def known_charges(tx: Transaction, *, broker: str, account_id: str, ids: Collection[str]) -> frozenset[str]:
    """Those of the ids that are booked."""
    rows = await fetch(tx, _KNOWN, {"broker": broker, "account_id": account_id, "ids": list(ids)})
    return frozenset(row["charge_id"] for row in rows)


async def charged_orders(
    tx: Transaction, *, account_id: str, broker_order_ids: Collection[str]
) -> dict[str, ChargedOrder]:
    """The account's orders by these ids of the broker; one without executions is absent."""
    rows = await fetch(tx, _ORDERS, {"ids": list(broker_order_ids), "account_id": account_id})
    names: dict[str, dict[str, str]] = {}
    for row in rows:
        names.setdefault(row["broker_order_id"], {}).update(
            dict.fromkeys((row["exec_id"], *row["aliases"]), row["exec_id"])
        )
    return {
        row["broker_order_id"]: ChargedOrder(
            client_order_id=row["client_order_id"],
            symbol=row["symbol"],
            side=Side(row["side"]),
            executions=names[row["broker_order_id"]],
        )
        for row in rows
    }
