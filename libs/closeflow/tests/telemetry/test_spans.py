"""Spans: off they cost nothing and change nothing; on they are sampled by their trace, and errors are always kept."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from closeflow.telemetry import TraceContext, configure_logging, in_trace
from closeflow.telemetry.logs import LogFormat
from closeflow.telemetry.spans import BatchOfSpans, Kind, Span, begin, between, is_tracing, switch_off, switch_on

CALL = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")
QUIET = TraceContext("5bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", sampled=False)
AT = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)


@pytest.fixture
def sent() -> Iterator[list[Span]]:
    found: list[Span] = []
    switch_on(found.append, ratio=1.0)
    yield found
    switch_off()


def test_off_a_span_is_its_parent_and_goes_nowhere() -> None:
    span = begin("plan close", CALL.header(), kind=Kind.CONSUMER)
    span.end()
    assert not is_tracing()
    assert span.context == CALL
    assert between("outbox to Kafka", CALL, AT, AT, identity="a") == CALL
    batch = BatchOfSpans("plan batch")
    assert batch.member("plan close", CALL).context == CALL
    batch.end()


def test_off_no_sdk_and_no_exporter_is_imported() -> None:
    """They cost as much as the rest of a service's start. OpenTelemetry's interface comes with FastAPI."""
    names = "close_api", "order_submitter", "fill_processor", "broker_gateway", "reconciler"
    heavy = ("opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.proto", "requests")
    modules = ", ".join(f"{name}.__main__" for name in names)
    said = f"import sys, {modules}; print([one for one in sys.modules if one.startswith({heavy})])"
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_span_is_below_its_parent_with_what_is_said_of_it(sent: list[Span]) -> None:
    span = begin("send order", CALL, kind=Kind.CLIENT, closeflow__attempt=2)
    span.end()
    (one,) = sent
    assert (one.context.trace_id, one.parent, one.kind) == (CALL.trace_id, CALL, Kind.CLIENT)
    assert one.context.span_id != CALL.span_id
    assert one.attributes == {"closeflow.attempt": 2}
    assert one.started_ns <= one.ended_ns


def test_what_is_not_sampled_is_kept_only_with_an_error(sent: list[Span]) -> None:
    begin("plan close", QUIET).end()
    assert sent == []
    span = begin("plan close", QUIET)
    span.fail("incident gap")
    span.fail("another")
    span.end()
    assert [(one.context.trace_id, one.error) for one in sent] == [(QUIET.trace_id, "incident gap")]


@pytest.mark.parametrize(("ratio", "expected"), [(0.0, 0), (0.25, 250), (1.0, 1000)])
def test_the_share_of_new_traces_that_is_sampled(ratio: float, expected: int) -> None:
    switch_on(lambda _: None, ratio=ratio)
    try:
        sampled = sum(begin("POST", None).context.sampled for _ in range(1000))
        of_sampled = [begin("plan", CALL).context.sampled for _ in range(10)]
    finally:
        switch_off()
    assert sampled == pytest.approx(expected, abs=100 if 0 < ratio < 1 else 0)
    assert all(of_sampled), "whoever called has decided"


def test_a_span_that_is_told_again_is_the_same(sent: list[Span]) -> None:
    first, again = (
        between("outbox to Kafka", CALL, AT, AT + timedelta(milliseconds=12), identity="submit-order/0/7")
        for _ in range(2)
    )
    other = between("outbox to Kafka", CALL, AT, AT, identity="submit-order/0/8")
    assert first == again != other
    assert sent[0].ended_ns - sent[0].started_ns == 12_000_000
    before = between("outbox to Kafka", CALL, AT, AT - timedelta(seconds=1), identity="submit-order/0/9")
    assert before.trace_id == CALL.trace_id
    assert sent[-1].ended_ns == sent[-1].started_ns, "two clocks may disagree; no span ends before it begins"


def test_a_batch_is_a_trace_of_its_own_linked_to_its_members_and_they_to_it(sent: list[Span]) -> None:
    batch = BatchOfSpans("plan batch", kind=Kind.CONSUMER)
    kept, quiet, failed = (batch.member("plan close", parent) for parent in (CALL, QUIET, QUIET))
    failed.fail("incident poison")
    batch.end()
    whole = sent[-1]
    assert [one.name for one in sent] == ["plan close", "plan close", "plan batch"]
    assert (whole.parent, whole.context.sampled, whole.attributes) == (None, True, {"closeflow.batch.size": 3})
    assert whole.links == [kept.context, failed.context]
    assert [one.span_id for one in kept.links] == [whole.context.span_id]
    assert quiet.ended_ns == 0


def test_a_batch_of_nothing_that_is_sampled_is_not_kept(sent: list[Span]) -> None:
    batch = BatchOfSpans("plan batch")
    batch.member("plan close", QUIET)
    batch.end()
    assert sent == []


def test_log_lines_carry_the_span_also_without_tracing(capfd: pytest.CaptureFixture[str]) -> None:
    import structlog

    configure_logging(LogFormat.JSON, "fill-processor")
    log = structlog.get_logger("test")
    with in_trace(CALL):
        log.info("inside")
        log.info("named", trace_id="given")
    log.info("outside")
    inside, named, outside = map(json.loads, capfd.readouterr().err.splitlines())
    assert (inside["trace_id"], inside["span_id"]) == (CALL.trace_id, CALL.span_id)
    assert named["trace_id"] == "given"
    assert "trace_id" not in outside
