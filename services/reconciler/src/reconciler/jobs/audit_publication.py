"""The publication audit: every outbox row must be in Kafka in time, else a person is told and, once it is certain that
nothing will publish the row any more, it is emitted again with what followed it of its position (invariant 14).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from functools import partial
from typing import Final
from uuid import UUID

import structlog
from prometheus_client import Counter, Gauge

from closeflow.domain.incidents import IncidentKind, about
from closeflow.domain.model import Incident, Topic
from closeflow.domain.outbox.publication_audit import (
    EventKey,
    Judged,
    OutboxRow,
    emit_again,
    first_lost,
    is_published,
    judge_publication,
    lost,
    superseded,
)
from closeflow.kafka.connection import KafkaConnection
from closeflow.kafka.read_to_end import Partition, Tail, open_tail
from closeflow.storage.advisory_locks import try_advisory_lock
from closeflow.storage.core.engine import Database, Transaction, database_now, retrying, transaction
from closeflow.storage.incidents import close_incidents, report_incidents
from closeflow.storage.job_cycles import count_cycle
from closeflow.storage.outbox_audit import (
    AuditedDay,
    copy_events,
    emissions_of,
    locked_emissions,
    read_positions,
    save_marks,
    save_positions,
    snapshot_xmin,
    unjudged_among,
    unjudged_rows,
)
from closeflow.storage.outbox_partitions import outbox_days
from closeflow.storage.replication_slot import confirmed_through, written_through
from reconciler.schedule import pause
from reconciler.seen_events import SeenEvents, Waits

log = structlog.get_logger(__name__)

UNPUBLISHED = Gauge("closeflow_outbox_missing_events", "Outbox rows past their time that are not in Kafka")
EMITTED_AGAIN = Counter("closeflow_outbox_emitted_again_total", "Events that the publication audit emitted again")

AUDIT: Final = "audit_publication"
TOPICS: Final = tuple(Topic)
CANDIDATES: Final = 10_000
"""How many missing rows are looked at for an emission in one cycle."""
SIGHTINGS: Final = 50_000
"""How many records are remembered while a long stretch of topic is read, before the database says which are needed."""
ASKED_ABOUT: Final = 5_000
NOT_VISIBLE_FOR_S: Final = 1.0
"""A record can be read before its row is visible, for as long as a commit takes."""


@dataclass(frozen=True, slots=True)
class Look:
    """The outbox at one moment. `written` and `confirmed` are places in the WAL: what is committed lies before the
    first; what lies before the second is published, or will never be read from the slot (None: there is no slot)."""

    at: float
    now: datetime
    below: int
    days: Sequence[AuditedDay]
    rows: Mapping[date, Sequence[OutboxRow]]
    written: int
    confirmed: int | None


@dataclass(slots=True)
class AuditPublication:
    """Compares the topics with the outbox. One replica audits at a time, and it alone reads the topics.

    One that lost its lock unnoticed, with its connection, learns from the marks that another has taken over.
    While Connect is down and its slot holds the rows, they are reported and not emitted again: they will come.
    """

    database: Database
    kafka: KafkaConnection
    slot: str
    publish_within: timedelta
    interval_s: float
    budget: int
    emit_budget: int
    remembered: int = SIGHTINGS
    visible_within_s: float = NOT_VISIBLE_FOR_S
    _seen: SeenEvents = field(default_factory=SeenEvents)
    _waits: Waits = field(default_factory=Waits)
    _positions: dict[Partition, int] = field(default_factory=dict)

    async def run(self, stop: asyncio.Event, finished: Callable[[], None]) -> None:
        """Audit while this process holds the lock, until stopped; `finished` is called after every cycle."""
        while not stop.is_set():
            async with try_advisory_lock(self.database, AUDIT) as mine:
                if mine:
                    await self._while_held(stop, finished)
            finished()
            await pause(stop, self.interval_s)

    async def _while_held(self, stop: asyncio.Event, finished: Callable[[], None]) -> None:
        async with transaction(self.database) as tx:
            self._positions = await read_positions(tx)
        self._seen, self._waits = SeenEvents(), Waits()
        async with open_tail(self.kafka, TOPICS, self._positions) as tail:
            while not stop.is_set():
                await self.once(tail)
                async with transaction(self.database) as tx:
                    await count_cycle(tx, job=AUDIT)
                finished()
                await pause(stop, self.interval_s)

    async def once(self, tail: Tail) -> int:
        """One cycle; returns how many rows are missing now. The rows and the slot are read before the topics' ends are
        asked for, so a row that is not found below them was not published when it was read."""
        look = await self._look()
        await self._read(tail)
        seen = self._seen.emissions()
        rows = [row.key for found in look.rows.values() for row in found]
        known = [*rows, *(key for day in look.days for key in day.missing)]
        self._waits.look([key for key in known if not is_published(key, seen)], at=look.at, written=look.written)
        positions = self._seen.read_from(await tail.positions())
        missing, used = await retrying(self.database, partial(self._judge, look=look, positions=positions))
        self._positions = positions
        self._seen.forget(used)
        await self._forget_unneeded(look.days, 2 * self.publish_within.total_seconds())
        UNPUBLISHED.set(missing)
        return missing

    async def _look(self) -> Look:
        async with transaction(self.database) as tx:
            below = await snapshot_xmin(tx)
            days = await outbox_days(tx)
            rows = {
                one.day: await unjudged_rows(tx, day=one.day, through=one.through, below=below, budget=self.budget)
                for one in days
                if one.through < below
            }
            return Look(
                at=time.monotonic(),
                now=await database_now(tx),
                below=below,
                days=days,
                rows=rows,
                written=await written_through(tx),
                confirmed=await confirmed_through(tx, name=self.slot),
            )

    async def _read(self, tail: Tail) -> None:
        async for batch in tail.batches():
            self._seen.note(batch, at=time.monotonic())
            if len(self._seen) > self.remembered:
                async with transaction(self.database) as tx:
                    days = await outbox_days(tx)
                await self._forget_unneeded(days, self.visible_within_s)

    async def _forget_unneeded(self, days: Sequence[AuditedDay], age_s: float) -> None:
        """Records of rows that were judged long ago come again after a snapshot, a crash of Connect, a reset; those of
        rows that are missing are what is waited for, though their rows were judged too."""
        now = time.monotonic()
        keys = self._seen.older_than(age_s, now=now, at_most=ASKED_ABOUT)
        if keys:
            async with transaction(self.database) as tx:
                needed = await unjudged_among(tx, days=[one.day for one in days], keys=keys)
            missing = {event_id for day in days for event_id, _ in day.missing}
            needed |= {key for key in keys if key[0] in missing}
            self._seen.forget(set(keys) - needed)
            self._seen.keep(needed, at=now)

    async def _judge(
        self, tx: Transaction, *, look: Look, positions: Mapping[Partition, int]
    ) -> tuple[int, set[EventKey]]:
        """Save what the cycle found; returns how many rows are missing and which records are used up."""
        seen = self._seen.emissions()
        waited = self._waits.waited(now=time.monotonic())
        verdicts = [self._verdict(look, day, seen, waited) for day in look.days]
        newly = [row for verdict in verdicts for row in verdict.missing]
        missing = {key for day in look.days for key in day.missing} | {row.key for row in newly}
        missing = {key for key in missing if not is_published(key, seen)}
        missing -= await self._emit_again(tx, look, missing)
        after = [
            replace(day, through=max(day.through, one.through), missing=_of_day(day, one, missing))
            for day, one in zip(look.days, verdicts, strict=True)
        ]
        moved = [new for old, new in zip(look.days, after, strict=True) if new != old]
        await save_marks(tx, days=moved, before={one.day: one.through for one in look.days})
        await save_positions(
            tx, positions={place: at for place, at in positions.items() if self._positions.get(place) != at}
        )
        await report_incidents(tx, incidents=[_missing(row) for row in sorted(newly, key=lambda row: row.key[1])])
        closed = await close_incidents(
            tx,
            kind=IncidentKind.EVENT_NOT_PUBLISHED,
            still=[_subject(key) for key in missing],
            resolution="the event was published",
        )
        if newly or closed:
            log.warning("publication_judged", missing=len(missing), newly_missing=len(newly), found_again=closed)
        judged = zip(look.days, verdicts, strict=True)
        return len(missing), {
            row.key for day, one in judged for row in look.rows.get(day.day, ()) if row.xact_id < one.through
        }

    def _verdict(
        self,
        look: Look,
        day: AuditedDay,
        seen: Mapping[UUID, int],
        waited: Mapping[EventKey, timedelta],
    ) -> Judged:
        found = look.rows.get(day.day, ())
        return judge_publication(
            found,
            seen,
            through=day.through,
            below=look.below,
            complete=len(found) < self.budget,
            now=look.now,
            waited=waited,
            publish_within=self.publish_within,
        )

    async def _emit_again(self, tx: Transaction, look: Look, missing: Collection[EventKey]) -> frozenset[EventKey]:
        """Emit again what the slot has gone past without publishing it; returns what a later emission has made good."""
        gone = self._waits.passed_over(missing, confirmed=look.confirmed)[:CANDIDATES]
        if not gone:
            return frozenset()
        days = [one.day for one in look.days]
        emissions = await emissions_of(tx, days=days, ids={key[0] for key in gone})
        good = superseded(missing, emissions)
        starts = lost(set(gone) - good, emissions)
        first = [one for one in emissions if one.key in starts]
        positions = first_lost(first, budget=self.emit_budget)
        rows = await locked_emissions(tx, positions=positions) if positions else []
        rows += [one for one in first if one.position_id is None]
        again = emit_again(rows, set(missing) - good, budget=self.emit_budget)
        if again:
            await copy_events(tx, days=days, keys=again)
            EMITTED_AGAIN.inc(len(again))
            log.warning("events_emitted_again", count=len(again), positions=positions[:100])
        return good


def _of_day(day: AuditedDay, judged: Judged, missing: Collection[EventKey]) -> frozenset[EventKey]:
    mine: Iterable[EventKey] = [*day.missing, *(row.key for row in judged.missing)]
    return frozenset(key for key in mine if key in missing)


def _subject(key: EventKey) -> str:
    """One incident per event, however many of its emissions are missing."""
    return str(key[0])


def _missing(row: OutboxRow) -> Incident:
    detail = f"event {row.key[0]} (emission {row.key[1]}) of position {row.position_id} is not in Kafka"
    return about(IncidentKind.EVENT_NOT_PUBLISHED, detail, subject=_subject(row.key))
