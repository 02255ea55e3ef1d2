"""The circuit breaker of a broker account, shared by all instances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from closeflow.storage.core.statements import change, fetch

_LOAD_BREAKER: Final = text("""
    SELECT state, failures, refusals,
           CAST(EXTRACT(EPOCH FROM probe_at - closeflow_now()) AS float8) AS probe_in_s FROM broker_breakers
    WHERE broker = :broker AND account_id = :account_id
""")


_SAVE_BREAKER: Final = text("""
    INSERT INTO broker_breakers AS b (broker, account_id, state, failures, refusals, opened_at, probe_at)
    VALUES (:broker, :account_id, :state, :failures, :refusals,
            CASE WHEN CAST(:state AS text) <> 'closed' THEN closeflow_now() END,
            closeflow_now() + make_interval(secs => CAST(:probe_in_s AS float8)))
    ON CONFLICT (broker, account_id) DO UPDATE
    SET state = EXCLUDED.state, failures = EXCLUDED.failures, refusals = EXCLUDED.refusals,
        probe_at = EXCLUDED.probe_at,
        opened_at = CASE WHEN EXCLUDED.state <> 'closed' THEN COALESCE(b.opened_at, EXCLUDED.opened_at) END
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerRow:
    """The breaker as all instances see it: closed, open or half-open, and the failures and refusals in a row."""

    state: str
    failures: int
    refusals: int
    probe_in_s: float | None
    """From the moment at which it was written or is read; the database makes a time of it."""


async def load_breaker(tx: AsyncConnection, *, broker: str, account_id: str) -> BreakerRow | None:
    """The account's breaker at the broker; None before anything was written of it."""
    rows = await fetch(tx, _LOAD_BREAKER, {"broker": broker, "account_id": account_id})
    return BreakerRow(**rows[0]) if rows else None


async def save_breaker(tx: AsyncConnection, *, broker: str, account_id: str, breaker: BreakerRow) -> None:
    """Write it over whatever another instance wrote: the newest answer counts."""
    given = {"state": breaker.state, "failures": breaker.failures, "refusals": breaker.refusals}
    known = {"broker": broker, "account_id": account_id, "probe_in_s": breaker.probe_in_s}
    await change(tx, _SAVE_BREAKER, given | known)
