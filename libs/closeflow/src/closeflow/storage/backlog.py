"""How much is not over: closes by what they wait for, open incidents, parked records, breakers. For the metrics."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import text

from closeflow.domain.incidents import IncidentKind
from closeflow.storage.core.bulk import rows_json
from closeflow.storage.core.engine import Transaction
from closeflow.storage.core.statements import fetch

# By close_requests_unfinished_idx, and orders_working_idx for what is in doubt: what is under way, not what is over.
_CLOSES: Final = text("""
    SELECT w.status, w.waits_for, count(*) AS n,
           CAST(EXTRACT(EPOCH FROM closeflow_now() - min(w.created_at)) AS float8) AS oldest_s
    FROM (
        SELECT r.status, r.created_at,
               CASE WHEN r.frozen_reason IS NOT NULL OR (r.status = 'retryable' AND NOT r.auto_retry)
                         OR (r.status <> 'submitted' AND r.reason = 'limits_missing') THEN 'person'
                    WHEN r.status = 'submitted' AND u.close_request_id IS NOT NULL THEN 'unknown_outcome'
                    WHEN r.status = 'submitted' THEN 'fill'
                    WHEN r.reason IN ('market_closed', 'trading_halted') THEN r.reason
                    WHEN r.reason IN ('broker_unavailable', 'no_market_clock', 'submit_limit_reached') THEN 'broker'
                    WHEN r.deferred_since IS NOT NULL THEN 'quote'
                    WHEN r.status = 'pending' THEN 'plan'
                    ELSE 'retry' END AS waits_for
        FROM close_requests r
        LEFT JOIN (SELECT DISTINCT close_request_id FROM orders WHERE status = 'submit_unknown') u
            ON u.close_request_id = r.id
        WHERE r.status IN ('pending', 'submitted', 'retryable')
    ) w
    GROUP BY w.status, w.waits_for
""")
# By incidents_open_key, which has only what is open.
_INCIDENTS: Final = text("""
    SELECT kind, severity, count(*) AS n FROM incidents WHERE closed_at IS NULL GROUP BY kind, severity
""")
# What is of a foreign order waits for nothing, and is kept for a person to look at.
_PARKED: Final = text(f"""
    SELECT topic, count(*) AS n FROM parked_records
    WHERE released_at IS NULL AND reason <> '{IncidentKind.FOREIGN_ORDER}' GROUP BY topic
""")  # noqa: S608 (a constant of ours)
_BREAKERS: Final = text("SELECT account_id, state <> 'closed' AS open FROM broker_breakers")
# By the primary key, from the first letter on that may wait.
_HANDLED: Final = text("""
    SELECT h.topic, count(*) AS n
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (topic text, partition integer, "offset" bigint)
    JOIN dead_letter_actions h
      ON h.topic = r.topic AND h.partition = r.partition AND h."offset" >= r."offset"
    GROUP BY h.topic
""")


@dataclass(frozen=True, slots=True)
class Waiting:
    """Closes of one status that wait for the same, and the age of the oldest."""

    count: int
    oldest_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What is not over. Closes are by status and what they wait for, incidents by kind and severity, parked records
    by topic, breakers by account."""

    closes: Mapping[tuple[str, str], Waiting]
    incidents: Mapping[tuple[str, str], int]
    parked: Mapping[str, int]
    open_breakers: Mapping[str, bool]


async def read_backlog(tx: Transaction) -> Backlog:
    """Everything that is not over, counted."""
    return Backlog(
        closes={
            (row["status"], row["waits_for"]): Waiting(row["n"], row["oldest_s"]) for row in await fetch(tx, _CLOSES)
        },
        incidents={(row["kind"], row["severity"]): row["n"] for row in await fetch(tx, _INCIDENTS)},
        parked={row["topic"]: row["n"] for row in await fetch(tx, _PARKED)},
        open_breakers={row["account_id"]: row["open"] for row in await fetch(tx, _BREAKERS)},
    )


async def handled_letters_after(tx: Transaction, *, starts: Collection[tuple[str, int, int]]) -> Mapping[str, int]:
    """By dead letter topic, how many letters from these offsets on (topic, partition, offset) were handled one by one;
    a topic without any is not there."""
    rows = [{"topic": topic, "partition": number, "offset": offset} for topic, number, offset in sorted(starts)]
    return {row["topic"]: row["n"] for row in await fetch(tx, _HANDLED, {"rows": rows_json(rows)})}
