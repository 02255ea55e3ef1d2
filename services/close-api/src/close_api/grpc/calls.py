"""What every call shares: its trace, its caller, its time, and how it fails."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

import grpc
import structlog
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status
from prometheus_client import Counter

from close_api.auth.caller import Caller, Identity, Scope
from close_api.errors import Code, Problem
from close_api.grpc.requests import MAX_MESSAGE_BYTES, reader, refuse_unknown
from close_api.grpc.statuses import DETAILS_KEY, grpc_code, status_of
from closeflow.clock import timeout
from closeflow.tasks import end_tasks
from closeflow.telemetry import TraceContext, next_span, parse_traceparent

Context = grpc.aio.ServicerContext[Any, Any]
Request = TypeVar("Request", bound=Message)
Answer = TypeVar("Answer", bound=Message)
T = TypeVar("T")

LONGEST_CALL_S: Final = 60.0
"""Of a unary call, whatever its deadline; also of one without a deadline."""
TRACE_ID: Final = "trace-id"
STOPPING: Final = "The service is stopping; send the rest to another instance, with the same keys."
CALLS: Final = Counter(
    "close_api_grpc_calls_total", "Calls over gRPC, by method and by how they ended", ["method", "answer"]
)

log = structlog.get_logger(__name__)


class Rate(Protocol):
    """What is left of a caller's allowance."""

    def headers(self) -> Mapping[str, str]:
        """`ratelimit-policy` and `ratelimit`."""
        ...


class Rates(Protocol):
    """How much callers may ask for."""

    def take(self, subject: str, closes: int) -> Rate:
        """Count the closes. Raises Problem `rate_limited`."""
        ...


class Refused(Exception):
    """A problem of the whole call, with other words than its code has."""

    def __init__(self, problem: Problem, message: str) -> None:
        super().__init__(message)
        self.problem = problem
        self.message = message


def stopping() -> Refused:
    """How a call ends that the service ends because it stops itself."""
    return Refused(Problem(Code.UNAVAILABLE), STOPPING)


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
        self.trace = next_span(parse_traceparent(traceparent), os.urandom(24))
        self.trailers: list[tuple[str, str | bytes]] = [(TRACE_ID, self.trace.trace_id)]

    def child(self) -> TraceContext:
        """A span of its own below the caller's, for a part of a stream."""
        return next_span(self.trace, os.urandom(24))

    def within_s(self) -> float:
        """What is left of the call's deadline, at most the longest that a call may take."""
        left = self.context.time_remaining()
        return LONGEST_CALL_S if left is None else min(max(left, 0.0), LONGEST_CALL_S)

    async def caller(self, identity: Identity) -> Caller:
        """Who calls, by the one `authorization` of the metadata. Raises Problem `unauthenticated`."""
        if len(self._authorization) > 1:
            raise Problem(Code.UNAUTHENTICATED)
        return await identity.caller(self._authorization[0] if self._authorization else None)

    async def abort(self, status: Status, code: grpc.StatusCode) -> None:
        """End the call with an error and its details. Always raises: what ends the handler."""
        self.trailers.append((DETAILS_KEY, status.SerializeToString(deterministic=True)))
        await self.context.abort(code, status.message, tuple(self.trailers))


@dataclass(frozen=True, slots=True)
class Door:
    """Who may come in, and how often; `stop` is set when the service begins to stop."""

    identity: Identity
    rates: Rates
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def admit(self, call: Call, scope: Scope, *, closes: int = 0) -> Caller:
        """The caller, after counting what is asked for; the answer tells how much is left. Raises Problem."""
        caller = await call.caller(self.identity)
        call.trailers += self.rates.take(caller.subject, closes).headers().items()
        caller.require(scope)
        return caller


async def race(awaited: Awaitable[T], stop: asyncio.Event) -> T | None:
    """What is awaited, or None where the service stops before; what is awaited has then been cancelled."""
    waiting, stopped = asyncio.ensure_future(awaited), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((waiting, stopped), return_when=asyncio.FIRST_COMPLETED)
        return waiting.result() if waiting.done() else None
    finally:
        stopped.cancel()
        await end_tasks((waiting,))


def unary(
    name: str, request: type[Request], serve: Callable[[Call, Request], Awaitable[Answer]]
) -> grpc.RpcMethodHandler[Any, Any]:
    """A method of one message and one answer. `serve` raises Problem, or its CancelledError when the call ends before:
    what it has handed on then goes on."""

    async def answer(message: Request | Problem, context: Context) -> Answer:
        call = Call(context)

        async def work() -> Answer:
            async with timeout(call.within_s()):
                return await serve(call, _readable(message))

        found = await _guarded(name, call, work())
        context.set_trailing_metadata(tuple(call.trailers))
        return found

    return grpc.unary_unary_rpc_method_handler(
        answer, request_deserializer=reader(request), response_serializer=_serialize
    )


def server_stream(
    name: str, request: type[Request], serve: Callable[[Call, Request], Awaitable[None]]
) -> grpc.RpcMethodHandler[Any, Any]:
    """A method of one message whose `serve` writes the answers to the call's context."""

    async def answer(message: Request | Problem, context: Context) -> None:
        call = Call(context)

        async def work() -> None:
            await serve(call, _readable(message))

        await _guarded(name, call, work())
        context.set_trailing_metadata(tuple(call.trailers))

    return grpc.unary_stream_rpc_method_handler(
        answer, request_deserializer=reader(request), response_serializer=_serialize
    )


def both_streams(
    name: str, request: type[Request], serve: Callable[[Call], Awaitable[None]], *, at_most: int = MAX_MESSAGE_BYTES
) -> grpc.RpcMethodHandler[Any, Any]:
    """A method whose `serve` reads messages, which may be a Problem, and writes answers by the call's context."""

    async def answer(_messages: AsyncIterator[Request | Problem], context: Context) -> None:
        call = Call(context)
        await _guarded(name, call, serve(call))
        context.set_trailing_metadata(tuple(call.trailers))

    return grpc.stream_stream_rpc_method_handler(
        answer, request_deserializer=reader(request, at_most=at_most), response_serializer=_serialize
    )


async def _guarded(name: str, call: Call, work: Awaitable[T]) -> T:
    """The work's result; whatever it raises becomes the call's error, and nothing of the inside goes out with it."""
    message: str | None = None
    try:
        found = await work
    except Refused as refused:
        problem, message = refused.problem, refused.message
    except Problem as raised:
        problem = raised
    except TimeoutError:
        problem = Problem(Code.UNAVAILABLE)
    except Exception as error:
        log.error("call_failed", trace_id=call.trace.trace_id, method=name, exc_info=error)
        problem = Problem(Code.INTERNAL_ERROR)
    else:
        CALLS.labels(name, "ok").inc()
        return found
    CALLS.labels(name, problem.code.value).inc()
    await call.abort(status_of(problem, call.trace.trace_id, message=message), grpc_code(problem.code))
    raise AssertionError("abort raises")


def _readable(message: Request | Problem) -> Request:
    if isinstance(message, Problem):
        raise message
    refuse_unknown(message)
    return message


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
