"""Drop what is over and old: receipts, status history, released and foreign parked records, closed incidents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import structlog

from closeflow.storage.advisory_locks import cycle_alone
from closeflow.storage.core.engine import Database, database_now, transaction
from closeflow.storage.retention import drop_expired

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DropExpired:
    """`keep` is by table. Each batch is a transaction of its own, so that no lock is held for long."""

    database: Database
    keep: Mapping[str, timedelta]
    batch: int
    batches: int
    """At most so many of each table in one cycle."""

    async def once(self) -> int:
        """Returns how many rows were dropped."""
        async with cycle_alone(self.database, "drop_expired") as mine:
            return sum([await self._drop(table, age) for table, age in self.keep.items()]) if mine else 0

    async def _drop(self, table: str, age: timedelta) -> int:
        total = 0
        for _ in range(self.batches):
            async with transaction(self.database) as tx:
                dropped = await drop_expired(tx, table=table, before=await database_now(tx) - age, batch=self.batch)
            total += dropped
            if dropped < self.batch:
                break
        if total:
            log.info("expired_rows_dropped", table=table, rows=total)
        return total
