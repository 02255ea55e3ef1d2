"""One vocabulary of `ce_type`: what the producers write, and nothing else."""

from __future__ import annotations

from collections import Counter

from closeflow.contracts import ExecutionEventType
from closeflow.contracts.event_types import EVENT_TYPES, broker_event_type
from closeflow.contracts.topics import BROKER_FILL, EXECUTION_EVENTS, POSITION_EVENTS, SUBMIT_ORDER, TOPIC_MODELS
from closeflow.domain.model import ExecType, PositionStatus
from closeflow.domain.outbox import events


def test_every_topic_has_its_types_and_no_type_is_of_two() -> None:
    assert set(EVENT_TYPES) == set(TOPIC_MODELS)
    assert set(Counter(name for types in EVENT_TYPES.values() for name in types).values()) == {1}


def test_what_the_domain_publishes_is_the_vocabulary_of_the_outbox() -> None:
    written = {name for name, value in vars(events).items() if name.isupper() and name == value}
    told = {name for topic in (SUBMIT_ORDER, POSITION_EVENTS, EXECUTION_EVENTS) for name in EVENT_TYPES[topic]}
    assert told == written
    assert set(EVENT_TYPES[EXECUTION_EVENTS]) == set(ExecutionEventType)
    assert set(events._TYPE_OF_STATUS) == set(PositionStatus)


def test_every_kind_of_update_of_the_broker_is_in_it() -> None:
    assert set(EVENT_TYPES[BROKER_FILL]) == {broker_event_type(one) for one in ExecType}
