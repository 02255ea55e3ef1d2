"""What operators look at and do by hand; each deed is a row of `operator_actions` in the transaction of its effect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import text

from closeflow.domain.model import Order
from closeflow.domain.operator.adjust import Adjustment
from closeflow.domain.operator.declare_lost import Known
from closeflow.storage import tables
from closeflow.storage.direct import Row, change, fetch
from closeflow.storage.engine import Transaction
from closeflow.storage.rows import insert_rows, rows_json, storable

_RECORD: Final = insert_rows(tables.operator_actions, ["by", "action", "subject", "reason", "before", "after"])
# The history's triggers take who and why from here (migration 0005).
_ACT_AS: Final = text("SELECT set_config('closeflow.by', :by, true), set_config('closeflow.reason', :reason, true)")


async def act_as(tx: Transaction, *, by: str, reason: str) -> None:
    """Let `status_history` name the operator and the reason for every move of this transaction."""
    await tx.execute(_ACT_AS, {"by": storable(by), "reason": storable(reason)})


async def record_action(
    tx: Transaction,
    *,
    by: str,
    action: str,
    subject: str,
    reason: str,
    before: Mapping[str, object] | None = None,
    after: Mapping[str, object] | None = None,
) -> None:
    """Record what an operator did. `before` and `after` hold what `rows_json` can write: no floats."""
    row = {
        "by": storable(by),
        "action": action,
        "subject": storable(subject),
        "reason": storable(reason),
        "before": before,
        "after": after,
    }
    await tx.execute(_RECORD, {"rows": rows_json([row])})


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentRow:
    """An incident as it is kept; `close_request_id` also where only its order is named."""

    id: int
    kind: str
    severity: str
    subject: str
    detail: str
    close_request_id: UUID | None
    opened_at: datetime
    last_seen_at: datetime
    count: int
    closed_at: datetime | None
    closed_by: str | None
    resolution: str | None


_INCIDENTS: Final = """
    SELECT i.id, i.kind, i.severity, i.subject, COALESCE(i.detail ->> 'text', '') AS detail,
           COALESCE(i.close_request_id, o.close_request_id) AS close_request_id, i.opened_at, i.last_seen_at, i.count,
           i.closed_at, i.closed_by, i.resolution
    FROM incidents i LEFT JOIN orders o ON o.client_order_id = i.client_order_id
"""
_LIST_INCIDENTS: Final = text(f"""
    {_INCIDENTS} WHERE (CAST(:closed AS boolean) OR i.closed_at IS NULL)
      AND (CAST(:kind AS text) IS NULL OR i.kind = :kind)
    ORDER BY i.opened_at DESC, i.id DESC LIMIT :limit
""")
_INCIDENT: Final = text(f"{_INCIDENTS} WHERE i.id = :id")
_LOCK_INCIDENT: Final = text(f"{_INCIDENTS} WHERE i.id = :id FOR NO KEY UPDATE OF i")
_REQUEST_OF_INCIDENT: Final = text("""
    SELECT COALESCE(i.close_request_id, o.close_request_id) AS request_id
    FROM incidents i LEFT JOIN orders o ON o.client_order_id = i.client_order_id WHERE i.id = :id
""")
_INCIDENTS_OF_REQUEST: Final = text(f"""
    {_INCIDENTS} WHERE i.closed_at IS NULL AND COALESCE(i.close_request_id, o.close_request_id) = :request_id
    ORDER BY i.id
""")
_CLOSE_INCIDENT: Final = text("""
    UPDATE incidents SET closed_at = closeflow_now(), closed_by = :by, resolution = :resolution
    WHERE id = :id AND closed_at IS NULL
""")
_SENDERS: Final = text("""
    SELECT w.instance_id, w.host, w.pid, w.started_at, w.last_seen_at, w.exited_at,
           closeflow_now() - w.last_seen_at AS silent_for,
           (SELECT count(*) FROM order_sends s WHERE s.sender = w.instance_id AND s.answered_at IS NULL) AS unanswered
    FROM senders w
    WHERE CAST(:instance_id AS text) IS NULL OR w.instance_id = :instance_id
    ORDER BY w.last_seen_at DESC LIMIT :limit
""")
_CONFIRM_EXIT: Final = text("""
    UPDATE senders SET exited_at = closeflow_now() WHERE instance_id = :instance_id AND exited_at IS NULL
""")
_ACTIONS: Final = text("""
    SELECT id, at, by, action, subject, reason, before, after FROM operator_actions
    WHERE (CAST(:subject AS text) IS NULL OR subject = :subject)
    ORDER BY id DESC LIMIT :limit
