"""What the auditor has read in the topics and not used up yet, and since when it knows rows that it did not find."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from closeflow.domain.outbox.publication_audit import EventKey
from closeflow.kafka.read_to_end import Partition, TailRecord


class SeenEvent(NamedTuple):
    """Where an emission of an event lies in its topic, and when it was read (monotonic seconds)."""

    emission: int
    place: Partition
    offset: int
    seen_at: float


@dataclass(slots=True)
class SeenEvents:
    """The highest emission of each event that was read. Times are the process's monotonic seconds."""

    _by_event: dict[UUID, SeenEvent] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._by_event)

    def note(self, records: Iterable[TailRecord], *, at: float) -> None:
        """Keep the records that came from the outbox."""
        for record in records:
            key = _event_key(record)
            if key is None:
                continue
            event_id, emission = key
            known = self._by_event.get(event_id)
            if known is None or known.emission <= emission:
                self._by_event[event_id] = SeenEvent(emission, (record.topic, record.partition), record.offset, at)

    def emissions(self) -> Mapping[UUID, int]:
        """By event id, the highest emission that was read."""
        return {event_id: one.emission for event_id, one in self._by_event.items()}

    def forget(self, keys: Iterable[EventKey]) -> None:
        """These rows are judged; what is kept for a later emission stays."""
        for event_id, emission in keys:
            known = self._by_event.get(event_id)
            if known is not None and known.emission <= emission:
                del self._by_event[event_id]

    def older_than(self, age_s: float, *, now: float, at_most: int) -> list[EventKey]:
        """What nobody has used for so long, oldest first: read again, of another database, or not visible yet."""
        found = []
        for event_id, one in self._by_event.items():  # in the order in which events were first seen
            if now - one.seen_at >= age_s:
                found.append((event_id, one.emission))
                if len(found) == at_most:
                    break
        return found

    def keep(self, keys: Collection[EventKey], *, at: float) -> None:
        """These are still needed: ask about them again later, after the others."""
        for event_id, emission in keys:
            known = self._by_event.get(event_id)
            if known is not None and known.emission == emission:
                del self._by_event[event_id]
                self._by_event[event_id] = known._replace(seen_at=at)

    def read_from(self, positions: Mapping[Partition, int]) -> dict[Partition, int]:
        """From where on the topics have to be read again, so that nothing is missed that is kept here."""
        found = dict(positions)
        for one in self._by_event.values():
            found[one.place] = min(one.offset, found.get(one.place, one.offset))
        return found


class FirstLook(NamedTuple):
    """When a row was first missed (monotonic seconds), and how far the WAL had been written by then."""

    at: float
    written: int


@dataclass(slots=True)
class Waits:
    """When the auditor first looked for a row and did not find it, and how far the WAL was written then."""

    _looks: dict[EventKey, FirstLook] = field(default_factory=dict)

    def look(self, keys: Collection[EventKey], *, at: float, written: int) -> None:
        """These are all the rows that are waited for; others are forgotten."""
        self._looks = {key: self._looks.get(key) or FirstLook(at, written) for key in keys}

    def waited(self, *, now: float) -> dict[EventKey, timedelta]:
        """How long each row has been missed."""
        return {key: timedelta(seconds=now - look.at) for key, look in self._looks.items()}

    def passed_over(self, keys: Iterable[EventKey], *, confirmed: int | None) -> list[EventKey]:
        """Rows that the slot has gone past: they will never be published from it."""
        return [
            key
            for key in keys
            if confirmed is not None and (look := self._looks.get(key)) is not None and look.written <= confirmed
        ]


def _event_key(record: TailRecord) -> EventKey | None:
    """The event id and emission from the record's headers; None for a record that is not from the outbox."""
    headers = {name: raw.decode(errors="replace") for name, raw in record.headers if raw is not None}
    try:
        return UUID(headers["ce_id"]), int(headers["emission"])
    except (KeyError, ValueError):
        return None
