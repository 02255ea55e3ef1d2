"""Load positions with everything one decision may look at, under locks, and write back what a decision changed.

The lock order is always positions, close_requests, orders, ids ascending within each (rule R7), with
`FOR NO KEY UPDATE`, which does not fight with foreign-key checks. Nothing here commits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, TypeVar
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from closeflow.domain.model import Book, Charge, CloseRequest, Execution, Order, Send, Statement
from closeflow.storage.book import mapping
from closeflow.storage.core.statements import Row, fetch
from closeflow.storage.predicates import NO_NAME

_Owned = TypeVar("_Owned", CloseRequest, Order)

# What locks rows joins nothing: of a row that was changed while it was waited for, PostgreSQL looks again whether it is
# meant, and loses it where it has to find it by a join (seen with `id IN (SELECT ...)` in 692 of 720 tries).
_LOCK_POSITIONS: Final = text("""
    SELECT * FROM positions
    WHERE id = ANY(ARRAY(SELECT unnest(CAST(:position_ids AS bigint[]))
                         UNION SELECT position_id FROM close_requests WHERE id = ANY(CAST(:request_ids AS uuid[]))))
    ORDER BY id FOR NO KEY UPDATE
""")
_LOCK_REQUESTS: Final = text("""
    SELECT * FROM close_requests
    WHERE id = ANY(CAST(:request_ids AS uuid[]))
       OR (position_id = ANY(CAST(:position_ids AS bigint[]))
           AND (status IN ('pending', 'submitted', 'retryable') OR frozen_reason IS NOT NULL))
    ORDER BY id FOR NO KEY UPDATE
""")
# An order that ended with every fill named adds nothing to exposure, owed or clear, so it may stay away. The withheld
# trades are asked for as a value, because an EXISTS may be answered by reading all of them that ever were.
_LOCK_ORDERS: Final = text(f"""
    SELECT * FROM orders
    WHERE position_id = ANY(CAST(:position_ids AS bigint[]))
      AND (close_request_id = ANY(CAST(:request_ids AS uuid[]))
           OR status NOT IN ('denied', 'lost', 'filled', 'canceled', 'expired', 'rejected')
           OR stated_cum_qty > executed_qty
           OR (SELECT true FROM withheld_executions w
               WHERE w.client_order_id = orders.client_order_id AND {NO_NAME} LIMIT 1))
    ORDER BY client_order_id FOR NO KEY UPDATE
""")  # noqa: S608 (a constant of ours)
# Six kinds of facts in one round trip: `fact` says which, and of the columns each kind uses its own: a ledger
# the quantity for its base, and the price for what its orders executed (derived when their executions are written), a
# charge the quantity for commission, the price for fees, and `answered_at` for when it occurred.
_FACTS: Final = text("""
    SELECT 'ledger' AS fact, p.id AS position_id, '' AS client_order_id, '' AS kind, '' AS broker, '' AS exec_id,
           '' AS side, p.opening_qty
           + COALESCE((SELECT sum(a.delta) FROM position_adjustments a WHERE a.position_id = p.id), 0) AS quantity,
           COALESCE((SELECT sum(CASE o.side WHEN 'buy' THEN o.executed_qty ELSE -o.executed_qty END)
                     FROM orders o WHERE o.position_id = p.id), 0) AS price,
           CAST(NULL AS numeric) AS cum_qty, CAST(NULL AS numeric) AS leaves_qty,
           CAST(NULL AS bigint) AS broker_seq, CAST(NULL AS timestamptz) AS at, '' AS source,
           CAST(NULL AS jsonb) AS detail, CAST('{}' AS text[]) AS aliases, 0 AS n,
           CAST(NULL AS timestamptz) AS lease_until, CAST(NULL AS timestamptz) AS answered_at,
           CAST(NULL AS text) AS answer, CAST(NULL AS text) AS ref_exec_id
    FROM positions p WHERE p.id = ANY(CAST(:position_ids AS bigint[]))
    UNION ALL
    SELECT 'execution', 0, e.client_order_id, e.kind, e.broker, e.exec_id, e.side, e.quantity, e.price, e.cum_qty, NULL,
           e.broker_seq, e.occurred_at, e.source, NULL,
           ARRAY(SELECT a.alias_id FROM execution_aliases a
                 WHERE (a.broker, a.account_id, a.exec_id) = (e.broker, e.account_id, e.exec_id)), 0, NULL, NULL, NULL,
           e.ref_exec_id
    FROM executions e WHERE e.client_order_id = ANY(CAST(:order_ids AS text[]))
    UNION ALL
    SELECT 'withheld', 0, w.client_order_id, 'trade', w.broker, w.exec_id, w.side, w.quantity, w.price, w.cum_qty, NULL,
           w.broker_seq, w.occurred_at, w.source, NULL, '{}', 0, NULL, NULL, NULL, NULL
    FROM withheld_executions w WHERE w.client_order_id = ANY(CAST(:order_ids AS text[]))
    UNION ALL
    SELECT 'charge', 0, c.client_order_id, c.charge_id, c.broker, c.exec_id, COALESCE(c.currency, ''), c.commission,
           c.fees, NULL, NULL, NULL, c.recorded_at, c.source, NULL, '{}', 0, NULL, c.occurred_at, NULL, NULL
    FROM execution_charges c WHERE c.client_order_id = ANY(CAST(:order_ids AS text[]))
    UNION ALL
    SELECT 'statement', 0, t.client_order_id, t.kind, '', '', '', NULL, NULL, t.cum_qty, t.leaves_qty, t.broker_seq,
           t.stated_at, t.source, t.detail, '{}', 0, NULL, t.heard_at, NULL, NULL
    FROM order_statements t WHERE t.client_order_id = ANY(CAST(:order_ids AS text[]))
    UNION ALL
    SELECT 'send', 0, s.client_order_id, s.kind, '', '', '', NULL, NULL, NULL, NULL, NULL, s.started_at, s.sender,
           jsonb_build_object('probe', s.probe), '{}', s.n, s.lease_until, s.answered_at, s.answer, NULL
    FROM order_sends s WHERE s.client_order_id = ANY(CAST(:order_ids AS text[]))
    ORDER BY fact, client_order_id, at, kind, exec_id, n
