"""What an operator looks at: positions, close requests, and the timeline of one request from every table it touched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text

from closeflow.domain.model import CloseRequest
from closeflow.storage.core.engine import Transaction
from closeflow.storage.core.statements import fetch

Fields = dict[str, Any]

_POSITIONS: Final = text("""
    SELECT id, account_id, symbol, asset_type, opening_qty, quantity, status, active_close_request_id, closed_at,
           version
    FROM positions
    WHERE (CAST(:account AS text) IS NULL OR account_id = :account)
      AND (CAST(:status AS text) IS NULL OR status = :status) AND id > :after
    ORDER BY id LIMIT :limit
""")
_REQUESTS: Final = text("""
    SELECT id, position_id, account_id, symbol, side, status, reason, target_qty, filled_qty, remaining_qty, attempt,
           retry_count, frozen_reason, created_at, submitted_at, completed_at
    FROM close_requests
    WHERE (CAST(:status AS text) IS NULL OR status = :status)
      AND (CAST(:position_id AS bigint) IS NULL OR position_id = :position_id)
    ORDER BY id DESC LIMIT :limit
""")
_REQUEST: Final = text("SELECT * FROM close_requests WHERE id = :id")
_ORDERS: Final = text("SELECT * FROM orders WHERE close_request_id = :id ORDER BY attempt")
_INCIDENTS: Final = text("""
    SELECT * FROM incidents WHERE close_request_id = :id
       OR client_order_id IN (SELECT client_order_id FROM orders WHERE close_request_id = :id)
    ORDER BY id
""")
# One line per fact, each with its time and the table it comes from; ties in the order in which they follow.
_TIMELINE: Final = text("""
    WITH o AS (SELECT client_order_id FROM orders WHERE close_request_id = :id),
    about (subject, is_a) AS (
        SELECT CAST(:id AS text), 'close'
        UNION ALL SELECT client_order_id, 'order' FROM o
        UNION ALL SELECT CAST(:position_id AS text), 'position'
        UNION ALL SELECT CAST(i.id AS text), 'incident' FROM incidents i
        WHERE i.close_request_id = :id OR i.client_order_id IN (SELECT client_order_id FROM o)
    ), facts (at, rank, source, what, detail) AS (
        SELECT h.at, h.id, 'status_history', h.entity || ' ' || COALESCE(h.from_status || ' -> ', '') || h.to_status,
               jsonb_build_object('entity_id', h.entity_id, 'reason', h.reason, 'by', h.by)
        FROM status_history h
        WHERE (h.entity = 'close_request' AND h.entity_id = CAST(:id AS text))
           OR (h.entity = 'order' AND h.entity_id IN (SELECT client_order_id FROM o))
           OR (h.entity = 'position' AND h.entity_id = CAST(:position_id AS text)
               AND h.at >= :created_at)
        UNION ALL
        SELECT e.occurred_at, 0, 'outbox_events', 'event ' || e.event_type,
               jsonb_build_object('topic', e.topic, 'id', e.id, 'emission', e.emission, 'attempt', e.attempt,
                                  'seen_in_kafka', a.day IS NOT NULL)
        FROM outbox_events e
        LEFT JOIN outbox_audit a ON a.day = e.created_on AND e.xact_id < a.audited_through
            AND NOT a.missing @> jsonb_build_array(jsonb_build_object('id', e.id, 'emission', e.emission))
        WHERE e.close_request_id = :id
        UNION ALL
        SELECT s.started_at, s.n, 'order_sends', s.kind || ' sent (' || s.n || ')',
               jsonb_build_object('client_order_id', s.client_order_id, 'sender', s.sender)
        FROM order_sends s WHERE s.client_order_id IN (SELECT client_order_id FROM o)
        UNION ALL
        SELECT s.answered_at, s.n, 'order_sends', s.kind || ' answered: ' || s.answer,
               jsonb_build_object('client_order_id', s.client_order_id)
        FROM order_sends s
        WHERE s.client_order_id IN (SELECT client_order_id FROM o) AND s.answered_at IS NOT NULL
        UNION ALL
        SELECT t.stated_at, COALESCE(t.broker_seq, 0), 'order_statements', 'broker states ' || t.kind,
               jsonb_build_object('client_order_id', t.client_order_id, 'cum_qty', t.cum_qty, 'source', t.source)
               || COALESCE(t.detail, '{}')
        FROM order_statements t WHERE t.client_order_id IN (SELECT client_order_id FROM o)
        UNION ALL
        SELECT x.occurred_at, COALESCE(x.broker_seq, 0), 'executions', x.kind || ' ' || x.quantity || ' @ ' || x.price,
               jsonb_build_object('client_order_id', x.client_order_id, 'exec_id', x.exec_id, 'source', x.source)
        FROM executions x WHERE x.client_order_id IN (SELECT client_order_id FROM o)
        UNION ALL
        SELECT d.at, d.id, 'operator_actions', d.action || ' by ' || d.by,
               jsonb_build_object('subject', d.subject, 'reason', d.reason, 'trace_id', d.trace_id)
        FROM about n JOIN operator_actions d USING (subject)
        WHERE n.is_a IN ('close', 'order')
           OR (d.at >= :created_at AND (n.is_a, d.action) IN (('incident', 'close_incident'), ('position', 'adjust'),
                                        ('position', 'end_position'), ('position', 'override_exposure')))
    )
    SELECT at, source, what, detail FROM facts ORDER BY at, source, rank
""")


async def list_positions(
    tx: Transaction, *, account: str | None, status: str | None, after: int, limit: int
) -> list[Fields]:
    """Positions with an id above `after`, ids ascending."""
    return await _all(tx, _POSITIONS, {"account": account, "status": status, "after": after, "limit": limit})


async def list_requests(tx: Transaction, *, status: str | None, position_id: int | None, limit: int) -> list[Fields]:
    """Close requests, the newest first (their ids are in the order of time)."""
    return await _all(tx, _REQUESTS, {"status": status, "position_id": position_id, "limit": limit})


async def list_facts(tx: Transaction, *, request: CloseRequest) -> list[Fields]:
    """All that is known to have happened to a request, each with `at`, `source` (the table), `what` and `detail`."""
    return await fetch(
        tx, _TIMELINE, {"id": request.id, "position_id": request.position_id, "created_at": request.created_at}
    )


async def request_with_timeline(tx: Transaction, *, request_id: UUID) -> Fields | None:
    """One request with its orders, incidents and timeline; None when there is no such request."""
    found = await _all(tx, _REQUEST, {"id": request_id})
    if not found:
        return None
    request = found[0]
    parameters = {"id": request_id, "position_id": request["position_id"], "created_at": request["created_at"]}
    return {
        "request": request,
        "orders": await _all(tx, _ORDERS, {"id": request_id}),
        "incidents": await _all(tx, _INCIDENTS, {"id": request_id}),
        "timeline": await _all(tx, _TIMELINE, parameters),
    }


async def _all(tx: Transaction, statement: Any, parameters: Mapping[str, object]) -> list[Fields]:
    return [dict(row) for row in (await tx.execute(statement, parameters)).mappings()]
