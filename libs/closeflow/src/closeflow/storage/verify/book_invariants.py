"""The invariants that one query each can check: what it looks at, and every row that breaks it.

A violation is a subject (`position 7`, `order cf-…`) and what is wrong with it. All of it is read only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import TextClause, bindparam, text

from closeflow.domain.operator.adjust import Ending
from closeflow.domain.reasons import DUST, EXTERNALLY_CLOSED, RESIDUAL, REVERSED
from closeflow.domain.transitions import ORDER_MOVES, POSITION_MOVES, REQUEST_MOVES
from closeflow.storage.core.engine import Transaction
from closeflow.storage.schema.column_types import LOT

MOST: Final = 1000
"""Violations that one check lists; more of them say nothing new."""
SNAPSHOT_AT: Final = "(closeflow_now() - (statement_timestamp() - now()))"
"""When the snapshot's transaction began. Nothing that was committed later is seen, so nothing is late by more than this
says, however long the checks take."""


@dataclass(frozen=True, slots=True)
class SqlCheck:
    """`looks_at` is the plural of what `count` counts; `violations` gives rows of (subject, detail)."""

    invariant: int
    looks_at: str
    count: TextClause
    violations: TextClause


_LEGAL: Final = [
    f"{entity}:{was}:{now}"
    for entity, moves in (("position", POSITION_MOVES), ("close_request", REQUEST_MOVES), ("order", ORDER_MOVES))
    for was, now in moves
]


def sql_check(invariant: int, looks_at: str, count: str, violations: str) -> SqlCheck:
    """A check whose query returns a row (subject, detail) for each violation; `count` says how many rows it looked
    at."""
    found = text(f"{COMMON} SELECT subject, detail FROM ({violations}) v ORDER BY subject, detail LIMIT {MOST}")  # noqa: S608
    if ":legal" in violations:
        found = found.bindparams(bindparam("legal", _LEGAL))
    return SqlCheck(invariant, looks_at, text(f"SELECT count(*) FROM {count}"), found)  # noqa: S608


# chain: every trade with the busts and corrections that name it, or name one that does.
# effective: the trades as they stand, that is without the busted ones and with what the last correction says; `stands`
# is the row that says it, `told` the quantity before any.
# entries: the events of the books, each once, whatever its emissions; `exec_id` is the row that one enters or takes
# back.
# entities: what has a history of its status.
# kept: the oldest day whose outbox rows are still there; older facts have outlived their events.
# whole: since when nothing is missing from tables that lose their old rows. What began earlier may have lost what would
# explain it, and is not held to it.
# raised: which entity has an incident, open or closed, of a kind.
COMMON: Final = """
    WITH RECURSIVE named AS MATERIALIZED (
        SELECT b.*, COALESCE(a.exec_id, b.ref_exec_id) AS names
        FROM executions b LEFT JOIN execution_aliases a
            ON (a.broker, a.account_id, a.alias_id) = (b.broker, b.account_id, b.ref_exec_id)
        WHERE b.kind <> 'trade'
    ),
    chain AS (
        SELECT broker, account_id, exec_id AS trade, exec_id, kind, quantity, price, broker_seq, occurred_at,
               recorded_at, recorded_at AS first_at, 0 AS depth
        FROM executions WHERE kind = 'trade'
        UNION ALL
        SELECT c.broker, c.account_id, c.trade, n.exec_id, n.kind, n.quantity, n.price, n.broker_seq, n.occurred_at,
               n.recorded_at, c.first_at, c.depth + 1
        FROM chain c JOIN named n ON (n.broker, n.account_id, n.names) = (c.broker, c.account_id, c.exec_id)
    ),
    effective AS (
        SELECT e.broker, e.account_id, e.exec_id, e.client_order_id, e.position_id, e.cum_qty, e.recorded_at,
               e.quantity AS told, l.exec_id AS stands, l.quantity, l.price,
               CASE e.side WHEN 'buy' THEN l.quantity ELSE -l.quantity END AS moved
        FROM executions e
        JOIN (SELECT DISTINCT ON (broker, account_id, trade) *
              FROM chain ORDER BY broker, account_id, trade, kind = 'bust' DESC, depth DESC,
                                  COALESCE(broker_seq, -1) DESC, occurred_at DESC, exec_id DESC) l
            ON (l.broker, l.account_id, l.trade) = (e.broker, e.account_id, e.exec_id)
        WHERE l.kind <> 'bust'
    ),
    kept AS (
        SELECT COALESCE(min(to_date(substring(c.relname FROM '[0-9]{8}$'), 'YYYYMMDD')), 'infinity') AS since
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'outbox_events'::regclass AND c.relname ~ '[0-9]{8}$'
    ),
    whole AS MATERIALIZED (
        SELECT COALESCE(max(since) FILTER (WHERE kept_in = 'inbox'), '-infinity') AS inbox,
               COALESCE(max(since) FILTER (WHERE kept_in = 'status_history'), '-infinity') AS history,
               COALESCE(max(since) FILTER (WHERE kept_in = 'incidents'), '-infinity') AS incidents
        FROM retention_horizons
    ),
    entries AS (
        SELECT DISTINCT ON (id) id, position_id, CASE event_type WHEN 'EXECUTION_REVERSED' THEN -1 ELSE 1 END AS way,
               payload ->> 'broker' AS broker, payload ->> 'account_id' AS account_id,
               payload ->> CASE event_type WHEN 'EXECUTION_REVERSED' THEN 'reverses_exec_id' ELSE 'exec_id' END
                   AS exec_id,
               payload ->> 'side' AS side, (payload ->> 'quantity')::numeric AS quantity,
               (payload ->> 'price')::numeric AS price, (payload ->> 'cash_amount')::numeric AS cash
        FROM outbox_events WHERE topic = 'execution-events' AND event_type <> 'EXECUTION_CHARGED'
        ORDER BY id, emission DESC
    ),
    charged AS (
        SELECT DISTINCT ON (id) id, payload ->> 'broker' AS broker, payload ->> 'account_id' AS account_id,
               payload ->> 'charge_id' AS charge_id, (payload ->> 'commission')::numeric AS commission,
               (payload ->> 'fees')::numeric AS fees
        FROM outbox_events WHERE topic = 'execution-events' AND event_type = 'EXECUTION_CHARGED'
        ORDER BY id, emission DESC
    ),
    entities AS (
        SELECT 'position' AS entity, id::text AS id, status, created_at FROM positions
        UNION ALL SELECT 'close_request', id::text, status, created_at FROM close_requests
        UNION ALL SELECT 'order', client_order_id, status, created_at FROM orders
    ),
    unfinished (status) AS (VALUES ('pending'), ('submitted'), ('retryable')),
    ended (status) AS (VALUES ('denied'), ('lost'), ('filled'), ('canceled'), ('expired'), ('rejected'))
