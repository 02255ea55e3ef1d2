"""Spans of a close's trace: begun and ended here, and sent to a collector where tracing is switched on.

Off, which is the default, nothing is measured or kept, and a span's context is its parent's. A span of a trace that is
not sampled is kept too where it tells an error or an incident. Attributes and span names are of OpenTelemetry's
semantic conventions, or begin with `closeflow.`; neither accounts nor symbols are among them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from hashlib import blake2b
from os import urandom
from typing import Final

from closeflow.telemetry.trace import TraceContext, next_span, parse_traceparent

Value = str | int | float | bool
_ID_BITS: Final = 64
_NOWHERE: Final = TraceContext("0" * 32, "0" * 16, sampled=False)


class Kind(Enum):
    """The kinds of OpenTelemetry."""

    INTERNAL = "internal"
    SERVER = "server"
    CLIENT = "client"
    PRODUCER = "producer"
    CONSUMER = "consumer"


@dataclass(slots=True, kw_only=True)
class Span:
    """One piece of work; times are nanoseconds since 1970 by the host's clock. Change it until `end`."""

    name: str
    context: TraceContext
    parent: TraceContext | None = None
    kind: Kind = Kind.INTERNAL
    started_ns: int = field(default_factory=time.time_ns)
    ended_ns: int = 0
    attributes: dict[str, Value] = field(default_factory=dict)
    links: list[TraceContext] = field(default_factory=list)
    error: str | None = None
    """What went wrong, in a few words of ours; a span with one is kept whatever was sampled."""

    def fail(self, why: str) -> None:
        """What went wrong first stays."""
        self.error = self.error or why

    def end(self, *, at_ns: int | None = None) -> None:
        """Hand it over, once; it must not be changed after that."""
        send = _switch.send
        if send is not None and (self.context.sampled or self.error is not None):
            self.ended_ns = max(self.started_ns, time.time_ns() if at_ns is None else at_ns)
            send(self)


@dataclass(slots=True)
class _Switch:
    send: Callable[[Span], None] | None = None
    ratio: float = 1.0


_switch: Final = _Switch()


def switch_on(send: Callable[[Span], None], *, ratio: float) -> None:
    """Give every finished span to `send`, which neither blocks nor raises. Of the traces that begin here the share
    `ratio` is sampled; others are as their parent says."""
    _switch.send, _switch.ratio = send, ratio


def switch_off() -> None:
    """As at the start of a process."""
    _switch.send, _switch.ratio = None, 1.0


def is_tracing() -> bool:
    """Whether spans go anywhere: what is only done for them need not be done otherwise."""
    return _switch.send is not None


def new_context(parent: TraceContext | None) -> TraceContext:
    """A span's below the parent, or of a new trace, which is sampled by its id."""
    context = next_span(parent, urandom(24))
    if parent is None and _switch.ratio < 1 and int(context.trace_id[16:], 16) >= _switch.ratio * 2**_ID_BITS:
        return TraceContext(context.trace_id, context.span_id, sampled=False)
    return context


def begin(name: str, parent: TraceContext | str | None, *, kind: Kind = Kind.INTERNAL, **attributes: Value) -> Span:
    """A span that begins now. Of the attributes' names `__` stands for a dot. Off, it is of no use but for its context,
    which is the parent's, or of no trace."""
    above = parse_traceparent(parent) if isinstance(parent, str) else parent
    if _switch.send is None:
        return Span(name=name, context=above or _NOWHERE, kind=kind, started_ns=0)
    named: dict[str, Value] = {one.replace("__", "."): value for one, value in attributes.items()}
    return Span(name=name, context=new_context(above), parent=above, kind=kind, attributes=named)


def between(
    name: str,
    parent: TraceContext,
    began: datetime,
    ended: datetime,
    *,
    identity: str,
    kind: Kind = Kind.INTERNAL,
    attributes: dict[str, Value] | None = None,
    links: Iterable[TraceContext] = (),
) -> TraceContext:
    """A span whose times somebody else wrote down, ended at once; returns its context. The same `identity` gives the
    same span, so that whoever sees it again, after a crash for example, tells nothing new."""
    if _switch.send is None:
        return parent
    span_id = blake2b(f"{name}/{identity}".encode(), digest_size=8).hexdigest()
    context = TraceContext(parent.trace_id, span_id, parent.sampled)
    span = Span(
        name=name,
        context=context,
        parent=parent,
        kind=kind,
        started_ns=_nanoseconds(began),
        attributes=attributes or {},
        links=[*links],
    )
    span.end(at_ns=_nanoseconds(ended))
    return context


def _nanoseconds(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000) * 1000


class BatchOfSpans:
    """One piece of work on many closes: a trace of its own, linked to the span of each member, and they to it. It is
    sampled where one of its members is. Off, nothing is kept."""

    def __init__(self, name: str, *, kind: Kind = Kind.INTERNAL, **attributes: Value) -> None:
        self._span = begin(name, None, kind=kind, **attributes) if is_tracing() else None
        self._members: list[Span] = []

    def member(
        self, name: str, parent: TraceContext | str | None, *, kind: Kind = Kind.INTERNAL, **attributes: Value
    ) -> Span:
        """The batch's span in a close's own trace; its caller ends it, or `end` does."""
        span = begin(name, parent, kind=kind, **attributes)
        if self._span is not None:
            span.started_ns = self._span.started_ns
            span.links.append(self._span.context)
            self._members.append(span)
        return span

    def end(self, error: str | None = None) -> None:
        """End it and its members; an error is of them all."""
        if self._span is None:
            return
        kept = []
        for member in self._members:
            if error is not None:
                member.fail(error)
            if member.context.sampled or member.error is not None:
                kept.append(member.context)
                member.end()
        if kept:
            context = self._span.context
            self._span.context = TraceContext(context.trace_id, context.span_id)
            self._span.links = kept
            self._span.attributes["closeflow.batch.size"] = len(self._members)
            if error is not None:
                self._span.fail(error)
            self._span.end()
