"""The reconciler's publication audit, which notices what the CDC lost and emits it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final
from uuid import UUID

from closeflow.domain.model import Event, Incident
from closeflow.domain.model import Topic as TopicName
from closeflow.domain.outbox import publication_audit
from closeflow.domain.outbox.publication_audit import (
    Emission,
    EventKey,
    Judged,
    is_published,
    judge_publication,
    lost,
    superseded,
)
from tests.simulation.cdc import Connector
from tests.simulation.core import PUBLISH_WITHIN
from tests.simulation.database import Database, Row, Tx
from tests.simulation.log import Topic
from tests.simulation.process import DATABASE_ERRORS

MISSING: Final = "event_not_published"
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
    """Mirrors `publication.AuditPublication.once`, with one mark for all days."""

    database: Database
    topics: Mapping[TopicName, Topic[Event]]
    connector: Connector
    through: int = 0
    missing: set[EventKey] = field(default_factory=set)
    since: dict[EventKey, float] = field(default_factory=dict)
    """When each unpublished row was first seen, by the auditor's own clock."""

    def once(self) -> bool:
        """Whether a mark moved, or something was found or lost."""
        seen, elapsed = published(self.topics), self.database.clock.elapsed
        below = self.database.xact + 1
        rows = [row.judged for row in self.database.wal if self.through <= row.judged.xact_id < below]
        unseen = {key for key in (*(row.key for row in rows), *self.missing) if not is_published(key, seen)}
        self.since = {key: self.since.get(key, elapsed) for key in unseen}
        judged = judge_publication(
            rows,
            seen,
            through=self.through,
            below=below,
            complete=True,
            now=self.database.now(),
            waited={key: timedelta(seconds=elapsed - since) for key, since in self.since.items()},
            publish_within=PUBLISH_WITHIN,
        )
        missing = {key for key in (*self.missing, *(row.key for row in judged.missing)) if key in unseen}
        before = (self.through, self.missing)
        if missing or self.missing:
            try:
                missing -= self.database.transact(lambda tx: self._report(tx, judged, missing))
            except DATABASE_ERRORS:
                return True
        self.through, self.missing = max(self.through, judged.through), missing
        return (self.through, self.missing) != before

    def _report(self, tx: Tx, judged: Judged, missing: set[EventKey]) -> frozenset[EventKey]:
        """As `AuditPublication._judge`; returns what a later emission has made good."""
        good = self._emit_again(tx, missing)
        tx.incidents += [
            Incident(kind=MISSING, severity="critical", detail=f"position {row.position_id}", subject=subject(row.key))
            for row in judged.missing
        ]
        tx.close_incidents(MISSING, still=[subject(key) for key in missing - good])
        return good

    def _emit_again(self, tx: Tx, missing: set[EventKey]) -> frozenset[EventKey]:
        """As `AuditPublication._emit_again`: only what the slot has gone past, because the rest will come."""
        passed = {row.judged.key for row in self.database.wal[: self.connector.confirmed]}
        gone = missing & passed
        if not gone:
            return frozenset()
        by_key = {row.judged.key: row for row in self.database.wal}
        emissions = [_emission(row, self.through) for row in self.database.wal]
        good = superseded(missing, emissions)
        starts = lost(gone - good, emissions)
        positions = {by_key[key].judged.position_id for key in starts}
        mine = [one for one in emissions if one.position_id in positions]
        for key in publication_audit.emit_again(mine, missing - good, budget=EMIT_BUDGET):
            event = by_key[key].event
            emission = event.emission + 1
            tx.events.append(replace(event, emission=emission, payload=replace(event.payload, emission=emission)))
        return good


def subject(key: EventKey) -> str:
    return str(key[0])


def _emission(row: Row, through: int) -> Emission:
    return Emission(
        key=row.judged.key,
        position_id=row.judged.position_id,
        topic=row.event.topic,
        position_version=row.event.position_version,
        xact_id=row.judged.xact_id,
        judged=row.judged.xact_id < through,
    )