"""

CONSERVE: Final = sql_check(
    1,
    "positions",
    "positions",
    """
    SELECT 'position ' || p.id AS subject,
           'quantity is ' || p.quantity || '; opening, adjustments and executions make ' || l.ledger AS detail
    FROM positions p
    LEFT JOIN (SELECT position_id, sum(delta) AS delta FROM position_adjustments GROUP BY 1) a ON a.position_id = p.id
    LEFT JOIN (SELECT position_id, sum(moved) AS delta FROM effective GROUP BY 1) e ON e.position_id = p.id
    CROSS JOIN LATERAL (SELECT p.opening_qty + COALESCE(a.delta, 0) AS base,
                               p.opening_qty + COALESCE(a.delta, 0) + COALESCE(e.delta, 0) AS ledger) l
    WHERE p.quantity <> l.ledger
      -- P12: what executions bring beyond zero is held by a tagged position, and an incident says so.
      AND NOT (p.quantity = 0 AND l.ledger * l.base <= 0 AND (p.created_at < (SELECT incidents FROM whole) OR EXISTS (
          SELECT FROM incidents i WHERE i.position_id = p.id AND i.kind = 'overfill')) AND EXISTS (
          SELECT FROM positions t WHERE t.overfill_of = p.id AND t.opening_qty = l.ledger))
    UNION ALL
    SELECT 'position ' || t.id, 'holds an overfill of ' || t.opening_qty || ', but position ' || p.id || ' has another'
    FROM positions t JOIN positions p ON p.id = t.overfill_of
    LEFT JOIN (SELECT position_id, sum(delta) AS delta FROM position_adjustments GROUP BY 1) a ON a.position_id = p.id
    LEFT JOIN (SELECT position_id, sum(moved) AS delta FROM effective GROUP BY 1) e ON e.position_id = p.id
    WHERE t.opening_qty <> p.opening_qty + COALESCE(a.delta, 0) + COALESCE(e.delta, 0) - p.quantity
    UNION ALL
    SELECT 'position ' || p.id, 'was opened with ' || p.opening_qty || ' and is ' || p.quantity || ', with no incident'
    FROM positions p
    WHERE p.opening_qty * p.quantity < 0 AND p.created_at >= (SELECT incidents FROM whole) AND NOT EXISTS (
        SELECT FROM incidents i WHERE i.position_id = p.id AND i.kind IN ('overfill', 'side_changed'))
    """,
)
ONE_ACTIVE: Final = sql_check(
    4,
    "close requests",
    "close_requests",
    """
    SELECT 'position ' || position_id AS subject, 'has ' || count(*) || ' unfinished close requests: '
           || string_agg(id::text, ', ' ORDER BY id) AS detail
    FROM close_requests WHERE status IN (SELECT status FROM unfinished)
    GROUP BY position_id HAVING count(*) > 1
    """,
)
IDEMPOTENCY: Final = sql_check(
    5,
    "idempotency keys",
    "close_requests",
    """
    SELECT 'position ' || position_id AS subject, 'key ' || idempotency_key || ' made ' || count(*)
           || ' close requests: ' || string_agg(id::text, ', ' ORDER BY id) AS detail
    FROM close_requests GROUP BY position_id, idempotency_key HAVING count(*) > 1
    UNION ALL
    SELECT 'close request ' || close_request_id, 'attempt ' || attempt || ' was asked for by ' || count(DISTINCT id)
           || ' different events'
    FROM outbox_events WHERE topic = 'submit-order' GROUP BY close_request_id, attempt HAVING count(DISTINCT id) > 1
    """,
)
ATOMIC_ACCEPT: Final = sql_check(
    6,
    "close requests",
    "close_requests",
    """
    SELECT 'close request ' || r.id AS subject,
           CASE WHEN o.id IS NULL THEN 'has no SUBMIT_CLOSE_ORDER in the outbox'
                ELSE 'transaction ' || r.xact_id || ', its outbox row was written by ' || o.xact_id END AS detail
    FROM close_requests r CROSS JOIN kept
    LEFT JOIN outbox_events o ON o.close_request_id = r.id AND o.topic = 'submit-order' AND o.attempt = 1
                             AND o.emission = 1
    WHERE (o.id IS NULL AND (r.created_at AT TIME ZONE 'UTC')::date >= kept.since) OR o.xact_id <> r.xact_id
    UNION ALL
    SELECT 'event ' || o.id, 'asks for close request ' || COALESCE(o.close_request_id::text, '?') || ': missing'
    FROM outbox_events o LEFT JOIN close_requests r ON r.id = o.close_request_id
    WHERE o.topic = 'submit-order' AND r.id IS NULL
    """,
)
COMPLETED_SHORT: Final = ", ".join(f"'{why}'" for why in (RESIDUAL, DUST, EXTERNALLY_CLOSED, REVERSED, *Ending))
"""Why a close may be completed with less than its target."""
AGREE: Final = sql_check(
    11,
    "close requests",
    "close_requests",
    """
    SELECT 'close request ' || r.id AS subject,
           'filled_qty is ' || r.filled_qty || ', its executions make ' || COALESCE(f.filled, 0) AS detail
    FROM close_requests r
    LEFT JOIN (SELECT o.close_request_id, sum(e.quantity) AS filled
               FROM orders o JOIN effective e USING (client_order_id) GROUP BY 1) f ON f.close_request_id = r.id
    WHERE r.filled_qty <> COALESCE(f.filled, 0)
    UNION ALL
    SELECT 'close request ' || r.id, 'is completed while ' || o.client_order_id || ' is ' || o.status
    FROM close_requests r JOIN orders o ON o.close_request_id = r.id
    WHERE r.status = 'completed' AND o.status NOT IN (SELECT status FROM ended)
      AND NOT EXISTS (SELECT FROM incidents i WHERE i.client_order_id = o.client_order_id AND i.closed_at IS NULL)
    UNION ALL
    SELECT 'close request ' || id, 'is completed with ' || filled_qty || ' of ' || target_qty || ' filled'
    FROM close_requests
    WHERE status = 'completed' AND filled_qty < target_qty
      AND COALESCE(reason, '') NOT IN (@SHORT)
    UNION ALL
    SELECT 'close request ' || r.id, 'is failed although all of its target is filled'
    FROM close_requests r
    WHERE r.status = 'failed' AND r.filled_qty >= r.target_qty AND NOT EXISTS (
        SELECT FROM orders o WHERE o.close_request_id = r.id AND o.status NOT IN (SELECT status FROM ended))
    UNION ALL
    SELECT 'position ' || id,
           'is closed with quantity ' || quantity || ', closed at ' || COALESCE(closed_at::text, 'no time')
    FROM positions WHERE status = 'closed' AND (abs(quantity) >= @LOT OR closed_at IS NULL)
    UNION ALL
    SELECT 'position ' || id, 'has quantity ' || quantity || ' and is ' || status
    FROM positions p
    WHERE abs(quantity) < @LOT AND opening_qty <> 0 AND status <> 'closed' AND NOT EXISTS (
        SELECT FROM close_requests r WHERE r.position_id = p.id AND r.status IN (SELECT status FROM unfinished))
    UNION ALL
    SELECT 'position ' || p.id,
           'is ' || p.status || ' with active request ' || COALESCE(p.active_close_request_id::text, 'none') || ' ('
           || COALESCE(r.status, 'not there') || '), its unfinished one is ' || COALESCE(u.id::text, 'none')
    FROM positions p
    LEFT JOIN close_requests r ON r.id = p.active_close_request_id
    LEFT JOIN LATERAL (SELECT min(c.id::text) AS id FROM close_requests c
                       WHERE c.position_id = p.id AND c.status IN (SELECT status FROM unfinished)) u ON true
    WHERE p.active_close_request_id::text IS DISTINCT FROM u.id
       OR (p.status = 'closing') <> COALESCE(r.status IN ('pending', 'submitted'), false)
       OR (p.status = 'close_retryable') <> COALESCE(r.status = 'retryable', false)
    """.replace("@LOT", LOT).replace("@SHORT", COMPLETED_SHORT),
)
BOOK_CHECKS: Final = (CONSERVE, ONE_ACTIVE, IDEMPOTENCY, ATOMIC_ACCEPT, AGREE)


async def run_check(tx: Transaction, check: SqlCheck) -> tuple[int, Sequence[tuple[str, str]]]:
    """How many items there were to look at, and (subject, detail) of each violation."""
    count = int((await tx.execute(check.count)).scalar_one())
    return count, [(row.subject, row.detail) for row in await tx.execute(check.violations)]
