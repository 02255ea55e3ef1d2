"""What is known to be in Kafka, and what is emitted again: the decisions of the publication audit (invariant 14).

A row is published when a record of its event is in Kafka with its emission or a higher one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from uuid import UUID

from closeflow.domain.frozen import replace
from closeflow.domain.incidents import IncidentKind, about
from closeflow.domain.model import Incident

EventKey = tuple[UUID, int]
"""Event id and emission: what makes a published record the one that a row asked for."""


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """One row below the snapshot's xmin, so nothing of an older transaction can appear behind it."""

    key: EventKey
    position_id: int | None
    xact_id: int
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class AuditedDay:
    """A day's mark, below which every row has been judged, and which of those are missing."""

    day: date
    through: int
    missing: frozenset[EventKey]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The outbox at one moment: by day its mark, and the rows from there on up to `below`. `written` and `confirmed`
    are places in the WAL: what is committed lies before the first; what lies before the second is published, or will
    never be read from the slot (None: there is no slot)."""

    at: float
    now: datetime
    below: int
    days: Sequence[AuditedDay]
    rows: Mapping[date, Sequence[OutboxRow]]
    written: int
    confirmed: int | None

    def unseen(self, seen: Mapping[UUID, int]) -> list[EventKey]:
        """The rows that are not published, as far as was read."""
        keys = [row.key for rows in self.rows.values() for row in rows]
        keys += [key for day in self.days for key in day.missing]
        return [key for key in keys if not is_published(key, seen)]


@dataclass(frozen=True, slots=True)
class Judged:
    """`through`: every row of a smaller transaction id has been judged. `missing`: those not in Kafka in time."""

    through: int
    missing: tuple[OutboxRow, ...]


@dataclass(frozen=True, slots=True)
class Emission:
    """One emission of an event, as the outbox holds it. `judged`: it lies below the mark of its day."""

    key: EventKey
    position_id: int | None
    topic: str
    position_version: int | None
    xact_id: int
    judged: bool


def is_published(key: EventKey, seen: Mapping[UUID, int]) -> bool:
    """`seen` has the highest emission of each event that was read from the topics."""
    return seen.get(key[0], 0) >= key[1]


def judge_publication(
    rows: Sequence[OutboxRow],
    seen: Mapping[UUID, int],
    *,
    through: int,
    below: int,
    complete: bool,
    now: datetime,
    waited: Mapping[EventKey, timedelta],
    publish_within: timedelta,
) -> Judged:
    """Judge rows in the order of their transactions, up to the first that is not published but may still be.

    `rows` lie in [through, below); `complete` says that they are all of them, otherwise more transactions may follow
    the last one, which is there as a whole.
    `now` is the database's clock; `waited` is how long the auditor itself has known a row: both ages have to exceed
    `publish_within`, so that no clock that jumps makes a row missing (invariant 20).
    """
    missing: list[OutboxRow] = []
    for row in rows:
        if is_published(row.key, seen):
            continue
        age = min(now - row.occurred_at, waited.get(row.key, timedelta(0)))
        if age < publish_within:
            before = tuple(one for one in missing if one.xact_id < row.xact_id)
            return Judged(row.xact_id, before)
        missing.append(row)
    return Judged(below if complete or not rows else rows[-1].xact_id + 1, tuple(missing))


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """What a look comes to: the verdict about each day, and every row that is missing now."""

    look: Look
    verdicts: Sequence[Judged]
    missing: frozenset[EventKey]

    def without(self, good: Collection[EventKey]) -> Audited:
        """The same, with these made good by a later emission."""
        return replace(self, missing=self.missing.difference(good))

    @property
    def days(self) -> list[AuditedDay]:
        """Each day as it is to be marked."""
        judged = zip(self.look.days, self.verdicts, strict=True)
        return [AuditedDay(day.day, max(day.through, one.through), self._of(day, one)) for day, one in judged]

    def _of(self, day: AuditedDay, judged: Judged) -> frozenset[EventKey]:
        return self.missing & day.missing.union(row.key for row in judged.missing)

    @property
    def used(self) -> set[EventKey]:
        """The rows that need not be looked for any more."""
        days = {day.day: day.through for day in self.days}
        rows = ((days[day], row) for day, rows in self.look.rows.items() for row in rows)
        return {row.key for through, row in rows if row.xact_id < through}

    @property
    def incidents(self) -> list[Incident]:
        """One for each row that is missing since this look."""
        newly = (row for verdict in self.verdicts for row in verdict.missing)
        return [_missing(row) for row in sorted(newly, key=lambda row: row.key[1])]

    @property
    def still(self) -> set[str]:
        """What the incidents that stay open are about: one per event, however many of its emissions are missing."""
        return {str(event_id) for event_id, _ in self.missing}


def audit_days(
    look: Look,
    seen: Mapping[UUID, int],
    *,
    waited: Mapping[EventKey, timedelta],
    publish_within: timedelta,
    budget: int,
) -> Audited:
    """Judge each day of the look, of which at most `budget` rows were read; see `judge_publication`."""
    verdicts = [
        judge_publication(
            look.rows.get(day.day, ()),
            seen,
            through=day.through,
            below=look.below,
            complete=len(look.rows.get(day.day, ())) < budget,
            now=look.now,
            waited=waited,
            publish_within=publish_within,
        )
        for day in look.days
    ]
    known = {key for day in look.days for key in day.missing} | {row.key for one in verdicts for row in one.missing}
    missing = frozenset(key for key in known if not is_published(key, seen))
    return Audited(look=look, verdicts=verdicts, missing=missing)


def _missing(row: OutboxRow) -> Incident:
    detail = f"event {row.key[0]} (emission {row.key[1]}) of position {row.position_id} is not in Kafka"
    return about(IncidentKind.EVENT_NOT_PUBLISHED, detail, subject=str(row.key[0]))


def superseded(missing: Collection[EventKey], emissions: Iterable[Emission]) -> frozenset[EventKey]:
    """Which of the missing rows a later emission has made good: one that was judged and is not missing itself."""
    good: dict[UUID, int] = {}
    for one in emissions:
        if one.judged and one.key not in missing:
            event_id, emission = one.key
            good[event_id] = max(emission, good.get(event_id, 0))
    return frozenset(key for key in missing if good.get(key[0], 0) > key[1])


def lost(missing: Collection[EventKey], emissions: Iterable[Emission]) -> frozenset[EventKey]:
    """The missing rows that nothing else stands in for: a row with a later emission waits for that one."""
    highest = _highest(emissions)
    return frozenset(key for key in missing if key[0] in highest and highest[key[0]].key == key)


def losses(
    missing: Collection[EventKey], gone: Collection[EventKey], emissions: Sequence[Emission]
) -> tuple[frozenset[EventKey], list[Emission]]:
    """Which of the missing rows a later emission has made good; and of those that are `gone`, because nothing will
    publish them any more, the ones that nothing else stands in for."""
    good = superseded(missing, emissions)
    starts = lost(set(gone) - good, emissions)
    return good, [one for one in emissions if one.key in starts]


def first_lost(starts: Iterable[Emission], *, budget: int) -> tuple[int, ...]:
    """The positions to look into, those that lost an event first before the others: together they lost not more than
    `budget` events. At least one, if any lost one."""
    events: defaultdict[int, list[int]] = defaultdict(list)
    for one in starts:
        if one.position_id is not None:
            events[one.position_id].append(one.xact_id)
    chosen: list[int] = []
    count = 0
    for position_id, xacts in sorted(events.items(), key=lambda item: (min(item[1]), item[0])):
        count += len(xacts)
        if chosen and count > budget:
            break
        chosen.append(position_id)
    return tuple(chosen)


def emit_again(emissions: Sequence[Emission], missing: Collection[EventKey], *, budget: int) -> tuple[EventKey, ...]:
    """What to copy, in order: of each position that lost an event, every event from its first lost one on, each by its
    highest emission. `emissions` holds every emission of those positions.

    Positions are whole, the one that lost its event first comes first; at least one is taken, and no further one once
    `budget` events are reached. Order matters within a topic only, and there it is the first emissions' (by version
    where the events have one, since the transaction that began first need not be the first to commit).
    """
    chosen: list[EventKey] = []
    for mine in _by_position(emissions, missing):
        if chosen and len(chosen) + len(mine) > budget:
            break
        chosen += mine
    return tuple(chosen)


def replay(emissions: Sequence[Emission], topics: Collection[str]) -> tuple[EventKey, ...]:
    """What to copy so that these topics have every event of a position once more: each by its highest emission, in the
    order in which its topic has them already."""
    mine = [one for one in emissions if one.topic in topics]
    first: dict[UUID, Emission] = {}
    for one in sorted(mine, key=lambda one: one.key[1]):
        first.setdefault(one.key[0], one)
    highest = _highest(mine)
    return tuple(highest[one.key[0]].key for one in sorted(first.values(), key=_place))


def _by_position(emissions: Sequence[Emission], missing: Collection[EventKey]) -> list[list[EventKey]]:
    groups: defaultdict[object, list[Emission]] = defaultdict(list)
    for one in emissions:
        groups[one.key[0] if one.position_id is None else one.position_id].append(one)
    found: list[tuple[int, list[EventKey]]] = []
    for group in groups.values():
        gone = lost(missing, group)
        starts = [one for one in group if one.key in gone]
        if not starts:
            continue
        first: dict[UUID, Emission] = {}
        for one in sorted(group, key=lambda one: one.key[1]):
            first.setdefault(one.key[0], one)
        origins = [first[one.key[0]] for one in starts]
        highest = _highest(group)
        behind = [one for one in first.values() if any(_not_before(one, start) for start in origins)]
        keys = [highest[one.key[0]].key for one in sorted(behind, key=_place)]
        found.append((min(start.xact_id for start in origins), keys))
    return [keys for _, keys in sorted(found, key=lambda one: one[0])]


def _highest(emissions: Iterable[Emission]) -> dict[UUID, Emission]:
    found: dict[UUID, Emission] = {}
    for one in emissions:
        event_id, emission = one.key
        if event_id not in found or found[event_id].key[1] < emission:
            found[event_id] = one
    return found


def _not_before(one: Emission, start: Emission) -> bool:
    if one.topic == start.topic and one.position_version is not None and start.position_version is not None:
        return one.position_version >= start.position_version
    return one.xact_id >= start.xact_id


def _place(one: Emission) -> tuple[str, int, int, UUID]:
    return one.topic, one.position_version or 0, one.xact_id, one.key[0]
