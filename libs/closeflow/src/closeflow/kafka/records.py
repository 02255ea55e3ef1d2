"""What the consume loop hands out and takes back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from closeflow.contracts import ErrorClass, WireModel

M = TypeVar("M", bound=WireModel)

Headers = tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record(Generic[M]):
    """One record that could be read. `timestamp` is the record's own, set by its producer or by the broker."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: M
    raw: bytes
    headers: Headers
    timestamp: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """One record on its way to the dead letter topic, with its original bytes."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    raw: bytes | None
    headers: Headers
    reason: str
    error_class: ErrorClass


@dataclass(frozen=True, slots=True)
class Rejected(Generic[M]):
    """Said by a use-case of a record it was given: it can be read but must not be applied, so dead-letter it."""

    record: Record[M]
    reason: str
    error_class: ErrorClass = ErrorClass.CONTRADICTION

    def dead_letter(self) -> DeadLetter:
        """The record byte for byte, with why it was refused."""
        record = self.record
        return DeadLetter(
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            key=record.key,
            raw=record.raw,
            headers=record.headers,
            reason=self.reason,
            error_class=self.error_class,
        )
