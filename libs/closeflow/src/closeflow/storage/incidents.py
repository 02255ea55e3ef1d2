"""The only writer of `incidents`: reported once per subject, listed, closed by hand, and closed when they are over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from closeflow.domain.incidents import IncidentKind
from closeflow.domain.model import Incident
from closeflow.storage.core.bulk import rows_json, storable
from closeflow.storage.core.engine import Transaction
from closeflow.storage.core.statements import Row, change, fetch, write
from closeflow.storage.predicates import STILL_WITHHELD, UNKNOWN_VALUE_SUBJECT

_OVER: Final = """o.status IN ('denied', 'lost', 'filled', 'canceled', 'expired', 'rejected')
    AND o.stated_cum_qty <= o.executed_qty"""
_ORDER_IS_OVER: Final = f"EXISTS (SELECT FROM orders o WHERE o.client_order_id = i.client_order_id AND {_OVER})"
_BREAKER_IS_CLOSED: Final = (
    "EXISTS (SELECT FROM broker_breakers b WHERE b.account_id = i.subject AND b.state = 'closed')"
)
RESOLVED_WHEN: Final[Mapping[str, str]] = {
    IncidentKind.ACKNOWLEDGED_ORDER_NOT_FOUND: f"""({_ORDER_IS_OVER} OR EXISTS (
        SELECT FROM orders o
        WHERE o.client_order_id = i.client_order_id AND o.last_broker_update_at > i.last_seen_at))""",
    IncidentKind.BROKER_CREDENTIALS_REFUSED: _BREAKER_IS_CLOSED,
    IncidentKind.BROKER_REFUSES_ORDERS: _BREAKER_IS_CLOSED,
    IncidentKind.CANCEL_OUTCOME_MISSING: _ORDER_IS_OVER,
    IncidentKind.CANCEL_REFUSED: _ORDER_IS_OVER,
    IncidentKind.EXPOSURE_ABOVE_OWED: _ORDER_IS_OVER,
    IncidentKind.EXECUTION_WITHHELD: f"NOT {STILL_WITHHELD}",
    IncidentKind.ORDER_DONE_FOR_DAY: _ORDER_IS_OVER,
    IncidentKind.ORDER_NOT_ATTENDED: _ORDER_IS_OVER,
    IncidentKind.ORDER_NOT_FOUND: """EXISTS (
        SELECT FROM orders o
        WHERE o.client_order_id = i.client_order_id AND o.status NOT IN ('planned', 'submit_unknown'))""",
    IncidentKind.REQUEST_NOT_WOKEN: """EXISTS (
        SELECT FROM close_requests r WHERE r.id = i.close_request_id AND r.updated_at > i.last_seen_at)""",
    IncidentKind.SUBMIT_UNKNOWN: f"""NOT EXISTS (
        SELECT FROM orders o WHERE o.close_request_id = i.close_request_id AND NOT ({_OVER}))""",
    IncidentKind.TARGET_REACHED_WITH_LIVE_ORDER: _ORDER_IS_OVER,
    # Only when it was not seen just now: what is being parked meanwhile cannot be seen here.
    IncidentKind.UNKNOWN_VALUE: f"""(i.last_seen_at < closeflow_now() - interval '1 minute' AND NOT EXISTS (
        SELECT FROM parked_records p WHERE p.released_at IS NULL AND {UNKNOWN_VALUE_SUBJECT} = i.subject))""",
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
    """An incident that was closed because what it told is over."""

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


# NOT EXISTS and not <> ALL, which compares every open incident with every one of thousands of subjects.
_CLOSE_INCIDENTS: Final = text("""
    UPDATE incidents SET closed_at = closeflow_now(), closed_by = 'reconciler', resolution = :resolution
    WHERE kind = :kind AND closed_at IS NULL
      AND NOT EXISTS (SELECT FROM unnest(CAST(:still AS text[])) AS s (subject) WHERE s.subject = incidents.subject)
""")


_CLOSE_GAPS: Final = text("""
    UPDATE incidents i SET closed_at = closeflow_now(), closed_by = 'reconciler', resolution = :resolution
    WHERE i.kind = :kind AND i.closed_at IS NULL
      AND NOT EXISTS (SELECT FROM orders o
                      WHERE o.client_order_id = i.client_order_id AND o.stated_cum_qty > o.executed_qty)
