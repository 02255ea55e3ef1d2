"""The headers of our records and the words in them, each with what it means; the reference pages are made of this."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from closeflow.contracts.codec import ErrorClass
from closeflow.contracts.event_types import CE_TIME, EVENT_TYPES
from closeflow.contracts.topics import EXECUTION_EVENTS, POSITION_EVENTS, SUBMIT_ORDER

CLOUDEVENTS: Final[Mapping[str, str]] = {
    "ce_id": "The event's id, a UUID. It is made of what the event is about: published again, it has the same one.",
    "ce_type": "What happened; the values are listed below.",
    "ce_source": "Who says it, a URI reference such as `/closeflow/outbox` or `/broker-gateway`.",
    "ce_specversion": "The version of CloudEvents, `1.0`.",
    "ce_time": f"{CE_TIME} RFC 3339 in UTC.",
    "ce_dataschema": "The schema of the value with its major version, such as `urn:closeflow:position-event.v1`.",
    "content-type": "Always `application/json`.",
    "traceparent": "The trace that it belongs to (W3C Trace Context). Without a value where there is none.",
}
"""Of every record of ours: CloudEvents 1.0 in Kafka's binary mode, and the trace."""
OUTBOX: Final[Mapping[str, str]] = {
    "id": "The same as `ce_id`; Debezium's EventRouter adds it.",
    "close_request_id": "The close request that it is about. Without a value where there is none.",
    "attempt": "The attempt of that request. Without a value where there is none.",
    "emission": "How often the event has been published, from 1; higher where it was published again.",
    "position_version": "The version of the position that the event leads to. Without a value where it leads to none.",
}
"""Besides those, of the topics that are published from the outbox."""
DEAD_LETTERS: Final[Mapping[str, str]] = {
    "dlq_origin_topic": "The topic that the record was read from.",
    "dlq_origin_partition": "Its partition there.",
    "dlq_origin_offset": "Its offset there.",
    "dlq_consumer_group": "The consumer group that put it aside.",
    "dlq_error_class": "Why, in one word; the values are listed below.",
    "dlq_reason": "Why, in a sentence that names the fields.",
    "dlq_attempts": "How often it was put aside, from 1.",
    "dlq_first_seen": "When it was put aside for the first time, RFC 3339 in UTC.",
    "dlq_replays": "How often an operator put it back to its topic. Not there before the first time.",
}
"""Added to the headers of the original on a dead letter topic."""
PARKED_SINCE: Final = "closeflow-parked-since"
"""Of a record that was parked because its reader did not know a value: when that was the first time, RFC 3339 in UTC.
It comes back to its topic with the record, so that a reader which parks it again knows how long it has been waiting."""
ERROR_CLASSES: Final[Mapping[ErrorClass, str]] = {
    ErrorClass.NULL_VALUE: "The record has no value.",
    ErrorClass.TOO_LARGE: "The value is larger than readers accept.",
    ErrorClass.BAD_ENCODING: "The value is not UTF-8.",
    ErrorClass.BAD_JSON: "The value is no JSON.",
    ErrorClass.WRONG_SCHEMA: "`ce_dataschema` names another schema than the topic's.",
    ErrorClass.WRONG_VERSION: "`ce_dataschema` names a major version that this reader does not know.",
    ErrorClass.MISSING_FIELD: "A required field is not there.",
    ErrorClass.BAD_VALUE: "A field has a value that it cannot have, or fields contradict each other.",
    ErrorClass.UNKNOWN_VALUE: "An enum has a value of a newer writer; it can be read once the reader is newer. Readers"
    " of closeflow park such a record instead, and apply it then.",
    ErrorClass.UNREADABLE_RECORD: "What Kafka keeps around the value is damaged: its time, a header's name, its batch.",
    ErrorClass.CONTRADICTION: "It can be read, but is not true of the order that it names.",
}


def headers_of(topic: str) -> dict[str, str]:
    """Every header of a topic that is not one of dead letters, with its meaning."""
    return {**CLOUDEVENTS, **(OUTBOX if topic in _FROM_OUTBOX else {})}


def event_types_of(topic: str) -> Mapping[str, str]:
    """The values of `ce_type` on a topic, each with its meaning."""
    return EVENT_TYPES[topic]


_FROM_OUTBOX: Final = frozenset({SUBMIT_ORDER, POSITION_EVENTS, EXECUTION_EVENTS})
