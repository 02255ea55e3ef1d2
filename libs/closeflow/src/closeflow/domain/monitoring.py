"""What stands still: records that wait while their consumer group does not move, and servers that do not answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from closeflow.domain.frozen import replace
from closeflow.domain.incidents import IncidentKind, about
from closeflow.domain.model import Incident

Place = tuple[str, str, int]
"""A consumer group, a topic, and the number of one of its partitions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Records of one partition from `committed` to before `end`. `since` is when the group was first seen to stand
    here, by the observer's monotonic clock; `moved` whether it was seen to move before."""

    committed: int
    end: int
    since: float
    moved: bool = False


def look_at_lag(
    known: Mapping[Place, Waiting], seen: Mapping[Place, tuple[int, int]], *, now: float
) -> Mapping[Place, Waiting]:
    """What waits now, from the committed offset and the end of each partition, and what was known of it before."""
    waiting = {}
    for place, (committed, end) in seen.items():
        before = known.get(place)
        if committed >= end:
            continue
        if before is not None and before.committed == committed:
            waiting[place] = replace(before, end=end)
        else:
            waiting[place] = Waiting(committed=committed, end=end, since=now, moved=before is not None)
    return waiting


def stalled_consumers(waiting: Mapping[Place, Waiting], *, now: float, patience_s: float) -> list[Incident]:
    """One incident for each group that has not moved for so long although records wait for it."""
    found: defaultdict[tuple[str, str], list[tuple[int, Waiting]]] = defaultdict(list)
    for (group, topic, partition), one in waiting.items():
        if now - one.since >= patience_s:
            found[group, topic].append((partition, one))
    return [
        about(
            IncidentKind.CONSUMER_STALLED,
            (
                f"{sum(one.end - one.committed for _, one in places)} records of {topic} wait for {group}, which has "
                f"committed nothing for {now - min(one.since for _, one in places):.0f} s; by partition: "
                + ", ".join(f"{partition} from {one.committed} to {one.end}" for partition, one in sorted(places))
            )[:1000],
            subject=subject(group, topic),
        )
        for (group, topic), places in sorted(found.items())
    ]


def beyond_the_end(seen: Mapping[Place, tuple[int, int]]) -> list[Incident]:
    """One incident for each group that has read further than a log of its topic reaches now: its newest records are
    lost. It stays open for a person: what was lost is asked for again by itself, why it was lost is not."""
    found: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for (group, topic, partition), (committed, end) in sorted(seen.items()):
        if committed > end:
            found[group, topic].append(f"partition {partition} was read up to {committed} and the log ends at {end}")
    return [log_tail_lost(group, topic, lost) for (group, topic), lost in found.items()]


def log_tail_lost(group: str, topic: str, lost: Iterable[str]) -> Incident:
    """That the newest records of some partitions vanished after the group had read them."""
    detail = f"the newest records of {topic} are lost: {', '.join(lost)}"
    return about(IncidentKind.LOG_TAIL_LOST, detail[:1000], subject=subject(group, topic))


def not_seen_to_move(waiting: Mapping[Place, Waiting], *, now: float, patience_s: float) -> frozenset[str]:
    """The subjects about which an incident stays open: who has only just begun to look knows nothing better."""
    still = (place for place, one in waiting.items() if not one.moved or now - one.since >= patience_s)
    return frozenset(subject(group, topic) for group, topic, _ in still)


def subject(group: str, topic: str) -> str:
    """Of the incident `consumer_stalled` about this group and topic."""
    return f"{group}/{topic}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Away:
    """A server that does not answer: since when, by the observer's monotonic clock, and what came instead."""

    since: float
    reason: str


def look_at_answer(before: Away | None, failure: str | None, *, asked_at: float) -> Away | None:
    """None once it answers."""
    if failure is None:
        return None
    return Away(since=before.since if before is not None else asked_at, reason=failure)


def away_kind(name: str) -> IncidentKind:
    """What it is called that the server of this name is away."""
    return IncidentKind(f"{name}_away")


def away_incidents(away: Iterable[tuple[str, str, Away | None]], *, now: float, patience_s: float) -> list[Incident]:
    """One incident for each server that has not answered for so long, by its name and the incident's subject, which
    differ where everyone who asks has a server of its own."""
    return [
        about(
            away_kind(name),
            f"{name} has given no answer for {now - one.since:.0f} s: {one.reason}"[:1000],
            subject=subject,
        )
        for name, subject, one in away
        if one is not None and now - one.since >= patience_s
    ]
