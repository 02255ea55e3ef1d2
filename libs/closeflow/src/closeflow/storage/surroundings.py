"""What stands around every close: the slot, the connector's heartbeat, breakers, the kill switch, the jobs."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Final

from sqlalchemy import text

from closeflow.domain.operator.lights import BreakerSeen, JobSeen, Surroundings
from closeflow.domain.trading_controls import TradingState
from closeflow.storage.core.engine import Transaction
from closeflow.storage.core.statements import fetch
from closeflow.storage.replication_slot import last_heartbeat, slot_state
from closeflow.storage.trading_controls import list_controls

# There are as many rows as accounts; jobs are a score.
_BREAKERS: Final = text("""
    SELECT account_id, state FROM broker_breakers
    WHERE CAST(:accounts AS text[]) IS NULL OR account_id = ANY(CAST(:accounts AS text[])) ORDER BY account_id
""")
_JOBS: Final = text("""
    SELECT job, closeflow_now() - finished_at AS idle, allowed_s FROM job_cycles WHERE allowed_s IS NOT NULL
""")
# Of the open incidents there are few: their index is partial.
_OPEN_KINDS: Final = text("SELECT DISTINCT kind FROM incidents WHERE closed_at IS NULL")


async def surroundings(tx: Transaction, *, slot: str, accounts: Collection[str] | None) -> Surroundings:
    """As they are now. Of breakers and switches only those of `accounts`, None being all, and the global switch."""
    heartbeat = await last_heartbeat(tx)
    listed = None if accounts is None else sorted(accounts)
    breakers = await fetch(tx, _BREAKERS, {"accounts": listed})
    return Surroundings(
        slot=await slot_state(tx, name=slot),
        heartbeat_age=None if heartbeat is None else heartbeat.age,
        breakers=[BreakerSeen(row["account_id"], row["state"]) for row in breakers],
        controls=[(row["scope"], TradingState(row["state"])) for row in await list_controls(tx, accounts=accounts)],
        jobs=[
            JobSeen(row["job"], row["idle"], timedelta(seconds=row["allowed_s"])) for row in await fetch(tx, _JOBS, {})
        ],
        incidents=[row["kind"] for row in await fetch(tx, _OPEN_KINDS, {})],
    )
