"""A collector of traces in this process: an OTLP receiver over HTTP that keeps every span that it is sent."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

_KINDS: Final = {
    Span.SPAN_KIND_INTERNAL: "internal",
    Span.SPAN_KIND_SERVER: "server",
    Span.SPAN_KIND_CLIENT: "client",
    Span.SPAN_KIND_PRODUCER: "producer",
    Span.SPAN_KIND_CONSUMER: "consumer",
}


@dataclass(frozen=True, slots=True)
class Received:
    """A span as it came; ids are hex digits, times nanoseconds."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: str
    started_ns: int
    ended_ns: int
    attributes: dict[str, object]
    links: list[tuple[str, str]]
    error: str | None


@dataclass(slots=True)
class Collector:
    """What came so far. A span that came twice is there once, as backends keep it."""

    port: int = 0
    refuses: bool = False
    """While true every export is answered 503."""
    _spans: dict[tuple[str, str], Received] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def spans(self) -> list[Received]:
        with self._lock:
            return list(self._spans.values())

    def trace(self, trace_id: str) -> list[Received]:
        """The spans of one trace in the order of time."""
        return sorted((one for one in self.spans() if one.trace_id == trace_id), key=lambda one: one.started_ns)

    def until(self, what: str, found: Callable[[], object], *, within_s: float = 30.0) -> None:
        deadline = time.monotonic() + within_s
        while not found():
            came = sorted({(one.service, one.name) for one in self.spans()})
            assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}; there came {came}"
            time.sleep(0.05)

    def take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        with self._lock:
            for resource in request.resource_spans:
                named = {one.key: one.value.string_value for one in resource.resource.attributes}
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        one = _received(named["service.name"], span)
                        self._spans[one.trace_id, one.span_id] = one


def _received(service: str, span: Span) -> Received:
    return Received(
        service=service,
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        kind=_KINDS[span.kind],
        started_ns=span.start_time_unix_nano,
        ended_ns=span.end_time_unix_nano,
        attributes={one.key: _value(one.value) for one in span.attributes},
        links=[(one.trace_id.hex(), one.span_id.hex()) for one in span.links],
        error=span.status.message if span.status.code == Status.STATUS_CODE_ERROR else None,
    )


def _value(value: AnyValue) -> object:
    name = value.WhichOneof("value")
    assert name is not None
    return getattr(value, name)


@contextmanager
def collecting() -> Iterator[Collector]:
    """Serve on a free port of this machine."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            known = self.path == "/v1/traces" and not collector.refuses
            if known:
                collector.take(body)
            self.send_response(200 if known else 503)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: what is wrong is seen in the spans."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    collector.port = server.server_address[1]
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    serving.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
