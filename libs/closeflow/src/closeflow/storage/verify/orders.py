"""The invariants of orders that one query each can check: ids, attempts, moves, quantities, receipts (7 to 10, 12)."""

from __future__ import annotations

from typing import Final

from closeflow.storage.verify.book_invariants import sql_check

# Where an order's own history runs backwards, the clock was set back, and later sends look earlier than they were.
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
    SELECT 'order ' || o.client_order_id, concat('is to ', o.side, ' ', o.symbol, ' of account ', o.account_id,
           ' and position ', o.position_id, '; its close request says ', r.side, ' ', r.symbol, ' of ', r.account_id,
           ' and ', r.position_id)
    FROM orders o JOIN close_requests r ON r.id = o.close_request_id
    WHERE (o.side, o.symbol, o.account_id, o.position_id) <> (r.side, r.symbol, r.account_id, r.position_id)
    UNION ALL
    SELECT 'order ' || s.client_order_id, s.kind || ' ' || s.n || ' was sent, but there is no such order'
    FROM order_sends s LEFT JOIN orders o USING (client_order_id) WHERE o.client_order_id IS NULL
    UNION ALL
    SELECT 'order ' || s.client_order_id, s.kind || ' ' || s.n || ' was sent before the order was written'
    FROM order_sends s JOIN orders o USING (client_order_id)
    WHERE s.started_at < o.created_at AND o.created_at >= (SELECT history FROM whole)
      AND NOT EXISTS (SELECT FROM status_history h
                      WHERE h.entity = 'order' AND h.entity_id = o.client_order_id AND h.at < o.created_at)
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
      AND COALESCE(before.created_at, o.created_at) >= (SELECT GREATEST(history, incidents) FROM whole)
      AND NOT EXISTS (SELECT FROM incidents i WHERE i.client_order_id = before.client_order_id)
    UNION ALL
    SELECT 'order ' || o.client_order_id, 'was made when the broker had stated ' || s.cum_qty || ' filled of '
           || before.client_order_id || ' and ' || w.executed || ' could be named'
    FROM orders o
    JOIN orders before ON before.close_request_id = o.close_request_id AND before.attempt < o.attempt
    JOIN order_statements s ON s.client_order_id = before.client_order_id
         AND COALESCE(s.heard_at, s.stated_at) < o.created_at
         AND s.kind IN ('canceled', 'expired', 'rejected')
    CROSS JOIN LATERAL (SELECT COALESCE(sum(e.quantity), 0) AS executed FROM effective e
                        WHERE e.client_order_id = before.client_order_id
                          AND (e.recorded_at <= o.created_at
                               -- The clock was set back between the two.
                               OR EXISTS (SELECT FROM status_history h
                                          WHERE h.entity = 'order' AND h.entity_id = before.client_order_id
                                            AND h.at > o.created_at
                                            AND h.id < (SELECT min(m.id) FROM status_history m WHERE m.entity = 'order'
                                                        AND m.entity_id = o.client_order_id)))) w
    WHERE s.cum_qty > w.executed AND before.created_at >= (SELECT GREATEST(history, incidents) FROM whole)
      AND NOT EXISTS (
        SELECT FROM executions e WHERE e.client_order_id = before.client_order_id AND e.kind <> 'trade')
      AND NOT EXISTS (SELECT FROM incidents i WHERE i.client_order_id = before.client_order_id)
    UNION ALL
    SELECT 'order ' || o.client_order_id, 'is for ' || o.quantity || ' when ' || w.owed || ' was owed'
    FROM orders o JOIN close_requests r ON r.id = o.close_request_id
    CROSS JOIN LATERAL (
        SELECT r.target_qty - COALESCE(sum(e.quantity) FILTER (WHERE e.recorded_at < o.created_at), 0) AS owed,
               COALESCE(bool_or(e.recorded_at >= o.created_at), false) AS late
        FROM orders p JOIN effective e ON e.client_order_id = p.client_order_id
        WHERE p.close_request_id = o.close_request_id AND p.attempt < o.attempt) w
    WHERE o.status <> 'denied' AND r.created_at >= (SELECT incidents FROM whole)
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
    WHERE (from_status IS DISTINCT FROM was
           OR (was IS NULL AND to_status NOT IN ('open', 'pending', 'planned', 'denied')))
      AND NOT (was IS NULL AND from_status IS NOT NULL AND EXISTS (
          SELECT FROM entities e WHERE (e.entity, e.id) = (h.entity, h.entity_id)
            AND e.created_at < (SELECT history FROM whole)))
    UNION ALL
    SELECT replace(now.entity, '_', ' ') || ' ' || now.id,
           'is ' || now.status || ', its history ends with ' || COALESCE(h.to_status, 'nothing')
    FROM entities now
    LEFT JOIN (SELECT DISTINCT ON (entity, entity_id) entity, entity_id, to_status FROM status_history
               ORDER BY entity, entity_id, id DESC) h ON h.entity = now.entity AND h.entity_id = now.id
    WHERE h.to_status IS DISTINCT FROM now.status
      AND NOT (h.to_status IS NULL AND now.created_at < (SELECT history FROM whole))
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
    WHERE GREATEST(o.executed_qty, o.stated_cum_qty) > o.quantity
      AND o.created_at >= (SELECT incidents FROM whole) AND NOT EXISTS (
        SELECT FROM incidents i WHERE i.client_order_id = o.client_order_id AND i.kind = 'overfill')
    UNION ALL
    SELECT 'order ' || e.client_order_id, 'has executions, but there is no such order'
    FROM executions e LEFT JOIN orders o USING (client_order_id) WHERE o.client_order_id IS NULL
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
    SELECT 'order ' || d.client_order_id,
           'the fill that made it ' || d.cum_qty || ' is booked ' || d.n || ' times, as ' || d.names
    -- Where orders are told ahead of their fills, several rightly carry one cumulative quantity; together with those
    -- before them they still cannot be more than it.
    FROM (SELECT client_order_id, cum_qty, count(*) AS n, string_agg(exec_id, ', ' ORDER BY exec_id) AS names,
                 min(recorded_at) AS since, max(recorded_at) AS until
          FROM (SELECT *, sum(LEAST(told, quantity)) OVER (PARTITION BY client_order_id ORDER BY cum_qty) AS so_far
                FROM effective WHERE cum_qty IS NOT NULL) e
          GROUP BY client_order_id, cum_qty HAVING count(*) > 1 AND max(so_far) > cum_qty) d
    -- After a bust or a correction the same cumulative quantity may be reached a second time.
    WHERE NOT EXISTS (SELECT FROM executions r WHERE r.client_order_id = d.client_order_id AND r.kind <> 'trade'
                      AND r.recorded_at BETWEEN d.since AND d.until)
    UNION ALL
    SELECT 'event ' || event_id, 'has ' || count(*) || ' receipts of ' || consumer
    FROM inbox GROUP BY consumer, event_id HAVING count(*) > 1
    UNION ALL
    SELECT 'order ' || o.client_order_id, 'was planned, but the order-submitter has no receipt of its event'
    FROM orders o JOIN close_requests r ON r.id = o.close_request_id CROSS JOIN kept
    -- An order may be planned on the day after its event: those of the request's own day and later are kept.
    WHERE (r.created_at AT TIME ZONE 'UTC')::date >= kept.since AND r.created_at >= (SELECT inbox FROM whole)
      AND NOT EXISTS (
        SELECT FROM outbox_events e JOIN inbox i ON i.event_id = e.id
        WHERE e.close_request_id = o.close_request_id AND e.attempt = o.attempt AND e.topic = 'submit-order'
          AND i.consumer = 'order-submitter' AND i.outcome = 'applied')
    """,
)

ORDER_CHECKS: Final = (DETERMINISTIC_ID, ATTEMPT_FENCE, NO_REGRESS, CUM, ONCE)
