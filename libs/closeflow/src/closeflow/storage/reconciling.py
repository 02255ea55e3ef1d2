"""What the reconciler looks for: requests that are due, orders that are quiet or have a gap, events not published."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from closeflow.domain.close.timeouts import DONE_FOR_DAY_WITHIN
from closeflow.domain.retry import FARTHEST
from closeflow.storage.engine import Database, Transaction
from closeflow.storage.job_cycles import count_cycle

_ALIVE: Final = "o.status NOT IN ('denied', 'lost', 'filled', 'canceled', 'expired', 'rejected')"
# As `wake` counts how long an order works: from the last send that may have reached the broker.
_SENT_AT: Final = """COALESCE((SELECT max(s.started_at) FROM order_sends s
                                 WHERE s.client_order_id = o.client_order_id AND s.kind = 'submit'
                                   AND COALESCE(s.answer, '') NOT IN ('not_sent', 'not_accepted')), o.created_at)"""
_DUE: Final = text(f"""
    SELECT r.id, r.position_id FROM close_requests r
    WHERE r.status IN ('pending', 'submitted', 'retryable')
      AND r.id <> ALL(CAST(:excluding AS uuid[]))
      AND ((r.status <> 'submitted' AND r.frozen_reason IS NULL
            AND (r.cancel_requested_at IS NOT NULL OR r.deadline_at <= closeflow_now()))
           OR (r.frozen_reason IS NULL AND r.status = 'pending'
               AND (COALESCE(r.next_attempt_at, r.created_at + CAST(:resend_after AS interval)) <= closeflow_now()
                    OR r.next_attempt_at > closeflow_now() + interval '{FARTHEST}'))
           OR (r.frozen_reason IS NULL AND r.status = 'retryable' AND r.auto_retry
               AND (COALESCE(r.next_attempt_at, r.created_at) <= closeflow_now()
                    OR r.next_attempt_at > closeflow_now() + interval '{FARTHEST}'))
           OR (r.status = 'submitted'
               AND EXISTS (SELECT FROM orders o
                           WHERE o.close_request_id = r.id
                             AND ((o.status = 'submit_unknown'
                                   AND o.created_at <= closeflow_now() - CAST(:unknown_after AS interval))
                                  OR (o.cancel_requested_at IS NULL AND {_ALIVE}
                                      AND (r.cancel_requested_at IS NOT NULL OR r.deadline_at <= closeflow_now()
                                           OR (o.status IN ('new', 'partially_filled', 'suspended', 'pending_cancel')
                                               AND {_SENT_AT} <= closeflow_now()
                                                   - make_interval(secs => r.working_timeout_s))
                                           OR (o.status = 'done_for_day'
                                               AND {_SENT_AT} <= closeflow_now()
                                                   - interval '{DONE_FOR_DAY_WITHIN}')))))))
    ORDER BY r.status = 'submitted' OR r.cancel_requested_at IS NOT NULL
             OR COALESCE(r.deadline_at <= closeflow_now(), false) DESC,
             COALESCE(r.next_attempt_at, r.created_at), r.id
    LIMIT :budget
""")  # noqa: S608 (a constant of ours)
_SENDING: Final = text("""
    SELECT a.account_id,
           (SELECT b.probe_at FROM broker_breakers b
            WHERE (b.broker, b.account_id) = (a.broker, a.account_id) AND b.state <> 'closed') AS resumes_at,
           EXISTS (SELECT FROM trading_controls c
                   WHERE c.scope IN ('global', a.account_id) AND c.state = 'halted') AS halted
    FROM accounts a
""")
_ASKABLE: Final = (
    "status NOT IN ('planned', 'submit_unknown', 'denied', 'lost', 'filled', 'canceled', 'expired', 'rejected')"
)
_QUIET: Final = text(f"""
    SELECT client_order_id, account_id, COALESCE(last_broker_update_at, created_at) AS since FROM orders
    WHERE {_ASKABLE} AND account_id = :account_id
      AND client_order_id <> ALL(CAST(:excluding AS text[]))
      AND COALESCE(last_broker_update_at, created_at)
          NOT BETWEEN closeflow_now() - CAST(:quiet_after AS interval) AND closeflow_now() + interval '{FARTHEST}'
    ORDER BY since LIMIT :budget
""")  # noqa: S608 (a constant of ours)
_GAPS: Final = text(f"""
    SELECT client_order_id, position_id, close_request_id, created_at, stated_cum_qty - executed_qty AS missing,
           COALESCE(last_broker_update_at, created_at) AS since
    FROM orders
    WHERE stated_cum_qty > executed_qty AND account_id = :account_id
      AND COALESCE(last_broker_update_at, created_at)
          NOT BETWEEN closeflow_now() - CAST(:grace AS interval) AND closeflow_now() + interval '{FARTHEST}'
    ORDER BY client_order_id = ANY(CAST(:asked AS text[])), since LIMIT :budget
