"""The outbox's daily partitions: made ahead, and dropped only when every row of them is known to be published."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final, TypeVar

import structlog

from closeflow.clock import sleep
from closeflow.domain.incidents import IncidentKind, about
from closeflow.domain.model import Incident
from closeflow.storage.advisory_locks import cycle_alone
from closeflow.storage.core.engine import (
    LOCK_NOT_AVAILABLE,
    Database,
    StatementError,
    Transaction,
    database_now,
    sqlstate,
    transaction,
)
from closeflow.storage.incidents import close_incidents, report_incidents
from closeflow.storage.outbox_partitions import default_partition_rows, drop_partition, ensure_partitions, outbox_days
from closeflow.unit_of_work import first_line

T = TypeVar("T")

log = structlog.get_logger(__name__)

NOT_YET_PROVEN: Final = "55000"
"""SQLSTATE with which the database refuses to drop a day whose publication is not proven."""


@dataclass(frozen=True, slots=True)
class KeepPartitions:
    """Make partitions ahead of time and drop the days that are past retention and proven to be published."""

    database: Database
    days_ahead: int
    retention_days: int
    tries: int = 10
    """Of each step that needs the outbox to itself for a moment: none waits for it, so that no accept does."""
    pause_s: float = 0.2

    async def once(self) -> int:
        """Returns how many days were dropped."""
        async with cycle_alone(self.database, "keep_partitions") as mine:
            return await self._cycle() if mine else 0

    async def _cycle(self) -> int:
        async with transaction(self.database) as tx:
            strays = await default_partition_rows(tx)
            if strays:
                await report_incidents(tx, incidents=[_in_default_partition(strays)])
        # On its own, because it may fail for the very rows that were told.
        made = await self._often(lambda tx: ensure_partitions(tx, days_ahead=self.days_ahead))
        async with transaction(self.database) as tx:
            if not strays:
                await close_incidents(
                    tx,
                    kind=IncidentKind.OUTBOX_DEFAULT_PARTITION_USED,
                    still=(),
                    resolution="every day has its partition",
                )
            today = (await database_now(tx)).date()
            days = [one.day for one in await outbox_days(tx)]
        if made:
            log.info("outbox_partitions_made", count=made)
        dropped = 0
        for day in days:
            if day < today - timedelta(days=self.retention_days):
                dropped += await self._drop(day)
        return dropped

    async def _often(self, step: Callable[[Transaction], Awaitable[T]]) -> T:
        for again in reversed(range(self.tries)):
            try:
                async with transaction(self.database) as tx:
                    return await step(tx)
            except StatementError as error:
                if sqlstate(error) != LOCK_NOT_AVAILABLE or not again:
                    raise
            await sleep(self.pause_s)
        raise AssertionError("tried at least once")

    async def _drop(self, day: date) -> bool:
        """False when the day cannot be dropped now: the next one is not held up by it."""
        try:
            dropped = await self._often(lambda tx: drop_partition(tx, day=day))
        except StatementError as error:
            report = log.warning if sqlstate(error) == NOT_YET_PROVEN else log.error
            report("outbox_partition_kept", day=str(day), reason=first_line(error))
            return False
        log.info("outbox_partition_dropped", day=str(day))
        return dropped


def _in_default_partition(rows: int) -> Incident:
    detail = f"{rows} outbox rows are in the DEFAULT partition: the partition of their day was missing"
    return about(IncidentKind.OUTBOX_DEFAULT_PARTITION_USED, detail, subject="outbox_events_default")
