"""The publication audit: every outbox row must be in Kafka in time, or a person is told (invariant 14).

And the outbox's daily partitions: made ahead, and dropped only when every row of them is known to be published.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Final
from uuid import UUID

import structlog

from closeflow.domain.model import Incident, Topic
from closeflow.domain.publication import EventKey, OutboxRow, judge_publication
from closeflow.kafka.connection import KafkaConnection
from closeflow.kafka.tail import Tail, TailRecord, open_tail
from closeflow.storage.auditing import (
    AuditedDay,
    drop_partition,
    ensure_partitions,
    oldest_unjudged_at,
    outbox_days,
    save_marks,
    snapshot_xmin,
    stray_rows,
    unjudged_rows,
)
from closeflow.storage.engine import Database, StatementError, Transaction, sqlstate, transaction
from closeflow.storage.filling import database_now
from closeflow.storage.reconciling import close_incidents, held_alone
from closeflow.storage.saving import report_incidents

log = structlog.get_logger(__name__)

MISSING: Final = "event_not_published"
STRAYS: Final = "outbox_default_partition_used"
TOPICS: Final = tuple(Topic)
NOT_YET_PROVEN: Final = "55000"
"""SQLSTATE with which the database refuses to drop a day whose publication is not proven."""


@dataclass(slots=True)
class AuditPublication:
    """Compares the topics with the outbox. One replica audits at a time, and it alone reads the topics.

    One that lost its lock unnoticed, with its connection, learns from the marks that another has taken over.
    """

    database: Database
    kafka: KafkaConnection
    publish_within: timedelta
    interval_s: float
    budget: int
    _seen: set[EventKey] = field(default_factory=set)

    async def run(self, stop: asyncio.Event) -> None:
        """Audit while this process holds the lock, until stopped."""
        while not stop.is_set():
            async with held_alone(self.database, "audit_publication") as mine:
                if mine:
                    await self._while_held(stop)
            await _pause(stop, self.interval_s)

    async def _while_held(self, stop: asyncio.Event) -> None:
        async with transaction(self.database) as tx:
            since = await oldest_unjudged_at(tx) or await database_now(tx)
        self._seen.clear()
        async with open_tail(self.kafka, TOPICS, since - self.publish_within) as tail:
            while not stop.is_set():
                await self.once(tail)
                await _pause(stop, self.interval_s)

    async def once(self, tail: Tail) -> int:
        """One cycle; returns how many rows are missing now. The rows are read before the topics' ends are asked for,
        so a row that is not found below them was not published when it was read."""
        async with transaction(self.database) as tx:
            below = await snapshot_xmin(tx)
            now = await database_now(tx)
            days = await outbox_days(tx)
            rows = {
                one.day: await unjudged_rows(tx, day=one.day, through=one.through, below=below, budget=self.budget)
                for one in days
                if one.through < below
            }
        self._seen |= {key for key in map(_event_key, await tail.drain()) if key is not None}
        after: list[AuditedDay] = []
        lost: list[OutboxRow] = []
        for day in days:
            found = rows.get(day.day, [])
            judged = judge_publication(
                found,
                self._seen,
                through=day.through,
                below=below,
                complete=len(found) < self.budget,
                now=now,
                publish_within=self.publish_within,
            )
            lost += judged.missing
            missing = (day.missing | {row.key for row in judged.missing}) - self._seen
            after.append(replace(day, through=max(day.through, judged.through), missing=missing))
            self._seen -= {row.key for row in found if row.xact_id < judged.through}
        async with transaction(self.database) as tx:
            await self._save(tx, days, after, lost)
        return sum(len(day.missing) for day in after)

    async def _save(
        self, tx: Transaction, before: Sequence[AuditedDay], after: Sequence[AuditedDay], lost: Sequence[OutboxRow]
    ) -> None:
        moved = [new for old, new in zip(before, after, strict=True) if new != old]
        await save_marks(tx, days=moved, before={one.day: one.through for one in before})
        await report_incidents(tx, incidents=[_missing(row) for row in lost])
        still = [_subject(key) for day in after for key in day.missing]
        closed = await close_incidents(tx, kind=MISSING, still=still, resolution="the event was published")
        if lost or closed:
            log.warning("publication_judged", missing=len(still), newly_missing=len(lost), found_again=closed)


@dataclass(frozen=True, slots=True)
class KeepPartitions:
    """Make partitions ahead of time and drop the days that are past retention and proven to be published."""

    database: Database
    days_ahead: int
    retention_days: int

    async def once(self) -> int:
        """Returns how many days were dropped."""
        async with held_alone(self.database, "keep_partitions") as mine:
            return await self._cycle() if mine else 0

    async def _cycle(self) -> int:
        async with transaction(self.database) as tx:
            made = await ensure_partitions(tx, days_ahead=self.days_ahead)
            strays = await stray_rows(tx)
            if strays:
                await report_incidents(tx, incidents=[_strays(strays)])
            today = (await database_now(tx)).date()
            days = [one.day for one in await outbox_days(tx)]
        if made:
            log.info("outbox_partitions_made", count=made)
        dropped = 0
        for day in days:
            if day < today - timedelta(days=self.retention_days):
                dropped += await self._drop(day)
        return dropped

    async def _drop(self, day: date) -> bool:
        try:
            async with transaction(self.database) as tx:
                dropped = await drop_partition(tx, day=day)
        except StatementError as error:
            if sqlstate(error) != NOT_YET_PROVEN:
                raise
            log.warning("outbox_partition_kept", day=str(day), reason=str(error.orig).splitlines()[0])
            return False
        log.info("outbox_partition_dropped", day=str(day))
        return dropped


def _event_key(record: TailRecord) -> EventKey | None:
    """The event id and emission from the record's headers; None for a record that is not from the outbox."""
    headers = {name: raw.decode(errors="replace") for name, raw in record.headers if raw is not None}
    try:
        return UUID(headers["ce_id"]), int(headers["emission"])
    except (KeyError, ValueError):
        return None


def _subject(key: EventKey) -> str:
    return f"{key[0]}/{key[1]}"


def _missing(row: OutboxRow) -> Incident:
    return Incident(
        kind=MISSING,
        severity="critical",
        detail=f"event {row.key[0]} (emission {row.key[1]}) of position {row.position_id} is not in Kafka",
        subject=_subject(row.key),
    )


def _strays(count: int) -> Incident:
    return Incident(
        kind=STRAYS,
        severity="warning",
        detail=f"{count} outbox rows are in the DEFAULT partition: the partition of their day was missing",
        subject="outbox_events_default",
    )


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
