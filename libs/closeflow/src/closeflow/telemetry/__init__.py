"""Logs, metric names, trace context."""

from closeflow.telemetry.health_server import Readiness, always_ready, serve_health
from closeflow.telemetry.logs import LogFormat, configure_logging
from closeflow.telemetry.trace import TraceContext, next_span, parse_traceparent

__all__ = [
    "LogFormat",
    "Readiness",
    "TraceContext",
    "always_ready",
    "configure_logging",
    "next_span",
    "parse_traceparent",
    "serve_health",
]