""")


async def close_incidents(tx: Transaction, *, kind: str, still: Collection[str], resolution: str) -> int:
    """Close the open incidents of a kind whose subject is not among `still`; returns how many."""
    result = await tx.execute(_CLOSE_INCIDENTS, {"kind": kind, "still": list(still), "resolution": resolution})
    return int(result.rowcount)


async def close_gap_incidents(tx: Transaction, *, kind: str, resolution: str) -> int:
    """Close the open incidents of a kind whose order has no gap any more, whosever order it is; returns how many."""
    result = await tx.execute(_CLOSE_GAPS, {"kind": kind, "resolution": resolution})
    return int(result.rowcount)


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentRow:
    """An incident as it is kept; `close_request_id` also where only its order is named."""

    id: int
    kind: str
    severity: str
    subject: str
    detail: str
    evidence: Mapping[str, Any] | None
    """What `assemble_evidence` found about an order that the broker does not find; None of any other."""
    account_id: str | None
    """Whose it is; None where it is not about one account alone."""
    close_request_id: UUID | None
    opened_at: datetime
    last_seen_at: datetime
    count: int
    closed_at: datetime | None
    closed_by: str | None
    resolution: str | None


_INCIDENTS: Final = """
    SELECT i.id, i.kind, i.severity, i.subject, COALESCE(i.detail ->> 'text', '') AS detail,
           i.detail -> 'evidence' AS evidence, COALESCE(p.account_id, r.account_id, o.account_id) AS account_id,
           COALESCE(i.close_request_id, o.close_request_id) AS close_request_id, i.opened_at, i.last_seen_at, i.count,
           i.closed_at, i.closed_by, i.resolution
    FROM incidents i LEFT JOIN orders o ON o.client_order_id = i.client_order_id
    LEFT JOIN close_requests r ON r.id = i.close_request_id LEFT JOIN positions p ON p.id = i.position_id
"""
_OWNED: Final = """
    (CAST(:accounts AS text[]) IS NULL
     OR COALESCE(p.account_id, r.account_id, o.account_id) = ANY(CAST(:accounts AS text[])))
"""


_LIST_INCIDENTS: Final = text(f"""
    {_INCIDENTS} WHERE (CAST(:closed AS boolean) OR i.closed_at IS NULL)
      AND (CAST(:kind AS text) IS NULL OR i.kind = :kind)
    ORDER BY i.opened_at DESC, i.id DESC LIMIT :limit
""")
# By the primary key, backwards, past those of other kinds and accounts; of the open ones there are few.
_PAGE: Final = f"""
    {_INCIDENTS} WHERE i.id < :below AND {_OWNED} AND (CAST(:kind AS text) IS NULL OR i.kind = :kind)
      AND (CAST(:account AS text) IS NULL OR COALESCE(p.account_id, r.account_id, o.account_id) = :account) @state
    ORDER BY i.id DESC LIMIT :limit
"""
_OPEN_PAGE: Final = text(_PAGE.replace("@state", "AND i.closed_at IS NULL"))
_WHOLE_PAGE: Final = text(_PAGE.replace("@state", ""))


_INCIDENT: Final = text(f"{_INCIDENTS} WHERE i.id = :id AND {_OWNED}")
_LOCK_INCIDENT: Final = text("SELECT id FROM incidents WHERE id = :id FOR NO KEY UPDATE")

_INCIDENTS_OF_REQUEST: Final = text(f"""
    {_INCIDENTS} WHERE i.closed_at IS NULL AND COALESCE(i.close_request_id, o.close_request_id) = :request_id
    ORDER BY i.id
""")


_CLOSE_INCIDENT: Final = text("""
    UPDATE incidents SET closed_at = closeflow_now(), closed_by = :by, resolution = :resolution
    WHERE id = :id AND closed_at IS NULL
