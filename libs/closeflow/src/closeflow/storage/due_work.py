"""What has to be looked at: requests and orders that are due, quiet, in a gap, or not done."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from closeflow.domain.model import OrderRef
from closeflow.domain.retry import DONE_FOR_DAY_WITHIN, FARTHEST
from closeflow.storage.core.engine import Transaction
from closeflow.storage.core.statements import change, fetch

_ALIVE: Final = "o.status NOT IN ('denied', 'lost', 'filled', 'canceled', 'expired', 'rejected')"
# As `wake` counts how long an order works: from the last send that may have reached the broker.
_SENT_AT: Final = """COALESCE((SELECT max(s.started_at) FROM order_sends s
                                 WHERE s.client_order_id = o.client_order_id AND s.kind = 'submit'
                                   AND COALESCE(s.answer, '') NOT IN ('not_sent', 'not_accepted')), o.created_at)"""
_DUE_REQUESTS: Final = text(f"""
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


@dataclass(frozen=True, slots=True)
class QuietOrder:
    """An acknowledged order, and since when nothing was heard of it."""

    client_order_id: str
    since: datetime


@dataclass(frozen=True, slots=True)
class GapOrder(OrderRef):
    """An order of which the broker states more than we can name; `missing` is the difference (rule R4)."""

    created_at: datetime
    missing: str
    since: datetime


async def due_requests(
    tx: Transaction, *, resend_after: timedelta, unknown_after: timedelta, excluding: Collection[UUID], budget: int
) -> dict[UUID, int]:
    """Requests that time may have to move, with their positions: what has to end before what has to begin (again), of
    each the longest due first."""
    rows = await tx.execute(
        _DUE_REQUESTS,
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


# The second part is for orders at the broker that have to be cancelled; the third for those that were never sent, whose
# next_send_at may still lie ahead.
_DUE_ORDERS: Final = text(f"""
    SELECT o.client_order_id, o.position_id, o.close_request_id FROM orders o
    WHERE o.account_id = :account_id
      AND o.status NOT IN ('denied', 'lost', 'filled', 'canceled', 'expired', 'rejected')
      AND CASE
            WHEN COALESCE(o.next_send_at <= closeflow_now()
                          OR o.next_send_at > closeflow_now() + interval '{FARTHEST}', TRUE)
            THEN o.status IN ('planned', 'submit_unknown') OR o.cancel_requested_at IS NOT NULL
            ELSE o.status = 'planned' AND o.cancel_requested_at IS NOT NULL
                 AND NOT EXISTS (SELECT FROM order_sends s
                                 WHERE s.client_order_id = o.client_order_id AND s.kind = 'submit'
                                   AND s.answer IS DISTINCT FROM 'not_sent'
                                   AND s.answer IS DISTINCT FROM 'not_accepted')
          END
    ORDER BY o.next_send_at NULLS FIRST, o.client_order_id
    LIMIT :most
""")  # noqa: S608 (a constant of ours)


_PUT_OFF: Final = text("""
    UPDATE orders SET next_send_at = closeflow_now() + make_interval(secs => :seconds) WHERE client_order_id = :id
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class DueOrder:
    """An order that may need a send, a look-up, a withdrawal or a cancel; what it needs is decided under its lock."""

    client_order_id: str
    position_id: int
    close_request_id: UUID


async def due_orders(tx: AsyncConnection, *, account_id: str, most: int) -> list[DueOrder]:
    """The orders of the account that somebody should look at now, longest due first; not locked."""
    return [DueOrder(**row) for row in await fetch(tx, _DUE_ORDERS, {"account_id": account_id, "most": most})]


async def put_off(tx: AsyncConnection, *, client_order_id: str, seconds: float) -> None:
    """Let an order be due again later, whatever else is true of it."""
    await change(tx, _PUT_OFF, {"id": client_order_id, "seconds": seconds})


# Each arm by its own partial index, and MATERIALIZED, so that the order is not looked for in the primary key: with
# an OR in one SELECT that is walked through every order that ever was (4.8 s at 5 million). A plan that no send may
# have taken to the broker is nothing to ask for; hundreds of them may wait for their turn.
_NOT_DONE: Final = text("""
    WITH working AS MATERIALIZED (
        SELECT client_order_id, created_at, account_id FROM orders o
        WHERE status NOT IN ('denied', 'lost', 'filled', 'canceled', 'expired', 'rejected')
          AND (status <> 'planned'
               OR EXISTS (SELECT FROM order_sends s
                          WHERE s.client_order_id = o.client_order_id AND s.kind = 'submit'
                            AND COALESCE(s.answer, '') NOT IN ('not_sent', 'not_accepted')))
    ), unnamed AS MATERIALIZED (
        SELECT client_order_id, created_at, account_id FROM orders WHERE stated_cum_qty > executed_qty
    )
    SELECT client_order_id, created_at FROM (SELECT * FROM working UNION SELECT * FROM unnamed) AS o
    WHERE account_id = :account_id AND client_order_id > :after
    ORDER BY client_order_id LIMIT :limit
""")


_LOST: Final = text("""
    SELECT client_order_id FROM orders WHERE client_order_id = ANY(CAST(:ids AS text[])) AND status = 'lost'
""")


@dataclass(frozen=True, slots=True)
class NotDone:
    """An order that may still change at the broker, or has fills that we cannot name."""

    client_order_id: str
    created_at: datetime


async def not_done_orders(tx: AsyncConnection, *, account_id: str, after: str, limit: int) -> list[NotDone]:
    """A page in the order of client order ids, from the first one behind `after`."""
    rows = await tx.execute(_NOT_DONE, {"account_id": account_id, "after": after, "limit": limit})
    return [NotDone(row.client_order_id, row.created_at) for row in rows]


async def lost_orders(tx: AsyncConnection, *, client_order_ids: Collection[str]) -> frozenset[str]:
    """Those of these orders that an operator declared lost."""
    return frozenset(row.client_order_id for row in await tx.execute(_LOST, {"ids": list(client_order_ids)}))
