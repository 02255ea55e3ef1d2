"""Incidents that are over: which facts end which kind, and what is added to one that waits for a person."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import text

from closeflow.storage.doubts import STILL_WITHHELD
from closeflow.storage.engine import Transaction
from closeflow.storage.rows import rows_json

_OVER: Final = """o.status IN ('denied', 'lost', 'filled', 'canceled', 'expired', 'rejected')
    AND o.stated_cum_qty <= o.executed_qty"""
_ORDER_IS_OVER: Final = f"EXISTS (SELECT FROM orders o WHERE o.client_order_id = i.client_order_id AND {_OVER})"
_BREAKER_IS_CLOSED: Final = (
    "EXISTS (SELECT FROM broker_breakers b WHERE b.account_id = i.subject AND b.state = 'closed')"
)
RESOLVED_WHEN: Final[Mapping[str, str]] = {
    "acknowledged_order_not_found": f"""({_ORDER_IS_OVER} OR EXISTS (
        SELECT FROM orders o
        WHERE o.client_order_id = i.client_order_id AND o.last_broker_update_at > i.last_seen_at))""",
    "broker_credentials_refused": _BREAKER_IS_CLOSED,
    "broker_refuses_orders": _BREAKER_IS_CLOSED,
    "cancel_outcome_missing": _ORDER_IS_OVER,
    "cancel_refused": _ORDER_IS_OVER,
    "exposure_above_owed": _ORDER_IS_OVER,
    "execution_withheld": f"NOT {STILL_WITHHELD}",
    "order_done_for_day": _ORDER_IS_OVER,
    "order_not_attended": _ORDER_IS_OVER,
    "order_not_found": """EXISTS (
        SELECT FROM orders o
        WHERE o.client_order_id = i.client_order_id AND o.status NOT IN ('planned', 'submit_unknown'))""",
    "request_not_woken": """EXISTS (
        SELECT FROM close_requests r WHERE r.id = i.close_request_id AND r.updated_at > i.last_seen_at)""",
    "submit_unknown": f"""NOT EXISTS (
        SELECT FROM orders o WHERE o.close_request_id = i.close_request_id AND NOT ({_OVER}))""",
    "target_reached_with_live_order": _ORDER_IS_OVER,
}
"""By kind, what has to be true of an open incident `i` for it to be over. None of these kinds freezes a request: what
does is for a person to close (rule R11)."""
_RESOLVE: Final = text(f"""
    UPDATE incidents i SET closed_at = closeflow_now(), closed_by = 'reconciler', resolution = 'what it tells is over'
    WHERE i.closed_at IS NULL AND i.kind = ANY(CAST(:kinds AS text[]))
      AND CASE i.kind {" ".join(f"WHEN '{kind}' THEN {over}" for kind, over in RESOLVED_WHEN.items())} END
    RETURNING i.id, i.kind, i.subject
""")  # noqa: S608 (constants of ours)
_CLOSE_SUBJECTS: Final = text("""
    UPDATE incidents SET closed_at = closeflow_now(), closed_by = 'reconciler', resolution = :resolution
    WHERE kind = :kind AND closed_at IS NULL AND subject = ANY(CAST(:subjects AS text[]))
""")
# Sends that the broker cannot have seen are no sends here (rule R3b).
_ABSENT: Final = text("""
    SELECT i.id, o.client_order_id, o.symbol, sends.sent_at
    FROM incidents i JOIN orders o ON o.client_order_id = i.client_order_id
    JOIN LATERAL (SELECT min(s.started_at) AS sent_at FROM order_sends s
                  WHERE s.client_order_id = o.client_order_id AND s.kind = 'submit'
                    AND COALESCE(s.answer, '') NOT IN ('not_sent', 'not_accepted')) sends ON sends.sent_at IS NOT NULL
    WHERE i.kind = :kind AND i.closed_at IS NULL AND o.account_id = :account_id
      AND o.status IN ('planned', 'submit_unknown')
    ORDER BY i.detail -> 'evidence' ->> 'assembled_at' NULLS FIRST, i.id LIMIT :budget
""")
_ADD_EVIDENCE: Final = text("""
    UPDATE incidents i SET detail = i.detail || jsonb_build_object('evidence', r.evidence)
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (id bigint, evidence jsonb)
    WHERE i.id = r.id AND i.closed_at IS NULL
""")


@dataclass(frozen=True, slots=True)
class AbsentOrder:
    """An order that the broker did not find often enough to tell a person; `sent_at` is when it was first sent."""

    incident_id: int
    client_order_id: str
    symbol: str
    sent_at: datetime


@dataclass(frozen=True, slots=True)
class Resolved:
    incident_id: int
    kind: str
    subject: str


async def resolve_incidents(tx: Transaction) -> list[Resolved]:
    """Close every open incident whose kind says when it is over, where it is."""
    rows = await tx.execute(_RESOLVE, {"kinds": sorted(RESOLVED_WHEN)})
    return [Resolved(row.id, row.kind, row.subject) for row in rows]


async def close_incidents_about(tx: Transaction, *, kind: str, subjects: Collection[str], resolution: str) -> int:
    """Close the open incidents of a kind about these subjects; returns how many."""
    given = {"kind": kind, "subjects": list(subjects), "resolution": resolution}
    return int((await tx.execute(_CLOSE_SUBJECTS, given)).rowcount)


async def absent_orders(tx: Transaction, *, account_id: str, kind: str, budget: int) -> list[AbsentOrder]:
    """Orders with an open incident of this kind whose fate is still unknown: those without evidence first, then
    those whose evidence is the oldest."""
    rows = await tx.execute(_ABSENT, {"account_id": account_id, "kind": kind, "budget": budget})
    return [AbsentOrder(row.id, row.client_order_id, row.symbol, row.sent_at) for row in rows]


async def add_evidence(tx: Transaction, *, evidence: Mapping[int, Mapping[str, object]]) -> None:
    """Put evidence, by incident id, under `evidence` in the incidents' details, in place of what was there."""
    rows = [{"id": incident_id, "evidence": dict(one)} for incident_id, one in evidence.items()]
    if rows:
        await tx.execute(_ADD_EVIDENCE, {"rows": rows_json(rows)})
