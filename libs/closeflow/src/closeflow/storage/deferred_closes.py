"""Closes that stand still without anybody's fault: which a person does not know of yet, and which are over."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import text

from closeflow.domain.close.deferral import (
    BROKER_UNAVAILABLE,
    INCIDENT_AFTER,
    INCIDENT_AFTER_OTHERS,
    OF_THE_ACCOUNT,
    incident_kind,
)
from closeflow.domain.incidents import IncidentKind
from closeflow.storage.core.engine import Transaction

_WHEN: Final = " ".join(f"WHEN '{reason}' THEN interval '{after}'" for reason, after in INCIDENT_AFTER.items())
INCIDENT_AFTER_SQL: Final = f"CASE r.reason {_WHEN} ELSE interval '{INCIDENT_AFTER_OTHERS}' END"
"""How long a deferred close `r` may wait for its reason before it is an incident."""
_OF_THE_ACCOUNT: Final = ", ".join(f"'{reason}'" for reason in sorted(OF_THE_ACCOUNT))
_UNANSWERED: Final = "interval '1 minute'"
_IN_DOUBT: Final = "interval '50 seconds'"
_ACCOUNT_KINDS: Final = sorted(
    {
        IncidentKind.CLOSE_NOT_PLANNED,
        IncidentKind.ORDERS_NOT_SENT,
        IncidentKind.ORDERS_NOT_ANSWERED,
        *map(incident_kind, OF_THE_ACCOUNT),
    }
)

# By close_requests_unfinished_idx: what is unfinished, whatever the table's size. An order waits from its last send on.
_STANDING: Final = text(f"""
    WITH overdue AS MATERIALIZED (
        SELECT '{incident_kind("")}' || r.reason AS kind, r.account_id, r.id, r.position_id, r.deferred_since AS since,
               r.reason IN ({_OF_THE_ACCOUNT}) AS of_the_account
        FROM close_requests r
        WHERE r.status IN ('pending', 'retryable') AND r.frozen_reason IS NULL AND r.reason IS NOT NULL
          AND r.deferred_since < closeflow_now() - {INCIDENT_AFTER_SQL}
    )
    SELECT kind, account_id, NULL::uuid AS id, NULL::bigint AS position_id, min(since) AS since, count(*) AS n
    FROM overdue WHERE of_the_account GROUP BY kind, account_id
    UNION ALL
    SELECT kind, account_id, id, position_id, since, 1 FROM overdue WHERE NOT of_the_account
    UNION ALL
    SELECT '{IncidentKind.CLOSE_NOT_PLANNED}', r.account_id, NULL, NULL, min(moved.at), count(*)
    FROM close_requests r
    CROSS JOIN LATERAL (SELECT max(h.at) AS at FROM status_history h
                        WHERE h.entity = 'close_request' AND h.entity_id = r.id::text) moved
    WHERE r.status = 'pending' AND r.frozen_reason IS NULL AND r.reason IS NULL
      AND r.created_at < closeflow_now() - {_UNANSWERED} AND moved.at < closeflow_now() - {_UNANSWERED}
    GROUP BY r.account_id
    UNION ALL
    SELECT CASE WHEN b.account_id IS NULL THEN '{IncidentKind.ORDERS_NOT_SENT}'
                ELSE '{incident_kind(BROKER_UNAVAILABLE)}' END,
           o.account_id, NULL, NULL, min(o.created_at), count(*)
    FROM orders o
    JOIN close_requests r ON r.id = o.close_request_id AND r.frozen_reason IS NULL
    LEFT JOIN broker_breakers b ON b.account_id = o.account_id AND b.state <> 'closed'
    WHERE o.status = 'planned' AND o.cancel_requested_at IS NULL AND o.created_at < closeflow_now() - {_UNANSWERED}
      AND NOT EXISTS (SELECT FROM trading_controls c
                      WHERE c.scope IN ('global', o.account_id) AND c.state = 'halted')
    GROUP BY o.account_id, b.account_id
    UNION ALL
    SELECT '{IncidentKind.ORDERS_NOT_ANSWERED}', o.account_id, NULL, NULL, min(sent.at), count(*)
    FROM orders o
    JOIN close_requests r ON r.id = o.close_request_id AND r.frozen_reason IS NULL AND r.status = 'submitted'
    CROSS JOIN LATERAL (SELECT min(s.started_at) AS at FROM order_sends s
                        WHERE s.client_order_id = o.client_order_id AND s.kind = 'submit') sent
    WHERE o.status = 'submit_unknown' AND sent.at < closeflow_now() - {_IN_DOUBT}
    GROUP BY o.account_id
""")  # noqa: S608 (constants of ours)
_CLOSE_OF_ACCOUNTS: Final = text("""
    UPDATE incidents i SET closed_at = closeflow_now(), closed_by = 'reconciler', resolution = 'nothing waits for it'
    WHERE i.closed_at IS NULL AND i.kind = ANY(CAST(:kinds AS text[]))
      AND NOT EXISTS (SELECT FROM unnest(CAST(:still_kinds AS text[]), CAST(:accounts AS text[])) AS s (kind, account)
                      WHERE (s.kind, s.account) = (i.kind, i.subject))
""")
# Only when it is planned or over: what waits now for this and now for that has one incident of each kind. One that
# keeps being refused for what passes by itself is between two tries now and then, and waits on.
_CLOSE_OF_REQUESTS: Final = text(f"""
    UPDATE incidents i SET closed_at = closeflow_now(), closed_by = 'reconciler', resolution = 'it does not wait now'
    WHERE i.closed_at IS NULL AND i.close_request_id IS NOT NULL AND starts_with(i.kind, '{incident_kind("")}')
      AND NOT EXISTS (SELECT FROM close_requests r
                      WHERE r.id = i.close_request_id AND r.status IN ('pending', 'submitted', 'retryable')
                        AND r.deferred_since IS NOT NULL)
""")  # noqa: S608 (a constant of ours)
_OPEN: Final = text(f"""
    SELECT kind, subject FROM incidents
    WHERE closed_at IS NULL AND (starts_with(kind, '{incident_kind("")}') OR kind = ANY(CAST(:kinds AS text[])))
""")  # noqa: S608 (a constant of ours)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeferredClose:
    """One close, or so many (`count`) of an account, that stand still since a while for a reason of the kind."""

    kind: str
    account_id: str
    close_request_id: UUID | None
    position_id: int | None
    since: datetime
    count: int

    @property
    def subject(self) -> str:
        """What its incident is about: the close, or the account where the reason is the account's."""
        return str(self.close_request_id or self.account_id)


async def untold_deferrals(tx: Transaction) -> list[DeferredClose]:
    """Close the incidents of standing still that are over; returns what is not over and has no incident yet."""
    found = [
        DeferredClose(
            kind=row.kind,
            account_id=row.account_id,
            close_request_id=row.id,
            position_id=row.position_id,
            since=row.since,
            count=row.n,
        )
        for row in await tx.execute(_STANDING)
    ]
    of_accounts = [one for one in found if one.close_request_id is None]
    still = {"still_kinds": [one.kind for one in of_accounts], "accounts": [one.account_id for one in of_accounts]}
    await tx.execute(_CLOSE_OF_ACCOUNTS, {"kinds": _ACCOUNT_KINDS, **still})
    await tx.execute(_CLOSE_OF_REQUESTS)
    told = {(row.kind, row.subject) for row in await tx.execute(_OPEN, {"kinds": _ACCOUNT_KINDS})}
    return [one for one in found if (one.kind, one.subject) not in told]
