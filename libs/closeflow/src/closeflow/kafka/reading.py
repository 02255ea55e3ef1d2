"""A record of aiokafka's, or of ours where aiokafka refuses it, as a use-case gets it: read, or as a dead letter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from closeflow.contracts import ErrorClass, Undecodable, UnknownValue, WireModel, decode
from closeflow.kafka.lenient import LenientRecord, record_time
from closeflow.kafka.records import DeadLetter, Record

M = TypeVar("M", bound=WireModel)


@dataclass(slots=True)
class Sorted(Generic[M]):
    """A batch: what can be read, what goes to the dead letters, and what is to be parked instead."""

    readable: list[Record[M]] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    to_park: list[DeadLetter] = field(default_factory=list)
    counted: list[bool] = field(default_factory=list)
    """Of each record, whether it counts to the limit of dead letters: a newer writer is no reason to stop."""


def sort_out(model: type[M], batch: Iterable[Sequence[Any]], *, parks: bool) -> Sorted[M]:
    """Read the records. With `parks`, those that have a value of a newer writer are no dead letters."""
    found = Sorted[M]()
    for one in (one for records in batch for one in records):
        try:
            record = read_record(model, one)
        except Undecodable as error:
            newer = isinstance(error, UnknownValue)
            (found.to_park if newer and parks else found.letters).append(unreadable(one, error))
            found.counted.append(not newer)
        else:
            found.readable.append(record)
            found.counted.append(False)
    return found


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