""")


def positions_of_requests(books: Iterable[Book]) -> dict[UUID, int]:
    """The position of each request that these books hold."""
    return {request_id: book.position.id for book in books for request_id in book.requests}


async def lock_books(
    tx: AsyncConnection, *, position_ids: Collection[int] = (), request_ids: Collection[UUID] = ()
) -> dict[int, Book]:
    """The books of these positions and of those that these requests close, by position id, locked until the end.

    Each holds the position's unfinished and frozen requests, those of `request_ids` that are its own, all orders of
    these, and every other order of the position that is not over. What does not exist is absent.
    """
    named = {"position_ids": sorted(set(position_ids)), "request_ids": sorted(request_ids)}
    positions = [mapping.position(row) for row in await fetch(tx, _LOCK_POSITIONS, named)]
    if not positions:
        return {}
    ids = [position.id for position in positions]
    rows = await fetch(tx, _LOCK_REQUESTS, {**named, "position_ids": ids})
    requests = _by_position([mapping.request(row) for row in rows])
    loaded = [request.id for some in requests.values() for request in some]
    order_rows = await fetch(tx, _LOCK_ORDERS, {"position_ids": ids, "request_ids": loaded})
    facts = await _load_facts(tx, ids, [row["client_order_id"] for row in order_rows])
    orders = _by_position([_order(row, facts) for row in order_rows])
    return {
        position.id: Book(
            position=position,
            base_quantity=facts.base[position.id],
            ledger_quantity=facts.base[position.id] + facts.executed[position.id],
            requests={request.id: request for request in requests[position.id]},
            orders={order.client_order_id: order for order in orders[position.id]},
        )
        for position in positions
    }


@dataclass(slots=True)
class _Facts:
    """By client order id, but for `base` and `executed` (signed), which are by position id."""

    base: dict[int, Decimal] = field(default_factory=dict)
    executed: dict[int, Decimal] = field(default_factory=dict)
    executions: defaultdict[str, list[Execution]] = field(default_factory=lambda: defaultdict(list))
    aliases: defaultdict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    withheld: defaultdict[str, list[Execution]] = field(default_factory=lambda: defaultdict(list))
    charges: defaultdict[str, list[Charge]] = field(default_factory=lambda: defaultdict(list))
    statements: defaultdict[str, list[Statement]] = field(default_factory=lambda: defaultdict(list))
    sends: defaultdict[str, list[Send]] = field(default_factory=lambda: defaultdict(list))


async def _load_facts(tx: AsyncConnection, position_ids: Sequence[int], order_ids: Sequence[str]) -> _Facts:
    facts = _Facts()
    for row in await fetch(tx, _FACTS, {"position_ids": position_ids, "order_ids": order_ids}):
        order_id = row["client_order_id"]
        match row["fact"]:
            case "ledger":
                facts.base[row["position_id"]] = row["quantity"]
                facts.executed[row["position_id"]] = row["price"]
            case "execution":
                facts.executions[order_id].append(mapping.execution(row))
                facts.aliases[order_id].update(dict.fromkeys(row["aliases"], row["exec_id"]))
            case "withheld":
                facts.withheld[order_id].append(mapping.execution(row))
            case "charge":
                facts.charges[order_id].append(mapping.charge(row))
            case "statement":
                facts.statements[order_id].append(mapping.statement(row))
            case "send":
                facts.sends[order_id].append(mapping.send(row))
    return facts


def _order(row: Row, facts: _Facts) -> Order:
    order_id = row["client_order_id"]
    return mapping.order(
        row,
        executions=facts.executions[order_id],
        aliases=facts.aliases[order_id],
        withheld=facts.withheld[order_id],
        charges=facts.charges[order_id],
        statements=sorted(facts.statements[order_id], key=lambda one: one.kind),
        sends=sorted(facts.sends[order_id], key=lambda one: (one.kind, one.n)),
    )


def _by_position(items: Iterable[_Owned]) -> Mapping[int, list[_Owned]]:
    found: defaultdict[int, list[_Owned]] = defaultdict(list)
    for item in items:
        found[item.position_id].append(item)
    return found
