"""The invariants of progress and of what is published, checked by one query each on the outbox and the audit."""

from __future__ import annotations

from typing import Final

from closeflow.domain.close.deferral import incident_kind
from closeflow.storage.deferred_closes import INCIDENT_AFTER_SQL
from closeflow.storage.verify.book_invariants import SNAPSHOT_AT, sql_check

# The limits: 60 s of grace over what is due (the reconciler looks every half second), twice that for an order's time to
# work; 5 min for an accepted close that nobody answered, and for a cancel; 15 min for an order that stays unknown
# (T_unknown); 4 days, a long weekend, for an order that the broker suspended. What stood still for a reason that is
# over (a halt, an incident that was closed in the last 5 min) has its time from then on.
# A close that is deferred has the time of its reason, and two minutes until the reconciler has told of it.
# `next_attempt_at` of a close without an answer says nothing, because each emission moves it.
NO_SILENT_STUCK: Final = sql_check(
    13,
    "close requests",
    "close_requests",
    f"""
    WITH told AS MATERIALIZED (
        SELECT i.about, bool_or(i.closed_at IS NULL) AS open, max(i.closed_at) AS closed_at
        FROM (SELECT unnest(ARRAY['request ' || close_request_id, 'position ' || position_id,
                                  'order ' || client_order_id]) AS about, closed_at FROM incidents
              UNION ALL
              SELECT 'asked for ' || e.close_request_id, n.closed_at
              FROM incidents n JOIN outbox_events e ON e.id::text = split_part(n.subject, '/', 1)
              WHERE n.kind = 'event_not_published' AND e.topic = 'submit-order') i
        WHERE i.about IS NOT NULL AND (i.closed_at IS NULL OR i.closed_at > {SNAPSHOT_AT} - interval '5 min')
        GROUP BY i.about
    )
    SELECT 'close request ' || r.id AS subject,
           'is ' || r.status || COALESCE(', frozen by ' || r.frozen_reason, '')
           || COALESCE(', for ' || r.reason || ' since ' || r.deferred_since, '')
           || COALESCE(', its order is ' || o.status, '') || '; nothing moves it and no incident is open' AS detail
    FROM close_requests r
    CROSS JOIN (SELECT {SNAPSHOT_AT} AS now, {SNAPSHOT_AT} - interval '60 s' AS late) l
    LEFT JOIN LATERAL (SELECT * FROM orders x WHERE x.close_request_id = r.id ORDER BY x.attempt DESC LIMIT 1) o ON true
    LEFT JOIN LATERAL (SELECT min(s.started_at) FILTER (
                                  WHERE COALESCE(s.answer, '') NOT IN ('not_sent', 'not_accepted')) AS counted_at,
                              max(s.lease_until) AS lease_until FROM order_sends s
                       WHERE s.client_order_id = o.client_order_id AND s.kind = 'submit') s ON true
    LEFT JOIN LATERAL (SELECT max(h.at) AS at FROM status_history h
                       WHERE (h.entity = 'close_request' AND h.entity_id = r.id::text)
                          OR (h.entity = 'order' AND h.entity_id = o.client_order_id)) moved ON true
    LEFT JOIN told i1 ON i1.about = 'request ' || r.id
    LEFT JOIN told i2 ON i2.about = 'position ' || r.position_id
    LEFT JOIN told i3 ON i3.about = 'order ' || o.client_order_id
    LEFT JOIN told i4 ON i4.about = 'asked for ' || r.id AND r.status = 'pending'
    CROSS JOIN LATERAL (SELECT COALESCE(i1.open OR i2.open OR i3.open OR i4.open, false) AS open,
                               GREATEST(i1.closed_at, i2.closed_at, i3.closed_at, i4.closed_at) AS closed_at) incident
    LEFT JOIN LATERAL (SELECT max(c.at) AS at, COALESCE(bool_or(c.state = 'halted'), true) AS halted
                       FROM trading_controls c WHERE c.scope IN ('global', r.account_id)) held ON true
    WHERE r.status IN ('pending', 'submitted', 'retryable') AND NOT incident.open
      AND CASE
            WHEN r.frozen_reason IS NOT NULL THEN true
            WHEN GREATEST(LEAST(r.deadline_at, r.cancel_requested_at), incident.closed_at) < l.late
                 AND LEAST(r.deadline_at, r.cancel_requested_at) IS NOT NULL
                 AND (r.status <> 'submitted' OR (o.cancel_requested_at IS NULL
                                                  AND o.status NOT IN (SELECT status FROM ended))) THEN true
            WHEN r.status = 'pending'
                THEN COALESCE(r.next_attempt_at, r.created_at + interval '30 s') < l.late
                  OR (r.reason IS NULL
                      AND GREATEST(r.created_at, moved.at, incident.closed_at) < l.now - interval '5 min')
                  OR (GREATEST(r.deferred_since, incident.closed_at) < l.now - {INCIDENT_AFTER_SQL} - interval '2 min'
                      AND NOT EXISTS (SELECT FROM incidents n WHERE n.closed_at IS NULL
                                      AND (n.kind, n.subject) = ('{incident_kind("")}' || r.reason, r.account_id)))
            WHEN r.status = 'retryable'
                THEN NOT r.auto_retry
                  OR (NOT held.halted
                      AND GREATEST(COALESCE(r.next_attempt_at, moved.at, r.created_at), held.at) < l.late)
            WHEN o.client_order_id IS NULL THEN COALESCE(moved.at, r.created_at) < l.late
            WHEN o.status = 'submit_unknown'
                THEN COALESCE(s.counted_at, o.created_at) + interval '15 min' < l.late
            WHEN o.status IN (SELECT status FROM ended) THEN COALESCE(moved.at, o.created_at) < l.late
            WHEN o.cancel_requested_at IS NOT NULL
                THEN GREATEST(o.cancel_requested_at, incident.closed_at) < l.now - interval '5 min'
            WHEN o.status = 'planned' THEN GREATEST(o.next_send_at, o.created_at, s.lease_until) < l.late
            WHEN o.status IN ('new', 'partially_filled')
                THEN GREATEST(o.created_at + make_interval(secs => r.working_timeout_s), moved.at, incident.closed_at)
                     < l.late - interval '60 s'
            ELSE GREATEST(o.created_at, moved.at, incident.closed_at) < l.now - interval '4 days'
          END
    UNION ALL
    SELECT 'order ' || o.client_order_id, 'the broker states ' || o.stated_cum_qty || ' filled, ' || o.executed_qty
           || ' can be named; no incident is open'
    FROM orders o
    WHERE o.stated_cum_qty > o.executed_qty
      AND COALESCE(o.last_broker_update_at, o.created_at) < {SNAPSHOT_AT} - interval '60 s'
      AND NOT EXISTS (SELECT FROM incidents i WHERE i.closed_at IS NULL AND (
          i.client_order_id = o.client_order_id OR i.close_request_id = o.close_request_id
          OR i.position_id = o.position_id))
    UNION ALL
    SELECT 'order ' || o.client_order_id, 'is ' || o.status || ' although its close request is ' || r.status
           || '; no incident is open and the position is not marked exposure_unproven'
    FROM orders o JOIN close_requests r ON r.id = o.close_request_id JOIN positions p ON p.id = o.position_id
    WHERE r.status IN ('completed', 'failed') AND o.status NOT IN (SELECT status FROM ended) AND NOT p.exposure_unproven
      AND NOT EXISTS (SELECT FROM incidents i WHERE i.closed_at IS NULL AND (
          i.client_order_id = o.client_order_id OR i.close_request_id = r.id OR i.position_id = p.id))
    """,  # noqa: S608 (a constant of ours)
)
PUBLISHED: Final = sql_check(
    14,
    "audited days",
    "outbox_audit",
    """
    SELECT 'event ' || (m ->> 'id') AS subject,
           'the publication audit misses its emission ' || (m ->> 'emission') || ' in Kafka' AS detail
    FROM outbox_audit a CROSS JOIN LATERAL jsonb_array_elements(a.missing) m
    WHERE NOT EXISTS (SELECT FROM outbox_events e WHERE e.id = (m ->> 'id')::uuid
                      AND e.emission > (m ->> 'emission')::integer)
    UNION ALL
    SELECT 'day ' || d.day, 'its outbox rows are gone, and the publication audit never judged it'
    FROM (SELECT DISTINCT (created_at AT TIME ZONE 'UTC')::date AS day FROM close_requests) d CROSS JOIN kept
    WHERE d.day < kept.since AND NOT EXISTS (SELECT FROM outbox_audit a WHERE a.day = d.day)
      AND NOT EXISTS (SELECT FROM outbox_events e WHERE e.created_on = d.day)
    """,
)
# Each change of a position makes one version and one event, beginning with 2: an import makes version 1 in silence.
ORDER_PER_KEY: Final = sql_check(
    15,
    "positions",
    "positions",
    """
    SELECT 'position ' || p.id AS subject,
           'is at version ' || p.version || '; the outbox has ' || COALESCE(e.n, 0) || ' versions'
           || COALESCE(', from ' || e.lowest || ' to ' || e.highest, '') AS detail
    FROM positions p CROSS JOIN kept
    LEFT JOIN (SELECT position_id, min(position_version) AS lowest, max(position_version) AS highest,
                      count(DISTINCT position_version) AS n
               FROM outbox_events WHERE topic = 'position-events' GROUP BY 1) e ON e.position_id = p.id
    WHERE e.highest <> p.version OR e.n <> e.highest - e.lowest + 1
       OR (p.version > 1 AND (p.created_at AT TIME ZONE 'UTC')::date >= kept.since AND e.lowest IS DISTINCT FROM 2)
    """,
)
# Every trade enters the books once; a bust takes back what stands of it, and a correction takes its place. `net` is 1
# where the row stands in the books. Rows of a chain that began before the kept days have outlived their events.
LEDGER: Final = sql_check(
    16,
    "executions",
    "executions",
    """
    SELECT 'execution ' || x.exec_id AS subject,
           concat('is a ', x.kind, ' that ', CASE WHEN x.net = 1 THEN 'stands' ELSE 'does not stand' END,
                  '; the outbox enters it ', COALESCE(b.entered, 0), ' times and takes it back ',
                  COALESCE(b.reversed, 0), ' times') AS detail
    FROM (SELECT e.broker, e.account_id, e.exec_id, e.kind, e.recorded_at, (f.stands IS NOT NULL)::integer AS net,
                 LEAST(e.recorded_at, min(c.first_at)) AS since
          FROM executions e
          LEFT JOIN chain c ON (c.broker, c.account_id, c.exec_id) = (e.broker, e.account_id, e.exec_id)
          LEFT JOIN effective f ON (f.broker, f.account_id, f.stands) = (e.broker, e.account_id, e.exec_id)
          GROUP BY e.broker, e.account_id, e.exec_id, e.kind, e.recorded_at, f.stands) x
    CROSS JOIN kept
    LEFT JOIN (SELECT broker, account_id, exec_id, count(*) FILTER (WHERE way = 1) AS entered,
                      count(*) FILTER (WHERE way = -1) AS reversed
               FROM entries GROUP BY 1, 2, 3) b
        ON (b.broker, b.account_id, b.exec_id) = (x.broker, x.account_id, x.exec_id)
    WHERE (x.since AT TIME ZONE 'UTC')::date >= kept.since
      AND (COALESCE(b.entered, 0) - COALESCE(b.reversed, 0) <> x.net OR b.entered > 1
           OR (x.kind = 'trade' AND b.entered IS DISTINCT FROM 1))
    UNION ALL
    SELECT CASE WHEN e.exec_id IS NULL THEN 'event ' || b.id ELSE 'execution ' || e.exec_id END,
           CASE WHEN e.exec_id IS NULL THEN 'is about execution ' || b.exec_id || ', which is not booked'
                ELSE concat('is ', e.side, ' ', e.quantity, ' @ ', e.price, ' of position ', e.position_id,
                            '; its event says ', b.side, ' ', b.quantity, ' @ ', b.price, ' of ', b.position_id)
           END
    FROM entries b
    LEFT JOIN executions e ON (e.broker, e.account_id, e.exec_id) = (b.broker, b.account_id, b.exec_id)
    WHERE e.exec_id IS NULL OR e.kind = 'bust'
       OR (b.side, b.quantity, b.price, b.position_id) <> (e.side, e.quantity, e.price, e.position_id)
    UNION ALL
    SELECT 'charge ' || c.charge_id,
           concat('of execution ', c.exec_id, ' is commission ', c.commission, ' and fees ', c.fees, '; ',
                  COALESCE(b.n, 0), ' events tell of it, of ', COALESCE(b.commission, 0), ' and ', COALESCE(b.fees, 0))
    FROM execution_charges c CROSS JOIN kept
    LEFT JOIN (SELECT broker, account_id, charge_id, count(*) AS n, sum(commission) AS commission, sum(fees) AS fees
               FROM charged GROUP BY 1, 2, 3) b
        ON (b.broker, b.account_id, b.charge_id) = (c.broker, c.account_id, c.charge_id)
    WHERE c.charge_id <> c.exec_id AND (c.recorded_at AT TIME ZONE 'UTC')::date >= kept.since
      AND (c.commission, c.fees) IS DISTINCT FROM (b.commission, b.fees)
      AND (EXISTS (SELECT FROM executions e WHERE (e.broker, e.account_id, e.exec_id)
                                                  = (c.broker, c.account_id, c.exec_id))
           OR EXISTS (SELECT FROM execution_aliases a WHERE (a.broker, a.account_id, a.alias_id)
                                                            = (c.broker, c.account_id, c.exec_id)))
    UNION ALL
    SELECT 'position ' || p.id, 'the cash of its events is ' || b.cash || '; its standing executions make ' || f.cash
    FROM positions p CROSS JOIN kept
    JOIN (SELECT position_id, sum(cash) AS cash FROM entries GROUP BY 1) b ON b.position_id = p.id
    JOIN (SELECT q.id, COALESCE(sum(-e.moved * e.price * q.multiplier), 0) AS cash
          FROM positions q LEFT JOIN effective e ON e.position_id = q.id GROUP BY q.id) f ON f.id = p.id
    WHERE b.cash <> f.cash AND (p.created_at AT TIME ZONE 'UTC')::date >= kept.since
    """,
)
RISK: Final = sql_check(
    17,
    "positions",
    "positions",
    """
    SELECT 'position ' || p.id AS subject,
           concat('is ', p.status, ' with ', p.quantity, '; its newest event, version ', e.position_version, ', says ',
                  e.payload ->> 'position_status', ' with ', e.payload ->> 'quantity') AS detail
    FROM positions p
    JOIN (SELECT DISTINCT ON (position_id) position_id, position_version, payload FROM outbox_events
          WHERE topic = 'position-events' ORDER BY position_id, position_version DESC, emission DESC) e
        ON e.position_id = p.id
    WHERE (p.status, p.quantity) IS DISTINCT FROM (e.payload ->> 'position_status', (e.payload ->> 'quantity')::numeric)
    """,
)

EVENT_CHECKS: Final = (NO_SILENT_STUCK, PUBLISHED, ORDER_PER_KEY, LEDGER, RISK)
