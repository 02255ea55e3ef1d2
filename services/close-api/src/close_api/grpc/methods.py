"""Methods as the server calls them: messages are read, one by one, and whatever goes wrong becomes the call's error.

Every method is a stream to the server, also where a caller sends one message, which is the same on the wire: it would
leave a call open whose message does not come whole, and pass over a second one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeAlias, TypeVar

import grpc
import structlog
from google.protobuf.message import Message

from close_api.errors import Code, Problem
from close_api.grpc.calls import LONGEST_CALL_S, Call, Context, Refused, without_frames
from close_api.grpc.requests import MAX_MESSAGE_BYTES, reader, refuse_unknown
from close_api.grpc.statuses import grpc_code, status_of
from closeflow.clock import timeout
from closeflow.telemetry import in_trace
from closeflow.telemetry.metrics import counter

Request = TypeVar("Request", bound=Message)
Answer = TypeVar("Answer", bound=Message)
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
T = TypeVar("T")

CALLS: Final = counter("close_api_grpc_calls_total")
_RATE: Final = "ratelimit"
"""Headers of REST that are trailers here as well: `ratelimit` and `ratelimit-policy`."""

log = structlog.get_logger(__name__)


def one_answer(
    name: str, request: type[Request], serve: Callable[[Call, Request], Awaitable[Answer]], *, read_within_s: float
) -> Handler:
    """One message, one answer. `serve` raises Problem; it is cancelled when the call ends before, and what it has
    handed on then goes on."""

    async def work(call: Call) -> Answer:
        async with timeout(LONGEST_CALL_S):
            return await serve(call, await _only_message(call.context, read_within_s))

    async def answer(_messages: AsyncIterator[Any], context: Context) -> Answer | None:
        return await _ended(name, Call(context), work)

    return grpc.stream_unary_rpc_method_handler(
        answer, request_deserializer=reader(request), response_serializer=_serialize
    )


def many_answers(
    name: str, request: type[Request], serve: Callable[[Call, Request], Awaitable[None]], *, read_within_s: float
) -> Handler:
    """One message; `serve` writes the answers by the call."""

    async def work(call: Call) -> None:
        await serve(call, await _only_message(call.context, read_within_s))

    return _stream(name, work, reader(request))


def both_streams(
    name: str, request: type[Request], serve: Callable[[Call], Awaitable[None]], *, at_most: int = MAX_MESSAGE_BYTES
) -> Handler:
    """`serve` reads messages, each of which may be a Problem, by the call's context, and writes the answers."""
    return _stream(name, serve, reader(request, at_most=at_most))


def _stream(name: str, work: Callable[[Call], Awaitable[None]], read: Callable[[bytes], object]) -> Handler:
    async def answer(_messages: AsyncIterator[Any], context: Context) -> None:
        await _ended(name, Call(context), work)

    return grpc.stream_stream_rpc_method_handler(answer, request_deserializer=read, response_serializer=_serialize)


async def _only_message(context: Context, within_s: float) -> Any:
    """The message of a call that has one. Raises Problem for none, two, and one that is not understood."""
    try:
        async with timeout(within_s):
            message = await context.read()
            more = message is not grpc.aio.EOF and await context.read() is not grpc.aio.EOF
    except TimeoutError:
        raise Problem(Code.BODY_TOO_SLOW) from None
    if message is grpc.aio.EOF or more:
        raise Problem(Code.MALFORMED_BODY)
    if isinstance(message, Problem):
        raise message
    refuse_unknown(message)
    return message


async def _ended(method: str, call: Call, work: Callable[[Call], Awaitable[T]]) -> T | None:
    """The work's result; whatever it raises becomes the call's error, and nothing of the inside goes out with it."""
    message: str | None = None
    try:
        with in_trace(call.trace):
            found = await work(call)
    except Refused as refused:
        problem, message = refused.problem, refused.message
    except Problem as raised:
        problem = raised
    except TimeoutError:
        problem = Problem(Code.UNAVAILABLE)
    except asyncio.CancelledError:
        CALLS.labels(method, "cancelled").inc()
        call.end_span(method, grpc.StatusCode.CANCELLED)
        raise
    except grpc.aio.AbortError:  # Of the library's own services, which say by themselves how the call ends.
        CALLS.labels(method, "aborted").inc()
        raise
    except Exception as error:
        log.error("call_failed", trace_id=call.trace.trace_id, method=method, exc_info=error)
        problem = Problem(Code.INTERNAL_ERROR)
    else:
        CALLS.labels(method, "ok").inc()
        call.end_span(method, grpc.StatusCode.OK)
        call.end()
        return found
    CALLS.labels(method, problem.code.value).inc()
    call.end_span(method, grpc_code(problem.code))
    call.trailers += [(name, value) for name, value in problem.headers.items() if name.startswith(_RATE)]
    call.end(status_of(problem, call.trace.trace_id, message=message), grpc_code(problem.code))
    without_frames(problem)
    return None


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
