"""Positions that disagree with their close requests, and orders that outlive theirs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import text

from closeflow.domain.model import OrderRef
from closeflow.storage.core.engine import Transaction

# Two arms, each with an index of its own: positions that are about a close, and unfinished requests.
_MISFITS: Final = text("""
    SELECT id, active_close_request_id FROM (
        SELECT p.id, p.active_close_request_id FROM positions p
        LEFT JOIN close_requests a ON a.id = p.active_close_request_id AND a.position_id = p.id
        WHERE (p.status IN ('closing', 'close_retryable') OR p.active_close_request_id IS NOT NULL)
          AND CASE COALESCE(a.status, '')
                WHEN 'pending' THEN p.status <> 'closing'
                WHEN 'submitted' THEN p.status <> 'closing'
                WHEN 'retryable' THEN p.status <> 'close_retryable'
                ELSE TRUE
              END
          AND p.updated_at <= closeflow_now() - CAST(:grace AS interval)
        UNION
        SELECT p.id, p.active_close_request_id FROM close_requests r JOIN positions p ON p.id = r.position_id
        WHERE r.status IN ('pending', 'submitted', 'retryable')
          AND p.active_close_request_id IS DISTINCT FROM r.id
          AND GREATEST(r.updated_at, p.updated_at) <= closeflow_now() - CAST(:grace AS interval)
    ) found
    ORDER BY id <= CAST(:after AS bigint), id LIMIT :budget
""")
# A planned order of a finished request is withdrawn by the order-submitter.
_OUTLIVES: Final = """
    o.status NOT IN ('planned', 'denied', 'lost', 'filled', 'canceled', 'expired', 'rejected')
    AND r.status IN ('completed', 'failed')
"""
_OUTLIVING: Final = text(f"""
    SELECT o.client_order_id, o.position_id, o.close_request_id
    FROM orders o JOIN close_requests r ON r.id = o.close_request_id
    WHERE {_OUTLIVES} AND o.account_id = :account_id
      AND o.client_order_id <> ALL(CAST(:excluding AS text[]))
      AND GREATEST(r.updated_at, o.created_at) <= closeflow_now() - CAST(:grace AS interval)
    ORDER BY r.updated_at, o.client_order_id LIMIT :budget
""")  # noqa: S608 (a constant of ours)
_NO_LONGER: Final = text(f"""
    UPDATE incidents i SET closed_at = closeflow_now(), closed_by = 'reconciler', resolution = :resolution
    WHERE i.kind = :kind AND i.closed_at IS NULL
      AND NOT EXISTS (SELECT FROM orders o JOIN close_requests r ON r.id = o.close_request_id
                      WHERE o.client_order_id = i.client_order_id AND {_OUTLIVES})
""")  # noqa: S608 (a constant of ours)


@dataclass(frozen=True, slots=True)
class InconsistentPosition:
    """A position that disagrees with its requests, and the request that it names, which may be finished."""

    position_id: int
    request_ids: tuple[UUID, ...]


async def inconsistent_positions(
    tx: Transaction, *, grace: timedelta, budget: int | None, after: int = 0
) -> list[InconsistentPosition]:
    """Those that nothing touched for a while, at most `budget` of them; not locked. The positions behind `after` come
    first, then those from the first one on."""
    rows = await tx.execute(_MISFITS, {"grace": grace, "budget": budget, "after": after})
    return [
        InconsistentPosition(row.id, (row.active_close_request_id,) if row.active_close_request_id else ())
        for row in rows
    ]


async def orphan_orders(
    tx: Transaction, *, account_id: str, grace: timedelta, excluding: Collection[str], budget: int
) -> list[OrderRef]:
    """Orders of the account that are not done a while after their request ended; not locked."""
    rows = await tx.execute(
        _OUTLIVING, {"account_id": account_id, "grace": grace, "excluding": list(excluding), "budget": budget}
    )
    return [OrderRef(row.client_order_id, row.position_id, row.close_request_id) for row in rows]


async def close_orphan_incidents(tx: Transaction, *, kind: str, resolution: str) -> int:
    """Close the open incidents of a kind whose order is done, or whose request lives again; returns how many."""
    result = await tx.execute(_NO_LONGER, {"kind": kind, "resolution": resolution})
    return int(result.rowcount)
