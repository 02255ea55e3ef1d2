"""A gRPC server in this process, and what tests say to it and read of its answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, cast

import grpc
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from prometheus_client import REGISTRY

from close_api.auth.caller import ANYONE, Caller, Scope
from close_api.auth.rate_limit import RateLimits
from close_api.batching import Batches
from close_api.doors import Doors
from close_api.errors import Code, Problem
from close_api.grpc.server import GrpcServer, Limits, make_grpc_server, serve
from close_api.readiness import Readiness
from close_api.use_cases.cancelling import Cancelling
from close_api.use_cases.closing import Closing
from close_api.use_cases.operating import Operating
from close_api.use_cases.overview import Overview
from close_api.use_cases.reading import Reading
from closeflow.domain.close.accept import CloseCommand, Decision
from closeflow_client.generated.close_pb2_grpc import CloseServiceStub

from .in_memory import InMemoryCancelling, InMemoryReading, Positions

if TYPE_CHECKING:
    from closeflow_client.generated.close_pb2_grpc import CloseServiceAsyncStub

CALLERS: Final[Mapping[str, Caller]] = {
    "Bearer everything": ANYONE,
    "Bearer acc": Caller("acc", frozenset({"ACC"}), frozenset({Scope.WRITE})),
    "Bearer other": Caller("other", frozenset({"OTHER"}), frozenset({Scope.WRITE, Scope.READ})),
    "Bearer reader": Caller("reader", frozenset({"ACC"}), frozenset({Scope.READ})),
    "Bearer nothing": Caller("nothing", frozenset({"ACC"}), frozenset()),
}
LIMITS: Final = Limits()
ACC: Final = (("authorization", "Bearer acc"),)
OTHER: Final = (("authorization", "Bearer other"),)


class Tokens:
    """Knows the tokens above, until they are `revoked`."""

    def __init__(self) -> None:
        self.revoked: set[str] = set()

    async def caller(self, authorization: str | None) -> Caller:
        caller = CALLERS.get(authorization or "")
        if caller is None or authorization in self.revoked:
            raise Problem(Code.UNAUTHENTICATED)
        return caller


@dataclass
class Served:
    """A running server with all that it stands on."""

    made: GrpcServer
    ended: asyncio.Task[None]
    positions: Positions
    reading: InMemoryReading
    cancelling: InMemoryCancelling
    tokens: Tokens
    readiness: list[Readiness]
    """The last one is what /readyz says."""

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.made.port}"

    @asynccontextmanager
    async def channel(self, **options: int) -> AsyncIterator[grpc.aio.Channel]:
        given = [(f"grpc.{name}", value) for name, value in options.items()]
        async with grpc.aio.insecure_channel(self.address, [*given, ("grpc.use_local_subchannel_pool", 1)]) as channel:
            yield channel

    @asynccontextmanager
    async def stub(self) -> AsyncIterator[CloseServiceAsyncStub]:
        async with self.channel() as channel:
            yield CloseServiceStub(channel)


@asynccontextmanager
async def serving(
    *,
    limits: Limits = LIMITS,
    deadline_s: float = 5.0,
    grace_s: float = 5.0,
    rate_limit: int = 1_000_000,
    reflected: bool = False,
    credentials: grpc.ServerCredentials | None = None,
) -> AsyncIterator[Served]:
    """A server over positions in memory; at the end it stopped by itself, and neither gRPC nor asyncio warned."""
    positions, tokens, readiness = Positions(), Tokens(), [Readiness("ready")]
    reading, cancelling = InMemoryReading(positions), InMemoryCancelling(positions)
    batches: Batches[CloseCommand, Decision] = Batches(work=positions.decide, capacity=1000, size=64, in_flight=1)

    async def ready() -> Readiness:
        return readiness[-1]

    doors = Doors(
        identity=tokens,
        rates=RateLimits(limit=rate_limit, window_s=60),
        closing=Closing(batches, deadline_s),
        cancelling=cast(Cancelling, cancelling),
        reading=cast(Reading, reading),
        overview=cast(Overview, None),
        operating=Operating(None, deadline_s),
        ready=ready,
        stopping=asyncio.Event(),
        deadline_s=deadline_s,
    )
    made = make_grpc_server(
        doors, host="127.0.0.1", port=0, credentials=credentials, reflected=reflected, limits=limits
    )
    answered = asyncio.Event()
    working = asyncio.create_task(batches.run(answered))
    ended = asyncio.create_task(serve(made, grace_s=grace_s))
    with warnings_of("grpc", "asyncio") as warned:
        try:
            yield Served(made, ended, positions, reading, cancelling, tokens, readiness)
        finally:
            positions.open.set()
            doors.stopping.set()
            await ended
            answered.set()
            await working
    if warned:
        raise AssertionError("\n".join(logging.Formatter().format(record) for record in warned))


class Keeping(logging.Handler):
    """Keeps warnings and what is worse."""

    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__(logging.WARNING)
        self.records = records

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def warnings_of(*names: str) -> Iterator[list[logging.LogRecord]]:
    """What these loggers of the standard library say meanwhile, from a warning on."""
    records: list[logging.LogRecord] = []
    handler = Keeping(records)
    for name in names:
        logging.getLogger(name).addHandler(handler)
    try:
        yield records
    finally:
        for name in names:
            logging.getLogger(name).removeHandler(handler)


@dataclass(frozen=True)
class Told:
    """An error as a caller reads it."""

    code: grpc.StatusCode
    message: str
    reason: str
    metadata: Mapping[str, str]
    fields: Mapping[str, str]
    retry_after_s: int | None
    trailers: Mapping[str, str | bytes]

    def without_passing(self) -> Told:
        """All but the trace id and what is left of the rate, down to the bytes of the details."""
        trace_id = self.metadata["trace_id"]
        metadata = {name: value for name, value in self.metadata.items() if name != "trace_id"}
        trailers = {
            name: value.replace(trace_id.encode(), b"") if isinstance(value, bytes) else value.replace(trace_id, "")
            for name, value in self.trailers.items()
            if name != "ratelimit"
        }
        return replace(self, metadata=metadata, trailers=trailers)


async def failing(call: Any) -> Told:
    """The error that a call, or the reading of an answer, ends with."""
    try:
        found = await (call.read() if hasattr(call, "read") else call)
    except grpc.aio.AioRpcError as error:
        return told(error)
    raise AssertionError(f"answered with {found}")


def told(error: grpc.aio.AioRpcError) -> Told:
    """With every detail, each of which is there once at most."""
    trailers = dict(error.trailing_metadata())
    status = Status.FromString(cast(bytes, trailers["grpc-status-details-bin"]))
    assert status.code == error.code().value[0]
    assert status.message == error.details()
    found = details_of(status)
    info, bad, retry = found["ErrorInfo"], found.get("BadRequest"), found.get("RetryInfo")
    assert info.domain == "closeflow"
    assert info.metadata["trace_id"] == trailers["trace-id"]
    fields = {one.field: one.description for one in bad.field_violations} if bad else {}
    seconds = retry.retry_delay.seconds if retry else None
    return Told(error.code(), status.message, info.reason, dict(info.metadata), fields, seconds, trailers)


def details_of(status: Status) -> dict[str, Any]:
    """The details by the names of their types."""
    found: dict[str, Message] = {}
    for packed in status.details:
        for kind in (ErrorInfo, BadRequest, RetryInfo):
            if packed.type_url.endswith(f"/{kind.DESCRIPTOR.full_name}"):
                detail = kind()
                packed.Unpack(detail)
                assert kind.__name__ not in found
                found[kind.__name__] = detail
    assert len(found) == len(status.details)
    return found


def waiting_closes() -> int:
    """Closes in the queue that no batch has taken."""
    return int(REGISTRY.get_sample_value("close_api_waiting_closes") or 0)


def calls_ended(method: str, answer: str) -> int:
    """How many calls of the method ended so, since this process began."""
    found = REGISTRY.get_sample_value("close_api_grpc_calls_total", {"method": method, "answer": answer})
    return int(found or 0)


def runs(coroutine: str) -> bool:
    """Whether a task of this loop runs a coroutine of that name."""
    return any(getattr(task.get_coro(), "__qualname__", "") == coroutine for task in asyncio.all_tasks())


async def until(holds: Callable[[], bool], *, within_s: float = 10.0) -> None:
    """Wait for something of this process."""
    async with asyncio.timeout(within_s):
        while not holds():  # noqa: ASYNC110 (nobody sets an event for it)
            await asyncio.sleep(0.005)
