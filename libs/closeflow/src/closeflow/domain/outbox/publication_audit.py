"""What is known to be in Kafka, and what is emitted again: the decisions of the publication audit (invariant 14).

A row is published when a record of its event is in Kafka with its emission or a higher one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

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
