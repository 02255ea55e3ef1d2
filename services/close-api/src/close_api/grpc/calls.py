"""What every call shares: its trace, its caller, its time, and how it fails."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status

from close_api.auth.caller import Caller, Identity, Scope
from close_api.auth.rate_limit import RateLimits
from close_api.errors import Code, Problem
from close_api.grpc.statuses import DETAILS_KEY
from closeflow.clock import timeout
from closeflow.telemetry import parse_traceparent
from closeflow.telemetry.spans import Kind, Span, begin, is_tracing, new_context

_OURS: Final = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
"""Ends that are errors of the server, as the semantic conventions of RPC have them."""
Context = grpc.aio.ServicerContext[Any, Any]
T = TypeVar("T")

LONGEST_CALL_S: Final = 60.0
"""Of a call with one answer, whatever its deadline; also of one without a deadline."""
TRACE_ID: Final = "trace-id"
STOPPING: Final = "The service is stopping; go on with another instance: what was not answered, with the same keys."
AGED: Final = "The stream is at its longest; go on with another one: what was not answered, with the same keys."
UNREAD: Final = "The answers of this stream are not read; read them while they come."


class Refused(Exception):
    """A problem of the whole call, with other words than its code has."""

    def __init__(self, problem: Problem, message: str) -> None:
        super().__init__(message)
        self.problem = problem
        self.message = message


def without_frames(problem: Problem) -> Problem:
    """The problem without where it was raised: the frames lead to the call, which must not wait for the collector
    (see `Call.end`)."""
    problem.__traceback__ = problem.__context__ = problem.__cause__ = None
    return problem


def ended(why: str) -> Refused:
    """How a stream ends that its caller did not end."""
    return Refused(Problem(Code.UNAVAILABLE), why)


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """`idle_s` bounds the wait for the caller's next message, and for an answer to be taken; `age_s` the stream."""

    idle_s: float = 60.0
    age_s: float = 600.0


class Call:
    """One call. `trailers` go with its answer, whatever that will be."""

    def __init__(self, context: Context) -> None:
        traceparent: str | None = None
        self._authorization: list[str] = []
        for name, value in context.invocation_metadata() or ():
            if name == "authorization":
                self._authorization.append(str(value))
            elif name == "traceparent" and traceparent is None:
                traceparent = str(value)
        self.context = context
        caller = parse_traceparent(traceparent)
        self.trace = new_context(caller)
        self._span = Span(name="", context=self.trace, parent=caller, kind=Kind.SERVER) if is_tracing() else None
        self.trailers: list[tuple[str, str | bytes]] = [(TRACE_ID, self.trace.trace_id)]

    def part(self) -> Span:
        """A span of its own below the call's, for a part of a stream; whoever asks for it ends it."""
        return begin("close positions", self.trace)

    def end_span(self, method: str, code: grpc.StatusCode) -> None:
        """Say in the call's trace how it ended."""
        span = self._span
        if span is None:
            return
        span.name = method
        span.attributes = {
            "rpc.system.name": "grpc",
            "rpc.method": method,
            "rpc.response.status_code": code.name,
        }
        if code in _OURS:
            span.fail(f"answered {code.name}")
        span.end()

    def left_s(self) -> float:
        """What is left of the call's deadline, at most the longest that a call may take. At its deadline the server
        cancels the call by itself."""
        left = self.context.time_remaining()
        return LONGEST_CALL_S if left is None else min(max(left, 0.0), LONGEST_CALL_S)

    async def caller(self, identity: Identity) -> Caller:
        """Who calls, by the one `authorization` of the metadata. Raises Problem `unauthenticated`."""
        if len(self._authorization) > 1:
            raise Problem(Code.UNAUTHENTICATED)
        return await identity.caller(self._authorization[0] if self._authorization else None)

    async def write(self, answer: Message, *, within_s: float) -> None:
        """Send one answer of a stream. Raises Refused when the caller does not take it in time."""
        try:
            async with timeout(within_s):
                await self.context.write(answer)
        except TimeoutError:
            raise ended(UNREAD) from None

    def end(self, status: Status | None = None, code: grpc.StatusCode = grpc.StatusCode.OK) -> None:
        """Say how the call ends, before its method returns. Nothing is raised: an exception that the library keeps with
        the call would keep the call too, and its stream would count until the collector finds it."""
        if status is not None:
            self.trailers.append((DETAILS_KEY, status.SerializeToString(deterministic=True)))
            self.context.set_code(code)
            self.context.set_details(status.message)
        self.context.set_trailing_metadata(tuple(self.trailers))


@dataclass(frozen=True, slots=True)
class Door:
    """Who may come in, and how often; `stop` is set when the service is asked to stop."""

    identity: Identity
    rates: RateLimits
    stop: asyncio.Event

    async def admit(self, call: Call, scope: Scope, *, closes: int = 0) -> Caller:
        """The caller, after counting what is asked for; the answer tells how much is left. Raises Problem."""
        caller = await call.caller(self.identity)
        call.trailers += self.rates.take(caller.subject, closes).headers().items()
        caller.require(scope)
        return caller
