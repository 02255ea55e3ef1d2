"""Spans on their way to a collector: sent as OTLP, dropped and counted while it is away, and nobody waits for it."""

from __future__ import annotations

import time

from prometheus_client import REGISTRY

from closeflow.telemetry import TraceContext, traced
from closeflow.telemetry.otlp import QUEUE, SpanSender
from closeflow.telemetry.spans import BatchOfSpans, Kind, Span, begin, is_tracing
from tests.tracing.collector import collecting

CALL = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")
QUIET = TraceContext("5bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", sampled=False)


def counted(outcome: str) -> float:
    return REGISTRY.get_sample_value("closeflow_spans_total", {"outcome": outcome}) or 0.0


def test_spans_come_to_the_collector_as_they_are() -> None:
    before = counted("exported")
    with collecting() as collector:
        with traced(collector.endpoint, "fill-processor", ratio=1.0):
            batch = BatchOfSpans("apply batch", kind=Kind.CONSUMER)
            batch.member("apply update", CALL, kind=Kind.CONSUMER, closeflow__attempt=1)
            batch.end()
            span = begin("send order", QUIET, kind=Kind.CLIENT)
            span.fail("Unanswered")
            span.end()
        assert not is_tracing()
        found = {one.name: one for one in collector.spans()}
    member, whole, failed = found["apply update"], found["apply batch"], found["send order"]
    assert (member.service, member.kind, member.parent_id) == ("fill-processor", "consumer", CALL.span_id)
    assert (member.trace_id, member.attributes) == (CALL.trace_id, {"closeflow.attempt": 1})
    assert member.links == [(whole.trace_id, whole.span_id)]
    assert whole.links == [(member.trace_id, member.span_id)]
    assert whole.parent_id == ""
    assert (failed.trace_id, failed.error, failed.kind) == (QUIET.trace_id, "Unanswered", "client")
    assert counted("exported") - before == 3


def test_a_collector_that_is_away_holds_nobody_up_and_what_is_lost_is_counted() -> None:
    dropped, failed = counted("dropped"), counted("failed")
    with collecting() as collector:
        collector.refuses = True
        sender = SpanSender(collector.endpoint, service="fill-processor", instance="one")
        began = time.monotonic()
        for number in range(2 * QUEUE):
            sender.send(Span(name="plan close", context=TraceContext(CALL.trace_id, f"{number + 1:016x}")))
        gave_s = time.monotonic() - began
        closing = time.monotonic()
        sender.close()
        closed_s = time.monotonic() - closing
    lost = counted("dropped") - dropped
    assert QUEUE // 2 < lost <= QUEUE
    assert counted("failed") - failed + lost <= 2 * QUEUE
    assert gave_s < 10, "an export may take five seconds, and there would be sixteen of them"
    assert closed_s < 10
