"""Record headers: CloudEvents 1.0 in Kafka's binary mode, and the W3C trace context."""

from __future__ import annotations

import re
from datetime import datetime
from functools import cache
from typing import Final
from uuid import UUID

from closeflow_released.contracts.wire import WireModel, format_time

SPEC_VERSION: Final = b"1.0"
_SCHEMA_NAME: Final = re.compile(rb"(?:[^\s]*[/:])?([a-z][a-z0-9-]{0,63})\.v([0-9]{1,6})(?:\.json)?")


@cache
def schema_version(model: type[WireModel]) -> str:
    """For the outbox column of that name and the schema's file, e.g. `submit-order.v1`."""
    return f"{model.SCHEMA}.v{model.VERSION}"


def schema_name(model: type[WireModel]) -> str:
    """For `ce_dataschema` and the schema's `$id`, e.g. `urn:closeflow:submit-order.v1`."""
    return f"urn:closeflow:{schema_version(model)}"


def parse_schema_name(raw: bytes) -> tuple[str, int] | None:
    """Name and major version of a schema, from a URI, a URN, a file name or the bare `name.vN`."""
    match = _SCHEMA_NAME.fullmatch(raw)
    return (match[1].decode(), int(match[2])) if match else None


def build_headers(
    model: type[WireModel],
    *,
    event_id: UUID,
    event_type: str,
    source: str,
    time: datetime,
    traceparent: str | None = None,
) -> list[tuple[str, bytes]]:
    """`source` is a URI reference of the producer, e.g. `/broker-gateway`."""
    headers = [
        ("ce_id", str(event_id).encode()),
        ("ce_type", event_type.encode()),
        ("ce_source", source.encode()),
        ("ce_specversion", SPEC_VERSION),
        ("ce_time", format_time(time).encode()),
        ("ce_dataschema", schema_name(model).encode()),
        ("content-type", b"application/json"),
    ]
    if traceparent is not None:
        headers.append(("traceparent", traceparent.encode()))
    return headers