""")


async def list_incidents(tx: Transaction, *, closed: bool, kind: str | None, limit: int) -> list[IncidentRow]:
    """Open incidents, the newest first; with `closed` those that are over too."""
    rows = await fetch(tx, _LIST_INCIDENTS, {"closed": closed, "kind": kind, "limit": limit})
    return [IncidentRow(**row) for row in rows]


async def request_of_incident(tx: Transaction, *, incident_id: int) -> UUID | None:
    """The request that the incident, or its order, is of. Neither ever changes."""
    rows = await fetch(tx, _REQUEST_OF_INCIDENT, {"id": incident_id})
    return rows[0]["request_id"] if rows else None


async def lock_incident(tx: Transaction, *, incident_id: int) -> IncidentRow | None:
    """The incident, locked. Whoever also needs books takes those first (rule R7)."""
    rows = await fetch(tx, _LOCK_INCIDENT, {"id": incident_id})
    return IncidentRow(**rows[0]) if rows else None


async def find_incident(tx: Transaction, *, incident_id: int) -> IncidentRow | None:
    rows = await fetch(tx, _INCIDENT, {"id": incident_id})
    return IncidentRow(**rows[0]) if rows else None


async def open_incidents_of_request(tx: Transaction, *, request_id: UUID) -> list[IncidentRow]:
    """The open incidents of a request and of its orders."""
    return [IncidentRow(**row) for row in await fetch(tx, _INCIDENTS_OF_REQUEST, {"request_id": request_id})]


async def close_incident(tx: Transaction, *, incident_id: int, by: str, resolution: str) -> None:
    """Close it; one that is closed already keeps its resolution."""
    told = {"id": incident_id, "by": storable(by), "resolution": storable(resolution)}
    await change(tx, _CLOSE_INCIDENT, told)


async def list_senders(tx: Transaction, *, instance_id: str | None = None, limit: int = 1) -> list[Row]:
    """Who sends or sent, the one last seen first; `silent_for` is a timedelta by the database's clock."""
    return await fetch(tx, _SENDERS, {"instance_id": instance_id, "limit": limit})


async def confirm_exit(tx: Transaction, *, instance_id: str) -> None:
    """That a sender's process is gone, which somebody has seen where it ran."""
    await change(tx, _CONFIRM_EXIT, {"instance_id": instance_id})


async def list_actions(tx: Transaction, *, subject: str | None, limit: int) -> list[Row]:
    """What operators did, the newest first."""
    return await fetch(tx, _ACTIONS, {"subject": subject, "limit": limit})


_ADJUST: Final = insert_rows(tables.position_adjustments, ["position_id", "delta", "reason", "source", "by", "at"])
_LAST_ADJUSTMENT: Final = text("""
    SELECT delta, reason, by FROM position_adjustments WHERE position_id = :position_id ORDER BY id DESC LIMIT 1
""")
_TAKEN_BY: Final = text("""
    SELECT client_order_id FROM executions
    WHERE (broker, account_id, exec_id) = (:broker, :account_id, :exec_id)
    UNION ALL
    SELECT e.client_order_id FROM execution_aliases a JOIN executions e USING (broker, account_id, exec_id)
    WHERE (a.broker, a.account_id, a.alias_id) = (:broker, :account_id, :exec_id)
""")
_SENDERS_OF_ORDER: Final = text("""
    SELECT instance_id, exited_at, says_it_closes FROM senders WHERE instance_id = ANY(CAST(:senders AS text[]))
""")
_EXPECTED: Final = text("""
    SELECT COALESCE(sum(quantity), 0) AS quantity FROM positions
    WHERE (account_id, symbol) = (:account_id, :symbol) AND quantity <> 0
""")
_DENIED: Final = text("""
    SELECT count, opened_at FROM incidents
    WHERE kind = 'acknowledged_order_not_found' AND client_order_id = :client_order_id AND closed_at IS NULL
""")


async def insert_adjustment(
    tx: Transaction, *, position_id: int, adjustment: Adjustment, at: datetime, source: str = "operator"
) -> None:
    row = {
        "position_id": position_id,
        "delta": adjustment.delta,
        "reason": storable(adjustment.reason),
        "source": source,
        "by": storable(adjustment.by),
        "at": at,
    }
    await change(tx, _ADJUST, {"rows": rows_json([row])})


async def last_adjustment(tx: Transaction, *, position_id: int) -> Adjustment | None:
    rows = await fetch(tx, _LAST_ADJUSTMENT, {"position_id": position_id})
    return Adjustment(**rows[0]) if rows else None


async def order_of_execution(tx: Transaction, *, broker: str, account_id: str, exec_id: str) -> str | None:
    """The client order id under which an execution id, or an alias, is booked."""
    key = {"broker": broker, "account_id": account_id, "exec_id": exec_id}
    rows = await fetch(tx, _TAKEN_BY, key)
    return rows[0]["client_order_id"] if rows else None


async def load_known(tx: Transaction, *, order: Order) -> Known:
    """What the tables say, besides its book, of whether an order can still live (rule R6)."""
    senders = sorted({one.sender for one in order.sends})
    rows = await fetch(tx, _SENDERS_OF_ORDER, {"senders": senders})
    expected = await fetch(tx, _EXPECTED, {"account_id": order.account_id, "symbol": order.symbol})
    denied = await fetch(tx, _DENIED, {"client_order_id": order.client_order_id})
    return Known(
        exited={row["instance_id"]: row["exited_at"] for row in rows if row["exited_at"] is not None},
        says_it_closes=[row["instance_id"] for row in rows if row["says_it_closes"]],
        expected=expected[0]["quantity"],
        denied=(denied[0]["count"], denied[0]["opened_at"]) if denied else None,
    )
