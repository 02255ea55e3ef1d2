"""Spans → a collector, by OTLP over HTTP with OpenTelemetry's exporter: the only module that knows OpenTelemetry.

It is imported where tracing is switched on, and nowhere else: the import costs as much as the rest of a start.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Final

import requests
import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from closeflow.telemetry.metrics import SPANS
from closeflow.telemetry.spans import Kind, Span
from closeflow.telemetry.trace import TraceContext

QUEUE: Final = 8192
"""Spans that wait for the collector; what comes beyond it is dropped, and counted."""
BATCH: Final = 512
EVERY_MS: Final = 1000
WITHIN_S: Final = 5.0
"""Of one export with its repeats."""
LAST_WITHIN_S: Final = 2.0
"""What is left at the end of the process has so long."""
_PATH: Final = "/v1/traces"
_KINDS: Final = {
    Kind.INTERNAL: SpanKind.INTERNAL,
    Kind.SERVER: SpanKind.SERVER,
    Kind.CLIENT: SpanKind.CLIENT,
    Kind.PRODUCER: SpanKind.PRODUCER,
    Kind.CONSUMER: SpanKind.CONSUMER,
}
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_UNSET: Final = Status(StatusCode.UNSET)
_SCOPE: Final = InstrumentationScope("closeflow")

log = structlog.get_logger(__name__)


class SpanSender:
    """Hands spans to a thread that exports them: `send` never waits, and nothing that goes wrong there is raised."""

    def __init__(self, endpoint: str, *, service: str, instance: str) -> None:
        """`endpoint` is the collector's address, with or without `/v1/traces`."""
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # `_Counted` says it once, not for each batch.
        self._resource = Resource(
            {"service.name": service, "service.namespace": "closeflow", "service.instance.id": instance}
        )
        session = requests.Session()
        session.trust_env = False  # Proxies from the environment would be settings that nobody sees.
        url = endpoint.rstrip("/")
        url = url if url.endswith(_PATH) else url + _PATH
        self._exporter = _Counted(OTLPSpanExporter(url, timeout=WITHIN_S, session=session), url)
        self._processor = BatchSpanProcessor(
            self._exporter, max_queue_size=QUEUE, schedule_delay_millis=EVERY_MS, max_export_batch_size=BATCH
        )
        self._given = 0

    def send(self, span: Span) -> None:
        """Queue it, or drop it where the queue is full."""
        if self._given - self._exporter.taken >= QUEUE:
            SPANS.labels("dropped").inc()
            return
        self._given += 1
        self._processor.on_end(self._readable(span))

    def close(self) -> None:
        """Export what is left, as far as that takes no longer than `LAST_WITHIN_S`."""
        cut_off = threading.Timer(LAST_WITHIN_S, self._exporter.shutdown)
        cut_off.daemon = True
        cut_off.start()
        self._processor.shutdown()  # type: ignore[no-untyped-call]
        cut_off.cancel()

    def _readable(self, span: Span) -> ReadableSpan:
        # Not by a Tracer: that samples at the begin of a span, when it is not known yet whether it tells an error, and
        # costs five times as much.
        return ReadableSpan(
            name=span.name,
            context=_context(span.context),
            parent=None if span.parent is None else _context(span.parent),
            resource=self._resource,
            attributes=span.attributes,
            links=[Link(_context(one)) for one in span.links],
            kind=_KINDS[span.kind],
            status=_UNSET if span.error is None else Status(StatusCode.ERROR, span.error),
            start_time=span.started_ns,
            end_time=span.ended_ns,
            instrumentation_scope=_SCOPE,
        )


class _Counted(SpanExporter):
    """The exporter, with what became of the spans counted, and one line when the collector goes away and comes back."""

    def __init__(self, exporter: OTLPSpanExporter, url: str) -> None:
        self.taken = 0
        self._url = url
        self._exporter = exporter
        self._away = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        result = self._exporter.export(spans)
        away = result is not SpanExportResult.SUCCESS
        SPANS.labels("failed" if away else "exported").inc(len(spans))
        if away is not self._away:
            self._away = away
            log.warning("spans_not_exported" if away else "spans_exported_again", endpoint=self._url)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call]


def _context(context: TraceContext) -> SpanContext:
    """What is sent is sampled, for the collector's sake: also an error's span of a trace that is not."""
    return SpanContext(int(context.trace_id, 16), int(context.span_id, 16), is_remote=False, trace_flags=_SAMPLED)
