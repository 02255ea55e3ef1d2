"""The traceparent header, with the cases of W3C Trace Context section 3.2."""

from __future__ import annotations

import pytest

from closeflow.telemetry import TraceContext, next_span, parse_traceparent

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("header", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like", True),
    ],
)
def test_a_valid_header_is_read(header: str, sampled: bool) -> None:
    assert parse_traceparent(header) == TraceContext(TRACE, SPAN, sampled)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
    ],
)
def test_a_malformed_header_is_as_good_as_none(header: str | None) -> None:
    assert parse_traceparent(header) is None


def test_the_next_span_stays_in_its_trace_and_keeps_the_sampling() -> None:
    parent = TraceContext(TRACE, SPAN, sampled=False)
    child = next_span(parent, bytes(range(24)))
    assert (child.trace_id, child.sampled) == (TRACE, False)
    assert child.span_id == bytes(range(16, 24)).hex()
    assert parse_traceparent(child.header()) == child


def test_without_a_parent_a_trace_begins() -> None:
    assert next_span(None, bytes(range(24))).trace_id == bytes(range(16)).hex()
    with pytest.raises(ValueError):
        next_span(None, b"too few")
