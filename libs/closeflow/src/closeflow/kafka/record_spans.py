"""What a record says of its trace: the span that it was written in, and how long it took to its place in a topic."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from closeflow.kafka.read_to_end import TailRecord
from closeflow.kafka.records import Headers, Record
from closeflow.telemetry.spans import BatchOfSpans, Kind, Value, between
from closeflow.telemetry.trace import TraceContext, parse_traceparent

OUTBOX_TO_KAFKA: Final = "outbox to Kafka"


def trace_of(headers: Headers) -> TraceContext | None:
    """The span that the record was written in; None where it names none."""
    value = header(headers, "traceparent")
    return None if value is None else parse_traceparent(value)


def header(headers: Headers, name: str) -> str | None:
    """The text of the header; None where it has none."""
    value = next((value for one, value in headers if one == name), None)
    return None if value is None else value.decode("latin-1")


def published(record: Record[Any] | TailRecord) -> TraceContext | None:
    """Tell how long an event took from its row in the outbox to the topic: only who reads it can know. Whoever tells it
    again tells the same span. Returns the span, or the one that the event was written in; None where it names none."""
    parent = trace_of(record.headers)
    written, at = header(record.headers, "ce_time"), record.timestamp
    if parent is None or written is None or at is None:
        return parent
    try:
        began = datetime.fromisoformat(written).astimezone(UTC)
    except ValueError:
        return parent
    attributes: dict[str, Value] = {**place(record), "closeflow.event.type": header(record.headers, "ce_type") or ""}
    return between(
        OUTBOX_TO_KAFKA, parent, began, at, identity=_identity(record), kind=Kind.PRODUCER, attributes=attributes
    )


def told(record: Record[Any], trace: TraceContext, heard: datetime, by: TraceContext | None) -> TraceContext:
    """The same for what the broker said, which is in no trace by itself: from the broker's time to the topic. `trace`
    is of the close that it is about, `by` the span of whoever published it, if that is of another trace."""
    links = () if by is None or by.trace_id == trace.trace_id else (by,)
    source = (header(record.headers, "ce_source") or "").removeprefix("/")
    attributes: dict[str, Value] = {**place(record), "closeflow.told_by": source}
    return between(
        "trade update",
        trace,
        heard,
        record.timestamp,
        identity=_identity(record),
        kind=Kind.PRODUCER,
        attributes=attributes,
        links=links,
    )


def place(record: Record[Any] | TailRecord) -> dict[str, Value]:
    """Where it lies, in the words of the semantic conventions of messaging."""
    return {
        "messaging.system": "kafka",
        "messaging.destination.name": record.topic,
        "messaging.destination.partition.id": str(record.partition),
        "messaging.kafka.offset": record.offset,
    }


def batch_of(name: str, topic: str) -> BatchOfSpans:
    """The span of a batch of records of the topic that is handled."""
    return BatchOfSpans(
        name,
        kind=Kind.CONSUMER,
        messaging__system="kafka",
        messaging__destination__name=topic,
        messaging__operation__name="process",
        messaging__operation__type="process",
    )


def _identity(record: Record[Any] | TailRecord) -> str:
    at = "" if record.timestamp is None else record.timestamp.isoformat()
    return f"{record.topic}/{record.partition}/{record.offset}/{at}"
