"""The gRPC server: what it takes at most, its health, and how it starts and stops."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Final

import grpc
import structlog
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection

from close_api.doors import Doors
from close_api.grpc.calls import StreamLimits
from close_api.grpc.health import Health
from close_api.grpc.requests import MAX_STREAM_MESSAGE_BYTES
from close_api.grpc.service import SERVICE, handlers
from closeflow.clock import timeout

MAX_METADATA_BYTES: Final = 16 * 1024
MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024
READINESS_EVERY_S: Final = 2.0
_IDENTITY_ONLY: Final = 1
"""Bit set of the compressions that are understood: none, so that no small message becomes a large one here."""

_LIBRARY_LOG: Final = logging.getLogger("grpc._cython.cygrpc")

log = structlog.get_logger(__name__)


class PortTaken(Exception):
    """The address cannot be listened on."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server takes. A caller that goes beyond is refused (calls, streams) or loses its connection."""

    concurrent_calls: int = 1000
    connections: int = 1000
    streams_per_connection: int = 500
    """A part of `concurrent_calls`, so that no connection takes them all. The library counts those too that are
    answered and not yet cleared away, and resets what is beyond: a caller that keeps 64 calls going can have twice as
    many for a moment, after a batch has answered all of them."""
    handshake_s: float = 10.0
    """Until a new connection has said what it wants."""
    connection_idle_s: float = 300.0
    connection_age_s: float = 3600.0
    """After which its calls may end and new ones go to a new connection, so that load spreads over instances."""
    connection_grace_s: float = 660.0
    """Longer than any stream lives, so that none is cut."""
    keepalive_s: float = 60.0
    keepalive_timeout_s: float = 20.0
    shortest_ping_interval_s: float = 20.0
    """More than two pings that follow each other sooner end the connection (GOAWAY, ENHANCE_YOUR_CALM)."""
    streams: StreamLimits = field(default_factory=StreamLimits)


@dataclass(frozen=True, slots=True)
class GrpcServer:
    """A server that listens on `port` and answers once `serve` runs."""

    server: grpc.aio.Server
    port: int
    health: Health
    doors: Doors


def make_grpc_server(
    doors: Doors,
    *,
    host: str,
    port: int,
    credentials: grpc.ServerCredentials | None = None,
    limits: Limits,
    reflected: bool = False,
) -> GrpcServer:
    """Listen, with TLS where there are credentials; port 0 takes a free one. Raises PortTaken. Runs in the event loop
    that it serves in."""
    _LIBRARY_LOG.addFilter(_is_not_of_the_caller)
    server = grpc.aio.server(options=_options(limits), maximum_concurrent_rpcs=limits.concurrent_calls)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers(doors, limits.streams)),))
    healthy = Health(SERVICE, doors, limits.streams)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(health.SERVICE_NAME, healthy.handlers()),))
    if reflected:
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        if credentials is None:
            bound = server.add_insecure_port(address)
        else:
            bound = server.add_secure_port(address, credentials)
    except RuntimeError:
        raise PortTaken(
            f"cannot listen on {address}; stop what has the port, or set CLOSE_API_GRPC_HOST and CLOSE_API_GRPC_PORT"
        ) from None
    return GrpcServer(server, bound, healthy, doors)


async def serve(made: GrpcServer, *, grace_s: float) -> None:
    """Answer until `doors.stopping`. Then health says so, no call is taken any more, waits and streams come to their
    end, and what is in flight is answered, for at most `grace_s`. Health is what /readyz says."""
    stop = made.doors.stopping
    await _look(made)
    await made.server.start()
    log.info("grpc_listening", port=made.port)
    try:
        while not stop.is_set():
            try:
                async with timeout(READINESS_EVERY_S):
                    await stop.wait()
            except TimeoutError:
                await _look(made)
    finally:
        made.health.tell(serves=False)
        await made.server.stop(grace_s)


async def _look(made: GrpcServer) -> None:
    """A degraded one serves."""
    made.health.tell(serves=(await made.doors.ready()).status != "unready")


def _is_not_of_the_caller(record: logging.LogRecord) -> bool:
    """What a caller can make the library log, each with a traceback: every value of metadata that is not UTF-8, a token
    among them, twice; and an answer that nobody takes any more, where core ended the call for its bytes before the
    library noticed."""
    return not str(record.msg).startswith(("Invalid encoding", "ExecuteBatchError raised in core"))


def _options(limits: Limits) -> list[tuple[str, int]]:
    def ms(seconds: float) -> int:
        return int(seconds * 1000)

    return [
        ("grpc.so_reuseport", 0),  # A second process on the port is an error, not half of the calls.
        ("grpc.max_receive_message_length", MAX_STREAM_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_ANSWER_BYTES),
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.compression_enabled_algorithms_bitset", _IDENTITY_ONLY),
        ("grpc.max_concurrent_streams", limits.streams_per_connection),
        # A stream counts until it is cleared away: with this, calls would be refused long before there are so many.
        ("grpc.http.overload_protection", 0),
        ("grpc.max_allowed_incoming_connections", limits.connections),
        ("grpc.server_handshake_timeout_ms", ms(limits.handshake_s)),
        ("grpc.max_connection_idle_ms", ms(limits.connection_idle_s)),
        ("grpc.max_connection_age_ms", ms(limits.connection_age_s)),
        ("grpc.max_connection_age_grace_ms", ms(limits.connection_grace_s)),
        ("grpc.keepalive_time_ms", ms(limits.keepalive_s)),
        ("grpc.keepalive_timeout_ms", ms(limits.keepalive_timeout_s)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", ms(limits.shortest_ping_interval_s)),
        ("grpc.http2.max_ping_strikes", 2),
    ]
