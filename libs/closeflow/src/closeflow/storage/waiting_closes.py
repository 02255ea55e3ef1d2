"""The closes that are not over, with what each waits for, as `closeflow.domain.operator.waiting` decides it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from closeflow.domain.enums import OrderStatus, RequestStatus
from closeflow.domain.operator.waiting import CloseSeen, OpenIncident, OrderSeen
from closeflow.storage.book import mapping
from closeflow.storage.close_requests import OWNED, listed
from closeflow.storage.core.engine import Transaction
from closeflow.storage.core.statements import Row, fetch
from closeflow.storage.due_work import Sending, sending_of_accounts

# By close_requests_unfinished_idx, then each order by (close_request_id, attempt) and what is of a position by its id.
_UNFINISHED: Final = text(f"""
    WITH r AS MATERIALIZED (
        SELECT r.* FROM close_requests r
        WHERE r.status IN ('pending', 'submitted', 'retryable') AND {OWNED.format("r")}
          AND (CAST(:request_id AS uuid) IS NULL OR r.id = :request_id)
        ORDER BY r.id LIMIT :limit
    )
    SELECT r.*, o.client_order_id AS "order.id", o.status AS "order.status", o.created_at AS "order.created_at",
           o.next_send_at AS "order.next_send_at", o.cancel_requested_at AS "order.cancel_requested_at",
           s.first_sent_at, s.last_sent_at, s.cancel_sent_at,
           COALESCE((SELECT sum(g.stated_cum_qty - g.executed_qty) FROM orders g
                     WHERE g.position_id = r.position_id AND g.stated_cum_qty > g.executed_qty), 0) AS unnamed,
           COALESCE(r.frozen_reason,
                    (SELECT f.frozen_reason FROM close_requests f
                     WHERE f.position_id = r.position_id AND f.frozen_reason IS NOT NULL LIMIT 1)) AS position_frozen
    FROM r
    LEFT JOIN LATERAL (
        SELECT * FROM orders o
        WHERE o.close_request_id = r.id
          AND o.status NOT IN ('denied', 'lost', 'filled', 'canceled', 'expired', 'rejected')
        ORDER BY o.attempt DESC LIMIT 1
    ) o ON true
    LEFT JOIN LATERAL (
        SELECT min(s.started_at) FILTER (WHERE s.kind = 'submit') AS first_sent_at,
               max(s.started_at) FILTER (WHERE s.kind = 'submit') AS last_sent_at,
               max(s.started_at) FILTER (WHERE s.kind = 'cancel') AS cancel_sent_at
        FROM order_sends s
        WHERE s.client_order_id = o.client_order_id AND COALESCE(s.answer, '') NOT IN ('not_sent', 'not_accepted')
    ) s ON true
    ORDER BY r.id
""")  # noqa: S608 (constants of ours)
# Open ones are few, and incidents_open_key has no others.
_OPEN_INCIDENTS: Final = text("""
    SELECT i.id, i.kind, i.opened_at, i.position_id, i.close_request_id, i.client_order_id FROM incidents i
    WHERE i.closed_at IS NULL AND (i.position_id IS NOT NULL OR i.close_request_id IS NOT NULL)
    ORDER BY i.id
""")
_NOW: Final = text("SELECT closeflow_now() AS now")
# Those that are not over by their own index; of each account the newest by (account_id, id), which is by time.
_COUNTS: Final = text(f"""
    SELECT status, count(*) AS n, min(created_at) AS oldest, false AS more FROM close_requests r
    WHERE status IN ('pending', 'submitted', 'retryable') AND {OWNED.format("r")} GROUP BY status
    UNION ALL
    SELECT status, count(*), min(created_at), bool_or(total >= :most)
    FROM accounts a CROSS JOIN LATERAL (
        SELECT n.*, count(*) OVER () AS total FROM (
            SELECT r.status, r.created_at FROM close_requests r
            WHERE r.account_id = a.account_id AND r.id >= :since ORDER BY r.id DESC LIMIT :most
        ) n
    ) newest
    WHERE status IN ('completed', 'failed') AND {OWNED.format("a")} GROUP BY status
