"""Record headers: CloudEvents in binary mode."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest

from closeflow.contracts import BrokerFillV1, build_headers
from closeflow.contracts.cloudevents import parse_schema_name

EVENT = UUID("7d1c2b56-6b3a-5a43-9a51-0f0f2bd1d001")
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def _built(traceparent: str | None = None) -> list[tuple[str, bytes]]:
    return build_headers(
        BrokerFillV1,
        event_id=EVENT,
        event_type="BROKER_TRADE",
        source="/broker-gateway",
        time=datetime(2026, 3, 2, 14, 30, tzinfo=UTC),
        traceparent=traceparent,
    )


def test_headers_have_every_required_attribute_of_cloudevents() -> None:
    assert dict(_built()) == {
        "ce_id": str(EVENT).encode(),
        "ce_type": b"BROKER_TRADE",
        "ce_source": b"/broker-gateway",
        "ce_specversion": b"1.0",
        "ce_time": b"2026-03-02T14:30:00.000000Z",
        "ce_dataschema": b"urn:closeflow:broker-fill.v1",
        "content-type": b"application/json",
    }


def test_the_trace_goes_along() -> None:
    assert _built(TRACE) == [*_built(), ("traceparent", TRACE.encode())]


@pytest.mark.parametrize("raw", [b"", b"1", b"broker-fill", b"broker-fill.v", b"broker fill.v1", b"\xff.v1"])
def test_a_schema_name_needs_a_name_and_a_version(raw: bytes) -> None:
    assert parse_schema_name(raw) is None
