"""What differs between a topic's file and the topic in Kafka, in lines that say how to mend it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from closeflow.kafka.topic_state import TopicState
from closeflow.kafka.topics import TopicSpec, settings_at

_OF_A_MOVE: Final = frozenset({"leader.replication.throttled.replicas", "follower.replication.throttled.replicas"})
"""What is set on a topic while its partitions are moved to other brokers."""
_APPLY: Final = "closectl topics apply"


def differences(spec: TopicSpec, state: TopicState | None, *, copies: int | None = None) -> Iterator[str]:
    """A line for each. `copies` is how many there have to be, or None where any number is right."""
    if state is None:
        yield f"topic {spec.name} is not there, or this login may not see it; run `{_APPLY}`"
        return
    if state.partitions != spec.partitions:
        yield (
            f"topic {spec.name} has {state.partitions} partitions, and schemas/topics says {spec.partitions}; "
            "a key would move to another partition: delete the topic, or mend the file"
        )
    if copies is not None and state.copies != copies:
        yield (
            f"topic {spec.name} has {state.copies} copies and should have {copies}; move its partitions with Kafka's "
            "kafka-reassign-partitions"
        )
    if state.settings is None:
        yield f"topic {spec.name}: this login may not see its settings; {_rights_of('DESCRIBE_CONFIGS')}"
        return
    for name, wanted in changed_settings(spec, state).items():
        if wanted is None:
            yield (
                f"topic {spec.name} has {name}={state.settings.get(name, '')}, which schemas/topics does not say; "
                f"run `{_APPLY}` to take it away, or say it in the file"
            )
        else:
            yield (
                f"topic {spec.name} has {name}={state.settings.get(name, '')}, and schemas/topics says {wanted}; run "
                f"`{_APPLY}`, or mend the file"
            )


def changed_settings(spec: TopicSpec, state: TopicState) -> dict[str, str | None]:
    """What the topic's settings have to become; None is a setting of the topic that its file does not say."""
    wanted, now = settings_at(spec, state.copies), state.settings or {}
    changed: dict[str, str | None] = {name: value for name, value in wanted.items() if now.get(name) != value}
    return changed | dict.fromkeys(sorted(state.overrides - wanted.keys() - _OF_A_MOVE))


def missing_rights(topic: str, needed: Collection[str], state: TopicState | None) -> Iterator[str]:
    """What the login may not do with a topic and has to; a topic that it may not see is one that is not there."""
    if state is None or state.rights is None:
        return
    for operation in sorted(set(needed) - state.rights):
        yield f"this login may not {operation} topic {topic}; {_rights_of(operation)}"


def _rights_of(operation: str) -> str:
    return f"`{_APPLY} --acls` gives {operation} to whom the topic files name"