""")  # noqa: S608 (a constant of ours)
FUNNEL_OF: Final = timedelta(hours=1)
"""Of what is over only what was asked for since then is counted."""
COUNTED: Final = 2_000
"""And of one account no more than so many, the newest: the count is shown again and again."""


@dataclass(frozen=True, slots=True)
class WaitingCloses:
    """Closes that are not over, the oldest first, and the database's time at which they were read."""

    now: datetime
    closes: list[CloseSeen]


@dataclass(frozen=True, slots=True)
class StateCount:
    """How many closes are in a state, when the oldest of them was asked for, and whether there may be more."""

    count: int
    oldest: datetime
    more: bool = False


async def waiting_closes(
    tx: AsyncConnection, *, accounts: Collection[str] | None, limit: int, request_id: UUID | None = None
) -> WaitingCloses:
    """At most `limit` of them, or the one of this id; only those of `accounts`, None being all."""
    now = (await fetch(tx, _NOW, {}))[0]["now"]
    rows = await fetch(tx, _UNFINISHED, {"accounts": listed(accounts), "limit": limit, "request_id": request_id})
    sending = await sending_of_accounts(tx)
    told = await fetch(tx, _OPEN_INCIDENTS, {})
    by_request, by_position = _sorted(told)
    return WaitingCloses(now, [_seen(row, sending, by_request, by_position) for row in rows])


async def count_closes(tx: Transaction, *, accounts: Collection[str] | None) -> dict[RequestStatus, StateCount]:
    """By status; of those that are over, what was asked for within `FUNNEL_OF`, but no more than `COUNTED`."""
    now: datetime = (await fetch(tx, _NOW, {}))[0]["now"]
    since = UUID(int=int((now - FUNNEL_OF).timestamp() * 1000) << 80)
    rows = await fetch(tx, _COUNTS, {"accounts": listed(accounts), "since": since, "most": COUNTED})
    return {RequestStatus(row["status"]): StateCount(row["n"], row["oldest"], row["more"]) for row in rows}


_Told = Mapping[object, list[OpenIncident]]


def _sorted(rows: list[Row]) -> tuple[_Told, _Told]:
    """By the close, which every incident about one of its orders names too; by the position where none is named."""
    by_request: defaultdict[object, list[OpenIncident]] = defaultdict(list)
    by_position: defaultdict[object, list[OpenIncident]] = defaultdict(list)
    for row in rows:
        one = OpenIncident(row["id"], row["kind"], row["opened_at"])
        if row["close_request_id"] is not None:
            by_request[row["close_request_id"]].append(one)
        else:
            by_position[row["position_id"]].append(one)
    return by_request, by_position


def _seen(row: Row, sending: Mapping[str, Sending], by_request: _Told, by_position: _Told) -> CloseSeen:
    account = sending.get(row["account_id"])
    return CloseSeen(
        request=mapping.request(row),
        order=None if row["order.id"] is None else _order(row),
        unnamed=Decimal(row["unnamed"]),
        frozen_reason=row["position_frozen"],
        halted=account is None or account.halted,
        sends_resume_at=None if account is None else account.resumes_at,
        incidents=[*by_request.get(row["id"], ()), *by_position.get(row["position_id"], ())],
    )


def _order(row: Row) -> OrderSeen:
    return OrderSeen(
        client_order_id=row["order.id"],
        status=OrderStatus(row["order.status"]),
        created_at=row["order.created_at"],
        first_sent_at=row["first_sent_at"],
        last_sent_at=row["last_sent_at"],
        next_send_at=row["order.next_send_at"],
        cancel_requested_at=row["order.cancel_requested_at"],
        cancel_sent_at=row["cancel_sent_at"],
    )
