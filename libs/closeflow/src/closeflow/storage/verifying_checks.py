"""The invariants that one query each can check: what it looks at, and every row that breaks it.

A violation is a subject (`position 7`, `order cf-…`) and what is wrong with it. All of it is read only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import TextClause, bindparam, text

from closeflow.domain.transitions import ORDER_MOVES, POSITION_MOVES, REQUEST_MOVES
from closeflow.storage.engine import Transaction

MOST: Final = 1000
"""Violations that one check lists; more of them say nothing new."""


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
    found = text(f"{_COMMON} SELECT subject, detail FROM ({violations}) v ORDER BY subject, detail LIMIT {MOST}")  # noqa: S608
    if ":legal" in violations:
        found = found.bindparams(bindparam("legal", _LEGAL))
    return SqlCheck(invariant, looks_at, text(f"SELECT count(*) FROM {count}"), found)  # noqa: S608


# chain: every trade with the busts and corrections that name it, or name one that does.
# effective: the trades as they stand, that is without the busted ones and with what the last correction says.
# kept: the oldest day whose outbox rows are still there; older facts have outlived their events.
# raised: which entity has an incident, open or closed, of a kind.
_COMMON: Final = """
    WITH RECURSIVE named AS MATERIALIZED (
        SELECT b.*, COALESCE(a.exec_id, b.ref_exec_id) AS names
        FROM executions b LEFT JOIN execution_aliases a
            ON (a.broker, a.account_id, a.alias_id) = (b.broker, b.account_id, b.ref_exec_id)
        WHERE b.kind <> 'trade'
    ),
    chain AS (
        SELECT broker, account_id, exec_id AS trade, exec_id, kind, quantity, broker_seq, occurred_at, 0 AS depth
        FROM executions WHERE kind = 'trade'
        UNION ALL
        SELECT c.broker, c.account_id, c.trade, n.exec_id, n.kind, n.quantity, n.broker_seq, n.occurred_at, c.depth + 1
        FROM chain c JOIN named n ON (n.broker, n.account_id, n.names) = (c.broker, c.account_id, c.exec_id)
    ),
    effective AS (
        SELECT e.broker, e.account_id, e.exec_id, e.client_order_id, e.position_id, e.cum_qty, e.recorded_at,
               l.quantity,
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
      AND NOT (p.quantity = 0 AND l.ledger * l.base <= 0 AND EXISTS (
          SELECT FROM incidents i WHERE i.position_id = p.id AND i.kind = 'overfill') AND EXISTS (
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
    WHERE p.opening_qty * p.quantity < 0 AND NOT EXISTS (
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
DETERMINISTIC_ID: Final = sql_check(
    7,
    "orders",
    "orders",
    """
    SELECT 'order ' || client_order_id AS subject,
           'its id is not that of close request ' || close_request_id || ', attempt ' || attempt AS detail
    FROM orders
    WHERE client_order_id <> 'cf-' || replace(close_request_id::text, '-', '') || '-' || attempt
    UNION ALL
    SELECT 'order ' || s.client_order_id, s.kind || ' ' || s.n || ' was sent, but there is no such order'
    FROM order_sends s LEFT JOIN orders o USING (client_order_id) WHERE o.client_order_id IS NULL
    UNION ALL
    SELECT 'order ' || s.client_order_id, s.kind || ' ' || s.n || ' was sent before the order was written'
    FROM order_sends s JOIN orders o USING (client_order_id) WHERE s.started_at < o.created_at
    UNION ALL
    SELECT 'order ' || o.client_order_id, 'the broker has it as ' || o.broker_order_id || ', but no send of it counts'
    FROM orders o
    WHERE o.broker_order_id IS NOT NULL AND NOT EXISTS (
        SELECT FROM order_sends s WHERE s.client_order_id = o.client_order_id AND s.kind = 'submit'
          AND COALESCE(s.answer, '') NOT IN ('not_sent', 'not_accepted'))
    """,
)
# The ids of the history give the order of changes of one position, because its row is locked at each of them.
ATTEMPT_FENCE: Final = sql_check(
    8,
    "orders",
    "orders",
    """
    SELECT 'order ' || o.client_order_id AS subject,
           CASE WHEN before.client_order_id IS NULL THEN 'there is no order of the attempt before it'
                ELSE 'was made while the attempt before it was ' || COALESCE(was.to_status, 'not made') END AS detail
    FROM orders o
    LEFT JOIN orders before ON before.close_request_id = o.close_request_id AND before.attempt = o.attempt - 1
    LEFT JOIN LATERAL (
        SELECT h.to_status FROM status_history h
        WHERE h.entity = 'order' AND h.entity_id = before.client_order_id
          AND h.id < (SELECT min(m.id) FROM status_history m
                      WHERE m.entity = 'order' AND m.entity_id = o.client_order_id)
        ORDER BY h.id DESC LIMIT 1) was ON true
    WHERE o.attempt > 1 AND (was.to_status IS NULL OR was.to_status NOT IN (SELECT status FROM ended))
      AND NOT EXISTS (SELECT FROM incidents i WHERE i.client_order_id = before.client_order_id)
    UNION ALL
    SELECT 'order ' || o.client_order_id, 'is for ' || o.quantity || ' when ' || w.owed || ' was owed'
    FROM orders o JOIN close_requests r ON r.id = o.close_request_id
    CROSS JOIN LATERAL (
        SELECT r.target_qty - COALESCE(sum(e.quantity) FILTER (WHERE e.recorded_at < o.created_at), 0) AS owed,
               COALESCE(bool_or(e.recorded_at >= o.created_at), false) AS late
        FROM orders p JOIN effective e ON e.client_order_id = p.client_order_id
        WHERE p.close_request_id = o.close_request_id AND p.attempt < o.attempt) w
    WHERE o.status <> 'denied' AND o.cancel_requested_at IS NULL
      AND (o.quantity > w.owed
           -- Less than that is right only where something else took of the position, or a fill came late.
           OR (o.quantity < w.owed AND NOT w.late
               AND NOT EXISTS (SELECT FROM position_adjustments a WHERE a.position_id = o.position_id)
               AND NOT EXISTS (SELECT FROM orders x WHERE x.position_id = o.position_id
                               AND x.close_request_id <> o.close_request_id AND x.executed_qty > 0
                               AND x.last_broker_update_at > r.created_at)))
      AND NOT EXISTS (SELECT FROM incidents i
                      WHERE i.client_order_id = o.client_order_id OR i.close_request_id = o.close_request_id)
    """,
)
NO_REGRESS: Final = sql_check(
    9,
    "changes of status",
    "status_history",
    """
    SELECT replace(entity, '_', ' ') || ' ' || entity_id AS subject,
           from_status || ' -> ' || to_status || ' is not a legal move' AS detail
    FROM status_history
    WHERE from_status IS NOT NULL
      AND entity || ':' || from_status || ':' || to_status <> ALL(CAST(:legal AS text[]))
    UNION ALL
    SELECT replace(entity, '_', ' ') || ' ' || entity_id,
           'was ' || COALESCE(was, 'nothing') || ', then went from ' || COALESCE(from_status, 'nothing')
           || ' to ' || to_status
    FROM (SELECT *, lag(to_status) OVER (PARTITION BY entity, entity_id ORDER BY id) AS was FROM status_history) h
    WHERE from_status IS DISTINCT FROM was
       OR (was IS NULL AND to_status NOT IN ('open', 'pending', 'planned', 'denied'))
    UNION ALL
    SELECT replace(now.entity, '_', ' ') || ' ' || now.id,
           'is ' || now.status || ', its history ends with ' || COALESCE(h.to_status, 'nothing')
    FROM (SELECT 'position' AS entity, id::text AS id, status FROM positions
          UNION ALL SELECT 'close_request', id::text, status FROM close_requests
          UNION ALL SELECT 'order', client_order_id, status FROM orders) now
    LEFT JOIN (SELECT DISTINCT ON (entity, entity_id) entity, entity_id, to_status FROM status_history
               ORDER BY entity, entity_id, id DESC) h ON h.entity = now.entity AND h.entity_id = now.id
    WHERE h.to_status IS DISTINCT FROM now.status
    UNION ALL
    SELECT 'order ' || o.client_order_id,
           'broker_update_seq is ' || COALESCE(o.broker_update_seq::text, 'nothing') || ', a fact of it has ' || f.seq
    FROM orders o JOIN (
        SELECT client_order_id, max(broker_seq) AS seq
        FROM (SELECT client_order_id, broker_seq FROM executions
              UNION ALL SELECT client_order_id, broker_seq FROM order_statements) s
        GROUP BY 1) f USING (client_order_id)
    WHERE COALESCE(o.broker_update_seq, -1) < f.seq
    """,
)
CUM: Final = sql_check(
    10,
    "orders",
    "orders",
    """
    SELECT 'order ' || o.client_order_id AS subject,
           'executed ' || o.executed_qty || ', stated ' || COALESCE(o.stated_cum_qty, 0) || ' of ' || o.quantity
           || ', with no overfill incident' AS detail
    FROM orders o
    WHERE GREATEST(o.executed_qty, o.stated_cum_qty) > o.quantity AND NOT EXISTS (
        SELECT FROM incidents i WHERE i.client_order_id = o.client_order_id AND i.kind = 'overfill')
    UNION ALL
    SELECT 'order ' || e.client_order_id, 'has executions, but there is no such order'
    FROM executions e LEFT JOIN orders o USING (client_order_id) WHERE o.client_order_id IS NULL
    """,
)
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
      AND COALESCE(reason, '') NOT IN ('residual_below_lot', 'externally_closed', 'reversed')
    UNION ALL
    SELECT 'close request ' || r.id, 'is failed although all of its target is filled'
    FROM close_requests r
    WHERE r.status = 'failed' AND r.filled_qty >= r.target_qty AND NOT EXISTS (
        SELECT FROM orders o WHERE o.close_request_id = r.id AND o.status NOT IN (SELECT status FROM ended))
    UNION ALL
    SELECT 'position ' || id,
           'is closed with quantity ' || quantity || ', closed at ' || COALESCE(closed_at::text, 'no time')
    FROM positions WHERE status = 'closed' AND (quantity <> 0 OR closed_at IS NULL)
    UNION ALL
    SELECT 'position ' || id, 'has quantity 0 and is ' || status
    FROM positions p
    WHERE quantity = 0 AND opening_qty <> 0 AND status <> 'closed' AND NOT EXISTS (
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
    """,
)
ONCE: Final = sql_check(
    12,
    "executions",
    "executions",
    """
    SELECT 'execution ' || exec_id AS subject, 'is booked ' || count(*) || ' times' AS detail
    FROM executions GROUP BY broker, account_id, exec_id HAVING count(*) > 1
    UNION ALL
    SELECT 'order ' || client_order_id,
           'the fill that made it ' || cum_qty || ' is booked ' || count(*) || ' times, as '
           || string_agg(exec_id, ', ' ORDER BY exec_id)
    FROM effective WHERE cum_qty IS NOT NULL GROUP BY client_order_id, cum_qty HAVING count(*) > 1
    UNION ALL
    SELECT 'event ' || event_id, 'has ' || count(*) || ' receipts of ' || consumer
    FROM inbox GROUP BY consumer, event_id HAVING count(*) > 1
    UNION ALL
    SELECT 'order ' || o.client_order_id, 'was planned, but the order-submitter has no receipt of its event'
    FROM orders o CROSS JOIN kept
    WHERE (o.created_at AT TIME ZONE 'UTC')::date >= kept.since AND NOT EXISTS (
        SELECT FROM outbox_events e JOIN inbox i ON i.event_id = e.id
        WHERE e.close_request_id = o.close_request_id AND e.attempt = o.attempt AND e.topic = 'submit-order'
          AND i.consumer = 'order-submitter' AND i.outcome = 'applied')
    """,
)

BOOK_CHECKS: Final = (
    CONSERVE,
    ONE_ACTIVE,
    IDEMPOTENCY,
    ATOMIC_ACCEPT,
    DETERMINISTIC_ID,
    ATTEMPT_FENCE,
    NO_REGRESS,
    CUM,
    AGREE,
    ONCE,
)


async def run_check(tx: Transaction, check: SqlCheck) -> tuple[int, Sequence[tuple[str, str]]]:
    """How many items there were to look at, and (subject, detail) of each violation."""
    count = int((await tx.execute(check.count)).scalar_one())
    return count, [(row.subject, row.detail) for row in await tx.execute(check.violations)]