""")


async def list_incidents(tx: Transaction, *, closed: bool, kind: str | None, limit: int) -> list[IncidentRow]:
    """Open incidents, the newest first; with `closed` those that are over too."""
    rows = await fetch(tx, _LIST_INCIDENTS, {"closed": closed, "kind": kind, "limit": limit})
    return [IncidentRow(**row) for row in rows]


async def page_of_incidents(
    tx: Transaction,
    *,
    accounts: Collection[str] | None,
    account: str | None,
    kind: str | None,
    closed: bool,
    below: int,
    limit: int,
) -> list[IncidentRow]:
    """The newest incidents with a number below `below`: the open ones, with `closed` those that are over too; only
    what is about one of `accounts` alone, None being everything."""
    given = {"accounts": _listed(accounts), "account": account, "kind": kind, "below": below, "limit": limit}
    return [IncidentRow(**row) for row in await fetch(tx, _WHOLE_PAGE if closed else _OPEN_PAGE, given)]


async def lock_incident(tx: Transaction, *, incident_id: int) -> IncidentRow | None:
    """The incident, locked. Whoever also needs books takes those first (rule R7)."""
    await fetch(tx, _LOCK_INCIDENT, {"id": incident_id})
    return await find_incident(tx, incident_id=incident_id)


async def find_incident(
    tx: Transaction, *, incident_id: int, accounts: Collection[str] | None = None
) -> IncidentRow | None:
    """The incident, open or closed; None when there is none of this number, or it is about none of `accounts`."""
    rows = await fetch(tx, _INCIDENT, {"id": incident_id, "accounts": _listed(accounts)})
    return IncidentRow(**rows[0]) if rows else None


def _listed(accounts: Collection[str] | None) -> list[str] | None:
    return None if accounts is None else sorted(accounts)


async def open_incidents_of_request(tx: Transaction, *, request_id: UUID) -> list[IncidentRow]:
    """The open incidents of a request and of its orders."""
    return [IncidentRow(**row) for row in await fetch(tx, _INCIDENTS_OF_REQUEST, {"request_id": request_id})]


async def close_incident(tx: Transaction, *, incident_id: int, by: str, resolution: str) -> None:
    """Close it; one that is closed already keeps its resolution."""
    told = {"id": incident_id, "by": storable(by), "resolution": storable(resolution)}
    await change(tx, _CLOSE_INCIDENT, told)


async def report_incidents(tx: AsyncConnection, *, incidents: Sequence[Incident]) -> None:
    """Open an incident per (kind, subject), or count on the open one, once for each that is given; in one order, so
    that transactions which report the same ones wait for each other and never in a circle."""
    merged: dict[tuple[object, ...], Row] = {}
    counts: Counter[tuple[object, ...]] = Counter()
    for one in incidents:
        row: Row = {
            "kind": one.kind,
            "severity": one.severity,
            "position_id": one.position_id,
            "close_request_id": one.close_request_id,
            "client_order_id": one.client_order_id,
            "detail": {"text": storable(one.detail), "subject": one.subject},
        }
        key = (one.kind, one.client_order_id or one.close_request_id or one.position_id or one.subject)
        merged[key] = row
        counts[key] += 1
    if merged:
        rows = [merged[key] | {"count": counts[key]} for key in sorted(merged, key=str)]
        await write(tx, _REPORT_INCIDENTS, rows_json(rows))


_REPORT_INCIDENTS: Final = text("""
    INSERT INTO incidents (kind, severity, position_id, close_request_id, client_order_id, detail, count)
    SELECT kind, severity, position_id, close_request_id, client_order_id, detail, count
    FROM jsonb_populate_recordset(NULL::incidents, CAST(:rows AS jsonb))
    ON CONFLICT (kind, subject) WHERE closed_at IS NULL
    DO UPDATE SET count = incidents.count + EXCLUDED.count, last_seen_at = closeflow_now(),
                  detail = incidents.detail || EXCLUDED.detail -- what others added to it stays
""")


_OPEN: Final = text("SELECT detail FROM incidents WHERE kind = :kind AND subject = :subject AND closed_at IS NULL")


async def open_incident(tx: Transaction, *, kind: str, subject: str) -> Mapping[str, Any] | None:
    """The detail of the open incident of a kind and subject."""
    return (await tx.execute(_OPEN, {"kind": kind, "subject": subject})).scalar_one_or_none()
