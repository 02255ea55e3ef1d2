"""Check the topics against the database (invariants 14, 15 and 17): what is there, in what order, what risk knows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from uuid import UUID

from closectl.verifying.reading import KAFKA, PUBLISH_WITHIN, Published
from closectl.verifying.report import Looked, looked
from closeflow.domain.model import Topic
from closeflow.domain.outbox.publication_audit import EventKey
from closeflow.domain.text import decimal_text
from closeflow.storage.verify.compared_state import PositionState, State

Wrong = Iterator[tuple[str, str]]


def check_topics(state: State, published: Sequence[Published]) -> list[Looked]:
    """`published` was read after `state`, so what is newer than it may be there too."""
    events = {one.event_key: one for one in published}
    positions = [one for one in published if one.topic is Topic.POSITION_EVENTS]
    order = [*_partitions(published), *_versions(positions), *_histories(state, positions)]
    return [
        looked(14, KAFKA, "outbox rows", len(state.outbox), _missing(state, events.keys())),
        looked(15, KAFKA, "records", len(published), order),
        looked(17, KAFKA, "positions", len(state.positions), _risk(state, positions)),
    ]


def _missing(state: State, seen: Iterable[EventKey]) -> Wrong:
    """A row is published when it is in Kafka, or a later emission of its event is."""
    emissions: dict[UUID, int] = {}
    for event_id, emission in seen:
        emissions[event_id] = max(emission, emissions.get(event_id, 0))
    for row in state.outbox:
        if emissions.get(row.event_id, 0) < row.emission and row.occurred_at + PUBLISH_WITHIN < state.at:
            of = f" of position {row.position_id}" if row.position_id is not None else ""
            yield f"event {row.event_id}", f"{row.event_type}{of} (emission {row.emission}) is not in {row.topic}"


def _partitions(published: Iterable[Published]) -> Wrong:
    partitions: defaultdict[tuple[Topic, str], set[int]] = defaultdict(set)
    for one in published:
        partitions[(one.topic, one.key)].add(one.partition)
        if str(one.value.get("position_id")) != one.key:
            yield f"event {one.event_key[0]}", f"is of position {one.value.get('position_id')} under key {one.key!r}"
    for (topic, key), found in partitions.items():
        if len(found) > 1:
            yield f"position {key}", f"its events are on partitions {sorted(found)} of {topic}"


def _versions(events: Iterable[Published]) -> Wrong:
    """Each version says one thing, and is seen for the first time after all lower ones; later copies do no harm."""
    said: dict[tuple[str, int], tuple[object, object]] = {}
    highest: dict[str, int] = {}
    for one in events:
        version = _version(one)
        state = (one.value.get("position_status"), one.value.get("quantity"))
        is_new = (one.key, version) not in said
        if said.setdefault((one.key, version), state) != state:
            yield f"position {one.key}", f"two events of version {version} say {said[(one.key, version)]} and {state}"
        if is_new and one.event_key[1] == 1 and version < highest.get(one.key, 0):
            yield f"position {one.key}", f"version {version} was published after version {highest[one.key]}"
        highest[one.key] = max(version, highest.get(one.key, 0))


def _histories(state: State, events: Iterable[Published]) -> Wrong:
    """Applied by version, the events give every status that the position had. Only of positions whose events are all
    there, and none that is newer."""
    said: defaultdict[str, dict[int, str]] = defaultdict(dict)
    for one in events:
        said[one.key].setdefault(_version(one), str(one.value.get("position_status")))
    for position in state.positions:
        statuses = said.get(str(position.id), {})
        if not statuses or (min(statuses), max(statuses), len(statuses)) != (2, position.version, position.version - 1):
            continue
        told = [position.moves[0], *(statuses[version] for version in sorted(statuses))] if position.moves else []
        history = [status for status, _ in groupby(told)]
        if history != list(position.moves):
            yield (
                f"position {position.id}",
                f"went through {', '.join(position.moves)}; its events say {', '.join(history)}",
            )


def _risk(state: State, events: Iterable[Published]) -> Wrong:
    """What risk knows after applying only higher versions; newer than the snapshot is not compared."""
    newest: dict[str, Published] = {}
    for one in events:
        if one.key not in newest or _version(one) > _version(newest[one.key]):
            newest[one.key] = one
    since = min((row.occurred_at for row in state.outbox), default=state.at)
    late = {row.position_id for row in state.outbox if row.occurred_at + PUBLISH_WITHIN >= state.at}
    for position in state.positions:
        known = newest.get(str(position.id))
        if known is None or position.id in late or known.time < since or _version(known) > position.version:
            continue
        yield from _differs(position, known)


def _differs(position: PositionState, known: Published) -> Wrong:
    told = (known.value.get("position_status"), known.value.get("quantity"))
    if (_version(known), *told) != (position.version, position.status, decimal_text(position.quantity)):
        yield (
            f"position {position.id}",
            f"is {position.status} with {decimal_text(position.quantity)} at version {position.version}; risk has "
            f"{told[0]} with {told[1]} at version {_version(known)}",
        )


def _version(one: Published) -> int:
    found = one.value.get("position_version")
    return found if isinstance(found, int) else 0
