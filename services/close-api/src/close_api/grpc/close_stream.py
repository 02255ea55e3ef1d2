"""ClosePositions: messages of closes in, messages of results out, in order, a few at a time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final

import grpc
from google.protobuf.unknown_fields import UnknownFieldSet

from close_api.auth.caller import Caller, Scope
from close_api.errors import FieldError, Problem, field_problem
from close_api.grpc.answers import write_answer
from close_api.grpc.calls import AGED, STOPPING, TRACE_ID, Call, Door, StreamLimits, ended, without_frames
from close_api.grpc.generated import close_pb2 as pb
from close_api.grpc.requests import MAX_CLOSES, read_close, refuse_unknown
from close_api.grpc.statuses import status_of
from close_api.use_cases.closing import CLOSES, Closing
from closeflow.clock import monotonic
from closeflow.domain.close.accept import CloseCommand
from closeflow.tasks import end_tasks

IN_FLIGHT: Final = 4
"""Messages of one stream that are worked on at a time; the others wait in the transport, which stops the sender."""
IDLE: Final = "Nothing was asked on this stream for long; begin another one when there is something to close."


@dataclass(frozen=True, slots=True)
class CloseStream:
    """What every stream of closes does."""

    door: Door
    closing: Closing
    limits: StreamLimits

    async def serve(self, call: Call) -> None:
        """Until the caller has sent all, or an end of ours: then after the answers to what was read. Raises Problem."""
        await self.door.admit(call, Scope.WRITE)
        await call.context.send_initial_metadata(((TRACE_ID, call.trace.trace_id),))
        work = _Messages(self, call)
        reading = asyncio.create_task(work.read())
        try:
            await work.write()
        finally:
            await end_tasks((reading, *work.working))

    async def answer(self, call: Call, message: pb.ClosePositionsRequest) -> pb.ClosePositionsResponse:
        """A result for each close. Raises Problem where the message as a whole cannot be answered."""
        closes = message.closes
        if len(UnknownFieldSet(message)):
            refuse_unknown(message)
        if not 1 <= len(closes) <= MAX_CLOSES:
            raise field_problem(FieldError("closes", f"must be 1 to {MAX_CLOSES} closes"))
        caller = await call.caller(self.door.identity)
        response = pb.ClosePositionsResponse(batch_id=message.batch_id)
        trace_id = call.trace.trace_id
        try:
            self.door.rates.take(caller.subject, len(closes))
        except Problem as problem:
            for _ in closes:
                _write_problem(problem, response.results.add(), trace_id)
            return response
        span = call.part()
        read = [_read(one, caller, span.context.header()) for one in closes]
        try:
            commands = [one for one in read if isinstance(one, CloseCommand)]
            answers = iter(await self.closing.close_many(caller, commands))
        finally:
            span.end()
        for one in read:
            answer = next(answers) if isinstance(one, CloseCommand) else one
            if isinstance(answer, Problem):
                _write_problem(answer, response.results.add(), trace_id)
            else:
                write_answer(answer, response.results.add(), dry_run=isinstance(one, CloseCommand) and one.dry_run)
        return response


class _Messages:
    """One stream while it runs: `read` begins the work on messages, `write` answers them in their order."""

    def __init__(self, stream: CloseStream, call: Call) -> None:
        self.working: set[asyncio.Task[pb.ClosePositionsResponse]] = set()
        self._stream = stream
        self._call = call
        self._free = asyncio.Semaphore(IN_FLIGHT)
        self._begun: asyncio.Queue[asyncio.Task[pb.ClosePositionsResponse] | Exception | None] = asyncio.Queue()

    async def read(self) -> None:
        """To the end of the stream, or to what ends it."""
        stopped = asyncio.create_task(self._stream.door.stop.wait())
        try:
            await self._read(stopped)
            self._begun.put_nowait(None)
        except Exception as error:
            self._begun.put_nowait(error)
        finally:
            stopped.cancel()

    async def write(self) -> None:
        """All answers. Raises what ended the stream, after the answers to what came before."""
        while (one := await self._begun.get()) is not None:
            if isinstance(one, Exception):
                raise one
            await self._call.write(await one, within_s=self._stream.limits.idle_s)
            self.working.discard(one)
            self._free.release()

    async def _read(self, stopped: asyncio.Task[Any]) -> None:
        until = monotonic() + self._stream.limits.age_s
        while (message := await self._next(stopped, until)) is not grpc.aio.EOF:
            if isinstance(message, Problem):
                raise message
            work = asyncio.create_task(self._stream.answer(self._call, message))
            self.working.add(work)
            self._begun.put_nowait(work)

    async def _next(self, stopped: asyncio.Task[Any], until: float) -> Any:
        """The next message or EOF, as soon as there is room for it. Raises Refused for an end of ours."""
        await self._free.acquire()
        reading = asyncio.ensure_future(self._call.context.read())
        left = until - monotonic()
        within = min(self._stream.limits.idle_s, left)
        try:
            await asyncio.wait((reading, stopped), timeout=within, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                return reading.result()
        finally:
            await end_tasks((reading,))
        if stopped.done():
            raise ended(STOPPING)
        raise ended(AGED if within == left else IDLE)


def _read(close: pb.Close, caller: Caller, traceparent: str) -> CloseCommand | Problem:
    try:
        return read_close(close).command(caller, traceparent)
    except Problem as problem:
        return without_frames(problem)


def _write_problem(problem: Problem, result: pb.CloseResult, trace_id: str) -> None:
    CLOSES.labels(problem.code.value).inc()
    result.error.CopyFrom(status_of(problem, trace_id))
