"""Debezium: reads the outbox in the order of commits, sends it to Kafka, and remembers where it was a while ago."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from closeflow.domain.model import Event
from closeflow.domain.model import Topic as TopicName
from closeflow.domain.outbox.publication_audit import EventKey
from tests.simulation.database import Database
from tests.simulation.faults import Fault, Faults
from tests.simulation.log import Topic


@dataclass(slots=True)
class Connector:
    """`sent` and `confirmed` count rows of the database's log: what is in Kafka, and what a restart does not repeat."""

    database: Database
    faults: Faults
    topics: Mapping[TopicName, Topic[Event]]
    sent: int = 0
    confirmed: int = 0
    furthest: int = 0
    """No row behind it was ever sent."""
    running: bool = True
    skipped: set[EventKey] = field(default_factory=set)
    """What a lost slot took; only a connector that is set back can find it."""

    def publish(self) -> bool:
        if not self.running or self.sent >= len(self.database.wal):
            return False
        row = self.database.wal[self.sent]
        if self.sent < self.furthest:
            self.faults.saw(Fault.CDC_RESENT)
        self.furthest = max(self.furthest, self.sent + 1)
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
        self.sent, self.running = self.confirmed, True
        return True

    def resend(self) -> bool:
        """Rows of long ago come again: another snapshot mode, or an operator who set the offsets back."""
        if not self.confirmed:
            return False
        self.sent = self.confirmed = self.faults.random.randrange(self.confirmed)
        return True

    def lose_slot(self) -> bool:
        """The new slot begins at the end of the log: what waited is never sent by it."""
        if self.furthest < len(self.database.wal):
            self.faults.saw(Fault.SLOT_LOST)
        self.skipped |= {row.judged.key for row in self.database.wal[self.furthest :]}
        self.furthest = self.sent = self.confirmed = len(self.database.wal)
        self.running = True
        return True
