"""A record of aiokafka's, or of ours where aiokafka refuses it, as a use-case gets it: read, or as a dead letter."""

from __future__ import annotations

from typing import Any, TypeVar

from closeflow.contracts import ErrorClass, Undecodable, WireModel, decode
from closeflow.kafka.lenient import LenientRecord, record_time
from closeflow.kafka.records import DeadLetter, Record

M = TypeVar("M", bound=WireModel)


def read_record(model: type[M], found: Any) -> Record[M]:
    """The record with its value; raises Undecodable, also for what is around the value."""
    if isinstance(found, LenientRecord) and found.defect is not None:
        raise Undecodable(found.defect, ErrorClass.UNREADABLE_RECORD)
    value = decode(model, found.value, found.headers)
    try:
        timestamp = record_time(found.timestamp)
    except ValueError as error:
        raise Undecodable(str(error), ErrorClass.UNREADABLE_RECORD) from None
    return Record(
        topic=found.topic,
        partition=found.partition,
        offset=found.offset,
        key=found.key,
        value=value,
        raw=found.value,
        headers=tuple(found.headers),
        timestamp=timestamp,
    )


def unreadable(found: Any, error: Undecodable) -> DeadLetter:
    """What is kept of a record that could not be read."""
    return DeadLetter(
        topic=found.topic,
        partition=found.partition,
        offset=found.offset,
        key=found.key,
        raw=found.value,
        headers=tuple(found.headers),
        reason=error.reason,
        error_class=error.error_class,
    )
