"""A gRPC server in this process, and what tests say to it and read of its answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

import grpc
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from close_api.auth.caller import ANYONE, Caller, Scope
from close_api.batching import Batches
from close_api.errors import Code, Problem
from close_api.grpc.calls import Door
from close_api.grpc.close_stream import CloseStream
from close_api.grpc.server import GrpcServer, Limits, make_grpc_server, serve
from close_api.grpc.service import Service
from close_api.use_cases.closing import Closing
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
ACC: Final = (("authorization", "Bearer acc"),)


class Tokens:
    """Knows the tokens above, until they are `revoked`."""

    def __init__(self) -> None:
        self.revoked: set[str] = set()

    async def caller(self, authorization: str | None) -> Caller:
        caller = CALLERS.get(authorization or "")
        if caller is None or authorization in self.revoked:
            raise Problem(Code.UNAUTHENTICATED)
        return caller


@dataclass(frozen=True)
class OneRate:
    def headers(self) -> Mapping[str, str]:
        return {"ratelimit": '"closes";r=9;t=60'}


class Rates:
    """Counts, and refuses while `refusing`."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, int]] = []
        self.refusing = False

    def take(self, subject: str, closes: int) -> OneRate:
        self.taken.append((subject, closes))
        if self.refusing:
            raise Problem(Code.RATE_LIMITED, retry_after_s=7)
        return OneRate()


@dataclass
class Served:
    """A running server with all that it stands on."""

    made: GrpcServer
    stop: asyncio.Event
    ended: asyncio.Task[None]
    positions: Positions
    reading: InMemoryReading
    cancelling: InMemoryCancelling
    tokens: Tokens
    rates: Rates
    ready: list[bool] = field(default_factory=lambda: [True])
    """The last one is what readiness says."""

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
    limits: Limits | None = None,
    idle_s: float = 30.0,
    age_s: float = 60.0,
    deadline_s: float = 5.0,
    grace_s: float = 5.0,
    reflected: bool = False,
) -> AsyncIterator[Served]:
    """A server over positions in memory; at the end it has stopped by itself and raised nothing."""
    positions, tokens, rates = Positions(), Tokens(), Rates()
    reading, cancelling = InMemoryReading(positions), InMemoryCancelling(positions)
    batches: Batches[CloseCommand, Decision] = Batches(
        work=positions.decide, capacity=1000, size=64, in_flight=1
    )
    closing = Closing(batches, deadline_s)
    door = Door(tokens, rates)
    service = Service(door, closing, reading, cancelling, CloseStream(door, closing, idle_s, age_s))
    made = make_grpc_server(service, limits or Limits(), host="127.0.0.1", port=0, reflected=reflected)
    stop, batches_stop = asyncio.Event(), asyncio.Event()
    ready = [True]

    async def is_ready() -> bool:
        return ready[-1]

    working = asyncio.create_task(batches.run(batches_stop))
    ended = asyncio.create_task(serve(made, stop, ready=is_ready, grace_s=grace_s))
    try:
        yield Served(made, stop, ended, positions, reading, cancelling, tokens, rates, ready)
    finally:
        positions.open.set()
        stop.set()
        await ended
        batches_stop.set()
        await working


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
            if packed.Is(kind.DESCRIPTOR):
                detail = kind()
                packed.Unpack(detail)
                assert kind.__name__ not in found
                found[kind.__name__] = detail
    assert len(found) == len(status.details)
    return found
