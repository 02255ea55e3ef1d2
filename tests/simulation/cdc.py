"""Debezium: reads the outbox in the order of commits, sends it to Kafka, and remembers where it was a while ago.

And the reconciler's publication audit, which is what notices when something of it is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from closeflow.domain.model import Event, Incident
from closeflow.domain.model import Topic as TopicName
from closeflow.domain.publication import EventKey, OutboxRow, judge_publication
from tests.simulation.core import PUBLISH_WITHIN
from tests.simulation.database import Database, Tx
from tests.simulation.faults import Fault, Faults
from tests.simulation.log import Topic
from tests.simulation.process import DATABASE_ERRORS

MISSING: Final = "event_not_published"


@dataclass(slots=True)
class Connector:
    """`sent` and `confirmed` count rows of the database's log: what is in Kafka, and what a restart does not repeat."""

    database: Database
    faults: Faults
    topics: Mapping[TopicName, Topic[Event]]
    sent: int = 0
    confirmed: int = 0
    running: bool = True

    def publish(self) -> bool:
        if not self.running or self.sent >= len(self.database.wal):
            return False
        row = self.database.wal[self.sent]
        self.topics[row.event.topic].append(row.event.key, row.event)
        self.sent += 1
        return True

    def confirm(self) -> bool:
        if self.confirmed == self.sent:
            return False
        self.confirmed = self.sent
        return True

    def stop(self) -> bool:
        was, self.running = self.running, False
        return was

    def restart(self) -> bool:
        """What was sent and not confirmed is sent again."""
        if self.sent > self.confirmed:
            self.faults.saw(Fault.CDC_RESENT)
        self.sent, self.running = self.confirmed, True
        return True

    def resend(self) -> bool:
        """Rows of long ago come again: another snapshot mode, or an operator who set the offsets back."""
        if not self.confirmed:
            return False
        self.faults.saw(Fault.CDC_RESENT)
        self.sent = self.confirmed = self.faults.random.randrange(self.confirmed)
        return True

    def lose_slot(self) -> bool:
        """The new slot begins at the end of the log: what waited is never sent by it."""
        if self.sent < len(self.database.wal):
            self.faults.saw(Fault.SLOT_LOST)
        self.sent = self.confirmed = len(self.database.wal)
        self.running = True
        return True


@dataclass(slots=True)
class Audit:
    """Mirrors `publication.AuditPublication.once`, with one mark for all days."""

    database: Database
    topics: Mapping[TopicName, Topic[Event]]
    through: int = 0
    missing: dict[EventKey, OutboxRow] = field(default_factory=dict)

    def once(self) -> bool:
        seen = {(e.value.event_id, e.value.emission) for topic in self.topics.values() for e in topic.entries()}
        below = self.database.xact + 1
        rows = [row.judged for row in self.database.wal if self.through <= row.judged.xact_id < below]
        judged = judge_publication(
            rows,
            seen,
            through=self.through,
            below=below,
            complete=True,
            now=self.database.now(),
            publish_within=PUBLISH_WITHIN,
        )
        known = {**self.missing, **{row.key: row for row in judged.missing}}
        missing = {key: row for key, row in known.items() if key not in seen}
        if missing.keys() != self.missing.keys():
            try:
                self.database.transact(lambda tx: _report(tx, missing))
            except DATABASE_ERRORS:
                return True
        self.through, self.missing = judged.through, missing
        return len(rows) > 0 and judged.through < below


def _report(tx: Tx, missing: Mapping[EventKey, OutboxRow]) -> None:
    """As `AuditPublication._save`."""
    subjects = {f"{key[0]}/{key[1]}": row for key, row in missing.items()}
    tx.incidents += [
        Incident(kind=MISSING, severity="critical", detail=f"position {row.position_id}", subject=subject)
        for subject, row in subjects.items()
    ]
    tx.close_incidents(MISSING, still=list(subjects))
