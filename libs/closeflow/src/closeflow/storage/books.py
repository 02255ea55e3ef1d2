"""Load positions with everything one decision may look at, under locks, and write back what a decision changed.

The lock order is always positions, close_requests, orders, ids ascending within each (rule R7), with
`FOR NO KEY UPDATE`, which does not fight with foreign-key checks. Nothing here commits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Final, TypeVar
from uuid import UUID

from sqlalchemy import RowMapping, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from closeflow.domain.model import Book, CloseRequest, Execution, Order, Send, Statement
from closeflow.storage import mapping

_Owned = TypeVar("_Owned", CloseRequest, Order)

_LOCK_POSITIONS: Final = text(
    "SELECT * FROM positions WHERE id = ANY(CAST(:ids AS bigint[])) ORDER BY id FOR NO KEY UPDATE"
)
_LEDGER: Final = text("""
    SELECT p.id, p.opening_qty
           + COALESCE((SELECT sum(a.delta) FROM position_adjustments a WHERE a.position_id = p.id), 0)
           + COALESCE((SELECT sum(CASE e.side WHEN 'buy' THEN e.quantity ELSE -e.quantity END)
                       FROM executions e WHERE e.position_id = p.id AND e.kind = 'trade'), 0) AS ledger
    FROM positions p WHERE p.id = ANY(CAST(:ids AS bigint[]))
""")
_LOCK_REQUESTS: Final = text("""
    SELECT * FROM close_requests
    WHERE id = ANY(CAST(:request_ids AS uuid[]))
       OR (position_id = ANY(CAST(:position_ids AS bigint[])) AND status IN ('pending', 'submitted', 'retryable'))
    ORDER BY id FOR NO KEY UPDATE
""")
# An order that ended with every fill named adds nothing to exposure, owed or clear, so it may stay away.
_LOCK_ORDERS: Final = text("""
    SELECT * FROM orders
    WHERE position_id = ANY(CAST(:position_ids AS bigint[]))
      AND (close_request_id = ANY(CAST(:request_ids AS uuid[]))
           OR status NOT IN ('denied', 'lost', 'filled', 'canceled', 'expired', 'rejected')
           OR stated_cum_qty > executed_qty)
    ORDER BY client_order_id FOR NO KEY UPDATE
""")
_EXECUTIONS: Final = text("""
    SELECT e.*, ARRAY(SELECT a.alias_id FROM execution_aliases a
                      WHERE (a.broker, a.account_id, a.exec_id) = (e.broker, e.account_id, e.exec_id)) AS aliases
    FROM executions e WHERE e.client_order_id = ANY(CAST(:ids AS text[])) AND e.kind = 'trade'
    ORDER BY e.recorded_at, e.exec_id
""")
_STATEMENTS: Final = text(
    "SELECT * FROM order_statements WHERE client_order_id = ANY(CAST(:ids AS text[])) ORDER BY client_order_id, kind"
)
_SENDS: Final = text(
    "SELECT * FROM order_sends WHERE client_order_id = ANY(CAST(:ids AS text[])) ORDER BY client_order_id, kind, n"
)
_POSITIONS_OF_REQUESTS: Final = text("SELECT id, position_id FROM close_requests WHERE id = ANY(CAST(:ids AS uuid[]))")


async def positions_of_requests(tx: AsyncConnection, *, request_ids: Collection[UUID]) -> dict[UUID, int]:
    """The position of each request that is visible; a position never changes, so no lock is needed."""
    if not request_ids:
        return {}
    rows = await tx.execute(_POSITIONS_OF_REQUESTS, {"ids": list(request_ids)})
    return {row.id: row.position_id for row in rows}


async def lock_books(
    tx: AsyncConnection, *, position_ids: Collection[int], request_ids: Collection[UUID] = ()
) -> dict[int, Book]:
    """The books of the positions that exist, by position id, locked until the transaction ends.

    Each holds the position's unfinished requests, those of `request_ids` that are its own, all orders of these, and
    every other order of the position that is not settled.
    """
    ids = sorted(set(position_ids))
    positions = [mapping.position(row) for row in await _rows(tx, _LOCK_POSITIONS, {"ids": ids})]
    if not positions:
        return {}
    ledger: dict[int, Decimal] = {row["id"]: row["ledger"] for row in await _rows(tx, _LEDGER, {"ids": ids})}
    wanted = {"request_ids": sorted(request_ids), "position_ids": ids}
    requests = _by_position([mapping.request(row) for row in await _rows(tx, _LOCK_REQUESTS, wanted)])
    loaded = [request.id for some in requests.values() for request in some]
    orders = _by_position(await _load_orders(tx, ids, loaded))
    return {
        position.id: Book(
            position=position,
            ledger_quantity=ledger[position.id],
            requests={request.id: request for request in requests[position.id]},
            orders={order.client_order_id: order for order in orders[position.id]},
        )
        for position in positions
    }


async def _load_orders(tx: AsyncConnection, position_ids: list[int], request_ids: list[UUID]) -> list[Order]:
    rows = await _rows(tx, _LOCK_ORDERS, {"position_ids": position_ids, "request_ids": request_ids})
    if not rows:
        return []
    ids = {"ids": [row["client_order_id"] for row in rows]}
    executions: defaultdict[str, list[Execution]] = defaultdict(list)
    aliases: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for row in await _rows(tx, _EXECUTIONS, ids):
        executions[row["client_order_id"]].append(mapping.execution(row))
        aliases[row["client_order_id"]].update(dict.fromkeys(row["aliases"], row["exec_id"]))
    statements: defaultdict[str, list[Statement]] = defaultdict(list)
    for row in await _rows(tx, _STATEMENTS, ids):
        statements[row["client_order_id"]].append(mapping.statement(row))
    sends: defaultdict[str, list[Send]] = defaultdict(list)
    for row in await _rows(tx, _SENDS, ids):
        sends[row["client_order_id"]].append(mapping.send(row))
    return [
        mapping.order(
            row,
            executions=executions[row["client_order_id"]],
            aliases=aliases[row["client_order_id"]],
            statements=statements[row["client_order_id"]],
            sends=sends[row["client_order_id"]],
        )
        for row in rows
    ]


def _by_position(items: Iterable[_Owned]) -> Mapping[int, list[_Owned]]:
    found: defaultdict[int, list[_Owned]] = defaultdict(list)
    for item in items:
        found[item.position_id].append(item)
    return found


async def _rows(tx: AsyncConnection, statement: TextClause, parameters: Mapping[str, object]) -> Sequence[RowMapping]:
    return (await tx.execute(statement, parameters)).mappings().all()
