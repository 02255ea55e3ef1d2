"""Logs, metric names, trace context."""

from closeflow.telemetry.health_server import Readiness, always_ready, serve_health
from closeflow.telemetry.logs import LogFormat, configure_logging
from closeflow.telemetry.trace import (
    TraceContext,
    current_trace,
    in_trace,
    next_span,
    parse_traceparent,
    trace_fields,
)
from closeflow.telemetry.tracing import traced

__all__ = [
    "LogFormat",
    "Readiness",
    "TraceContext",
    "always_ready",
    "configure_logging",
    "current_trace",
    "in_trace",
    "next_span",
    "parse_traceparent",
    "serve_health",
    "trace_fields",
    "traced",
]
