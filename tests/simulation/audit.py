"""The reconciler's publication audit, which notices what the CDC lost and emits it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Final
from uuid import UUID

from closeflow.domain.model import Event
from closeflow.domain.model import Topic as TopicName
from closeflow.domain.outbox import publication_audit
from closeflow.domain.outbox.publication_audit import Audited, AuditedDay, Emission, EventKey, Look
from reconciler.seen_events import Waits
from tests.simulation.cdc import Connector
from tests.simulation.core import PUBLISH_WITHIN
from tests.simulation.database import Database, Row, Tx
from tests.simulation.log import Topic
from tests.simulation.process import DATABASE_ERRORS

NOTHING_YET: Final = AuditedDay(date.min, 0, frozenset())
EMIT_BUDGET: Final = 50


def published(topics: Mapping[TopicName, Topic[Event]]) -> dict[UUID, int]:
    """The highest emission of each event that is in Kafka."""
    seen: dict[UUID, int] = {}
    for topic in topics.values():
        for entry in topic.entries():
            event = entry.value
            seen[event.event_id] = max(event.emission, seen.get(event.event_id, 0))
    return seen


@dataclass(slots=True)
class Audit:
    """One auditor, with one mark for all days; what it reads of the topics it reads anew each time."""

    database: Database
    topics: Mapping[TopicName, Topic[Event]]
    connector: Connector
    day: AuditedDay = NOTHING_YET
    waits: Waits = field(default_factory=Waits)

    @property
    def missing(self) -> frozenset[EventKey]:
        return self.day.missing

    def once(self) -> bool:
        """Whether the mark moved, or something was found or lost."""
        look, seen, before = self._look(), published(self.topics), self.day
        self.waits.look(look.unseen(seen), at=look.at, written=look.written)
        waited = self.waits.waited(now=look.at)
        found = publication_audit.audit_days(
            look, seen, waited=waited, publish_within=PUBLISH_WITHIN, budget=len(self.database.wal) + 1
        )
        if found.missing or self.missing:
            try:
                found = self.database.transact(lambda tx: self._save(tx, found))
            except DATABASE_ERRORS:
                return True
        (self.day,) = found.days
        return self.day != before

    def _look(self) -> Look:
        wal, below = self.database.wal, self.database.xact + 1
        return Look(
            at=self.database.clock.elapsed,
            now=self.database.now(),
            below=below,
            days=[self.day],
            rows={self.day.day: [row.judged for row in wal if self.day.through <= row.judged.xact_id < below]},
            written=len(wal),
            confirmed=self.connector.confirmed,
        )

    def _save(self, tx: Tx, found: Audited) -> Audited:
        found = found.without(self._emit_again(tx, found))
        tx.incidents += found.incidents
        tx.close_incidents("event_not_published", still=found.still)
        return found

    def _emit_again(self, tx: Tx, found: Audited) -> frozenset[EventKey]:
        gone = self.waits.passed_over(found.missing, confirmed=found.look.confirmed)
        if not gone:
            return frozenset()
        emissions = [_emission(row, self.day.through) for row in self.database.wal]
        good, first = publication_audit.losses(found.missing, gone, emissions)
        positions = publication_audit.first_lost(first, budget=EMIT_BUDGET)
        mine = [one for one in emissions if one.position_id in positions]
        events = {row.judged.key: row.event for row in self.database.wal}
        for key in publication_audit.emit_again(mine, found.missing - good, budget=EMIT_BUDGET):
            event, emission = events[key], key[1] + 1
            tx.events.append(replace(event, emission=emission, payload=replace(event.payload, emission=emission)))
        return good


def _emission(row: Row, through: int) -> Emission:
    return Emission(
        key=row.judged.key,
        position_id=row.judged.position_id,
        topic=row.event.topic,
        position_version=row.event.position_version,
        xact_id=row.judged.xact_id,
        judged=row.judged.xact_id < through,
    )