""")  # noqa: S608 (a constant of ours)
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
_TRY_LOCK: Final = text("SELECT pg_try_advisory_lock(hashtext('closeflow'), hashtext(:name))")
_UNLOCK: Final = text("SELECT pg_advisory_unlock(hashtext('closeflow'), hashtext(:name))")


@dataclass(frozen=True, slots=True)
class QuietOrder:
    client_order_id: str
    since: datetime


@dataclass(frozen=True, slots=True)
class GapOrder:
    """An order of which the broker states more than we can name; `missing` is the difference (rule R4)."""

    client_order_id: str
    position_id: int
    close_request_id: UUID
    created_at: datetime
    missing: str
    since: datetime


@asynccontextmanager
async def _locked(database: Database, name: str) -> AsyncIterator[AsyncConnection | None]:
    """The connection that holds the named session advisory lock, or None while another has it. What failed on it is
    rolled back first, since an aborted transaction could not give the lock back."""
    async with database.connect() as connection:
        mine = bool((await connection.execute(_TRY_LOCK, {"name": name})).scalar_one())
        await connection.commit()
        try:
            yield connection if mine else None
        finally:
            if mine:
                await connection.rollback()
                await connection.execute(_UNLOCK, {"name": name})
                await connection.commit()


@asynccontextmanager
async def held_alone(database: Database, name: str) -> AsyncIterator[bool]:
    """Whether this process may do what is named now; of several one may. The lock ends with the connection, so a
    process that dies gives it up."""
    async with _locked(database, name) as connection:
        yield connection is not None


@asynccontextmanager
async def cycle_alone(database: Database, job: str) -> AsyncIterator[bool]:
    """Whether this replica may do a cycle of the reconciler's job now. One that ends without an error has finished."""
    async with _locked(database, job) as connection:
        yield connection is not None
        if connection is not None:
            await count_cycle(connection, job=job)
            await connection.commit()


async def due_requests(
    tx: Transaction, *, resend_after: timedelta, unknown_after: timedelta, excluding: Collection[UUID], budget: int
) -> dict[UUID, int]:
    """Requests that time may have to move, with their positions: what has to end before what has to begin (again), of
    each the longest due first."""
    rows = await tx.execute(
        _DUE,
        {
            "resend_after": resend_after,
            "unknown_after": unknown_after,
            "excluding": list(excluding),
            "budget": budget,
        },
    )
    return {row.id: row.position_id for row in rows}


@dataclass(frozen=True, slots=True)
class Sending:
    """Whether new orders of an account may go: `resumes_at` is set while its circuit breaker is not closed."""

    resumes_at: datetime | None
    halted: bool


async def sending_of_accounts(tx: Transaction) -> dict[str, Sending]:
    """By account id. Whoever cannot read this has to take every account as halted."""
    return {row.account_id: Sending(row.resumes_at, row.halted) for row in await tx.execute(_SENDING)}


async def quiet_orders(
    tx: Transaction, *, account_id: str, quiet_after: timedelta, excluding: Collection[str], budget: int
) -> list[QuietOrder]:
    """Orders the broker has acknowledged and said nothing of for a while, the quietest first."""
    rows = await tx.execute(
        _QUIET,
        {"account_id": account_id, "quiet_after": quiet_after, "excluding": list(excluding), "budget": budget},
    )
    return [QuietOrder(row.client_order_id, row.since) for row in rows]


async def orders_with_gap(
    tx: Transaction, *, account_id: str, grace: timedelta, asked: Collection[str], budget: int
) -> list[GapOrder]:
    """Those that were not asked about first, then the others, of each the quietest first."""
    parameters = {"account_id": account_id, "grace": grace, "asked": list(asked), "budget": budget}
    rows = await tx.execute(_GAPS, parameters)
    return [
        GapOrder(
            row.client_order_id, row.position_id, row.close_request_id, row.created_at, str(row.missing), row.since
        )
        for row in rows
    ]


async def close_incidents(tx: Transaction, *, kind: str, still: Collection[str], resolution: str) -> int:
    """Close the open incidents of a kind whose subject is not among `still`; returns how many."""
    result = await tx.execute(_CLOSE_INCIDENTS, {"kind": kind, "still": list(still), "resolution": resolution})
    return int(result.rowcount)


async def close_gap_incidents(tx: Transaction, *, kind: str, resolution: str) -> int:
    """Close the open incidents of a kind whose order has no gap any more, whosever order it is; returns how many."""
    result = await tx.execute(_CLOSE_GAPS, {"kind": kind, "resolution": resolution})
    return int(result.rowcount)
