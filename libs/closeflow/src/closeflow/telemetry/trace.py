"""The `traceparent` header of W3C Trace Context, level 1, and the span in which a task is at work."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

_FORM: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED: Final = 0x01


@dataclass(frozen=True, slots=True)
class TraceContext:
    """One span of one trace: 32 and 16 lower-case hex digits, neither all zero."""

    trace_id: str
    span_id: str
    sampled: bool = True

    def header(self) -> str:
        """As `traceparent` writes it (W3C Trace Context, version 00)."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"

    def fields(self) -> dict[str, str]:
        """As a log line has them."""
        return {"trace_id": self.trace_id, "span_id": self.span_id}


_CURRENT: Final[ContextVar[TraceContext | None]] = ContextVar("trace", default=None)


def current_trace() -> TraceContext | None:
    """The span that the running task is at work in, where one is known; log lines carry it."""
    return _CURRENT.get()


@contextmanager
def in_trace(context: TraceContext | None) -> Iterator[None]:
    """What is logged inside is logged in that span, also by the tasks that are begun there."""
    token = _CURRENT.set(context)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def parse_traceparent(text: str | None) -> TraceContext | None:
    """None for a header that is missing or malformed: the receiver then starts a trace of its own (section 3.2.2)."""
    match = _FORM.fullmatch(text) if text else None
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    return TraceContext(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))


def trace_fields(traceparent: str | None) -> dict[str, str]:
    """`trace_id` and `span_id` of a log line about what belongs to this trace; nothing where it belongs to none."""
    context = parse_traceparent(traceparent)
    return {} if context is None else context.fields()


def next_span(parent: TraceContext | None, random_bytes: bytes) -> TraceContext:
    """A span below `parent`, or the first of a new trace. `random_bytes` are 24, read by the caller."""
    if len(random_bytes) != 24:
        raise ValueError(f"24 random bytes are needed, not {len(random_bytes)}")
    span_id = random_bytes[16:].hex()
    if parent is None:
        return TraceContext(random_bytes[:16].hex(), span_id)
    return TraceContext(parent.trace_id, span_id, parent.sampled)
