"""The publication audit: every outbox row must be in Kafka in time, else a person is told and, once it is certain that
nothing will publish the row any more, it is emitted again with what followed it of its position (invariant 14).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Final

import structlog

from closeflow.clock import monotonic
from closeflow.domain.incidents import IncidentKind
from closeflow.domain.model import Topic
from closeflow.domain.outbox.publication_audit import (
    Audited,
    AuditedDay,
    EventKey,
    Look,
    audit_days,
    emit_again,
    first_lost,
    losses,
)
from closeflow.kafka.connection import KafkaConnection
from closeflow.kafka.lost_tail import ReadUpTo
from closeflow.kafka.read_to_end import Offsets, Partition, Tail, TailRecord, open_tail
from closeflow.kafka.record_spans import published
from closeflow.storage.advisory_locks import try_advisory_lock
from closeflow.storage.core.engine import Database, Transaction, database_now, retrying, transaction
from closeflow.storage.incidents import close_incidents, report_incidents
from closeflow.storage.job_cycles import count_cycle
from closeflow.storage.outbox_audit import (
    AuditPosition,
    copy_events,
    emissions_of,
    judge_all_again,
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
from closeflow.telemetry.metrics import counter, gauge
from closeflow.telemetry.spans import is_tracing
from reconciler.schedule import pause
from reconciler.seen_events import SeenEvents, Waits

log = structlog.get_logger(__name__)

UNPUBLISHED = gauge("closeflow_outbox_missing_events")
UNPUBLISHED_AGE = gauge("closeflow_outbox_unpublished_age_seconds")
EMITTED_AGAIN = counter("closeflow_outbox_emitted_again_total")

AUDIT: Final = "audit_publication"
TOPICS: Final = tuple(Topic)
CANDIDATES: Final = 10_000
"""How many missing rows are looked at for an emission in one cycle."""
SIGHTINGS: Final = 50_000
"""How many records are remembered while a long stretch of topic is read, before the database says which are needed."""
ASKED_ABOUT: Final = 5_000
NOT_VISIBLE_FOR_S: Final = 1.0
"""A record can be read before its row is visible, for as long as a commit takes."""


def _trace(batch: Sequence[TailRecord]) -> None:
    """How long each event took to Kafka, which only a reader knows; of `submit-order` its consumer tells it."""
    for record in batch:
        if record.topic != Topic.SUBMIT_ORDER:
            published(record)


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
    _positions: dict[Partition, AuditPosition] = field(default_factory=dict)

    async def run(self, stop: asyncio.Event, finished: Callable[[], None]) -> None:
        """Audit while this process holds the lock, until stopped; `finished` is called after every cycle."""
        while not stop.is_set():
            async with try_advisory_lock(self.database, AUDIT) as mine:
                if mine:
                    await self._while_held(stop, finished)
            _know_nothing()
            finished()
            await pause(stop, self.interval_s)

    async def _while_held(self, stop: asyncio.Event, finished: Callable[[], None]) -> None:
        async with transaction(self.database) as tx:
            self._positions = await read_positions(tx)
        self._seen, self._waits = SeenEvents(), Waits()
        since = {place: one.offset for place, one in self._positions.items()}
        known = self._positions.items()
        read = {place: ReadUpTo(one.read_up_to, one.last_ms) for place, one in known if one.read_up_to is not None}
        async with open_tail(self.kafka, TOPICS, since, read) as tail:
            while not stop.is_set():
                if await self._begins_anew(tail):
                    return
                await self.once(tail)
                async with transaction(self.database) as tx:
                    await count_cycle(tx, job=AUDIT)
                finished()
                await pause(stop, self.interval_s)

    async def _begins_anew(self, tail: Tail) -> bool:
        """Whether a topic lost records that were seen: then every row of the kept days is judged again, and what is
        gone is emitted again as if it had never been published."""
        lost = await tail.lost()
        if lost:
            log.error("published_records_lost", partitions=[f"{topic}/{number}" for topic, number in lost])
            async with transaction(self.database) as tx:
                await judge_all_again(tx)
        return bool(lost)

    async def once(self, tail: Tail) -> int:
        """One cycle; returns how many rows are missing now. The rows and the slot are read before the topics' ends are
        asked for, so a row that is not found below them was not published when it was read."""
        look = await self._look()
        await self._read(tail)
        if tail.has_lost:  # What was seen may be among it: nothing is judged by that, nor taken for read.
            return 0
        unseen = look.unseen(self._seen.emissions())
        self._waits.look(unseen, at=look.at, written=look.written)
        positions = self._reached(self._seen.read_from(await tail.positions()), tail.read_up_to())
        found = await retrying(self.database, partial(self._judge, look=look, positions=positions))
        self._positions = positions
        self._seen.forget(found.used)
        await self._forget_unneeded(look.days, 2 * self.publish_within.total_seconds())
        UNPUBLISHED.set(len(found.missing))
        UNPUBLISHED_AGE.set(self._oldest_s(look, frozenset(unseen)))
        return len(found.missing)

    def _oldest_s(self, look: Look, unseen: frozenset[EventKey]) -> float:
        """Of the rows that are not in Kafka, by the database's clock; what was judged missing before, at least since
        this process knows of it."""
        ages = [look.now - row.occurred_at for rows in look.rows.values() for row in rows if row.key in unseen]
        ages += [waited for key, waited in self._waits.waited(now=look.at).items() if key in unseen]
        return max((age.total_seconds() for age in ages), default=0.0)

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
                at=monotonic(),
                now=await database_now(tx),
                below=below,
                days=days,
                rows=rows,
                written=await written_through(tx),
                confirmed=await confirmed_through(tx, name=self.slot),
            )

    def _reached(self, offsets: Offsets, read: Mapping[Partition, ReadUpTo]) -> dict[Partition, AuditPosition]:
        """Of a partition in which nothing was read since this began the last record stays what it was."""
        found = {}
        for place, offset in offsets.items():
            if now := read.get(place):
                found[place] = AuditPosition(offset, now.offset, now.last_ms)
            else:
                found[place] = self._positions.get(place, AuditPosition(offset))._replace(offset=offset)
        return found

    async def _read(self, tail: Tail) -> None:
        async for batch in tail.batches():
            self._seen.note(batch, at=monotonic())
            if is_tracing():
                _trace(batch)
            if len(self._seen) > self.remembered:
                async with transaction(self.database) as tx:
                    days = await outbox_days(tx)
                await self._forget_unneeded(days, self.visible_within_s)

    async def _forget_unneeded(self, days: Sequence[AuditedDay], age_s: float) -> None:
        """Records of rows that were judged long ago come again after a snapshot, a crash of Connect, a reset; those of
        rows that are missing are what is waited for, though their rows were judged too."""
        now = monotonic()
        keys = self._seen.older_than(age_s, now=now, at_most=ASKED_ABOUT)
        if keys:
            async with transaction(self.database) as tx:
                needed = await unjudged_among(tx, days=[one.day for one in days], keys=keys)
            missing = {event_id for day in days for event_id, _ in day.missing}
            needed |= {key for key in keys if key[0] in missing}
            self._seen.forget(set(keys) - needed)
            self._seen.keep(needed, at=now)

    async def _judge(self, tx: Transaction, *, look: Look, positions: Mapping[Partition, AuditPosition]) -> Audited:
        """Save what the cycle found."""
        waited = self._waits.waited(now=monotonic())
        found = audit_days(
            look, self._seen.emissions(), waited=waited, publish_within=self.publish_within, budget=self.budget
        )
        found = found.without(await self._emit_again(tx, look, found.missing))
        moved = [new for old, new in zip(look.days, found.days, strict=True) if new != old]
        await save_marks(tx, days=moved, before={one.day: one.through for one in look.days})
        await save_positions(tx, positions=positions, before=self._positions)
        newly = found.incidents
        await report_incidents(tx, incidents=newly)
        closed = await close_incidents(
            tx, kind=IncidentKind.EVENT_NOT_PUBLISHED, still=found.still, resolution="the event was published"
        )
        if newly or closed:
            missing = len(found.missing)
            log.warning("publication_judged", missing=missing, newly_missing=len(newly), found_again=closed)
        return found

    async def _emit_again(self, tx: Transaction, look: Look, missing: Collection[EventKey]) -> frozenset[EventKey]:
        """Emit again what the slot has gone past without publishing it; returns what a later emission has made good."""
        gone = self._waits.passed_over(missing, confirmed=look.confirmed)[:CANDIDATES]
        if not gone:
            return frozenset()
        days = [one.day for one in look.days]
        emissions = await emissions_of(tx, days=days, ids={key[0] for key in gone})
        good, first = losses(missing, gone, emissions)
        positions = first_lost(first, budget=self.emit_budget)
        rows = await locked_emissions(tx, positions=positions) if positions else []
        rows += [one for one in first if one.position_id is None]
        again = emit_again(rows, set(missing) - good, budget=self.emit_budget)
        if again:
            await copy_events(tx, days=days, keys=again)
            EMITTED_AGAIN.inc(len(again))
            log.warning("events_emitted_again", count=len(again), positions=positions[:100])
        return good


def _know_nothing() -> None:
    """Another replica audits, or nobody does yet."""
    UNPUBLISHED.set(math.nan)
    UNPUBLISHED_AGE.set(math.nan)


_know_nothing()
