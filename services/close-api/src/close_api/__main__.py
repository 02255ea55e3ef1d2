"""Run close-api: settings, logs, the pools, the queue and the server, in this order, and back."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine, Mapping
from functools import partial
from typing import Any, Final

import structlog
import uvicorn

from close_api.accept import accept_batch, turn_of
from close_api.auth.caller import Identity
from close_api.auth.claims import TokenRules
from close_api.auth.keys import Keys
from close_api.auth.rate_limit import RateLimits
from close_api.auth.tls import Certificates, TlsFiles
from close_api.auth.tokens import Disabled, Tokens
from close_api.batching import Batches
from close_api.doors import Doors, make_doors
from close_api.grpc.server import GrpcServer, Limits, PortTaken, make_grpc_server, serve
from close_api.rest.app import build_app
from close_api.rest.server import make_server
from close_api.settings import Settings
from closeflow.clock_and_job_watch import beating
from closeflow.domain.close.accept import CloseCommand, Decision
from closeflow.run import run_parts, run_service
from closeflow.settings import load
from closeflow.storage.core.engine import Database, make_engine
from closeflow.telemetry import configure_logging, serve_health, traced

LOCK_TIMEOUT_MS: Final = 1_000
"""Longer than any transaction of ours holds a position; shorter than callers wait, because a batch waits as one."""

OPERATOR_POOL_SIZE: Final = 2
"""For what people do one after the other."""

log = structlog.get_logger(__name__)


async def _serve(settings: Settings, stop: asyncio.Event) -> None:
    deadline_s = settings.request_deadline_ms / 1000
    # Batches have connections of their own: of who reads there may be any number, and nobody counts them.
    closing = _pool(settings, settings.dsn, size=settings.batches_in_flight, name="close-api")
    others = settings.postgres_pool_size - settings.batches_in_flight
    engine = _pool(settings, settings.dsn, size=others, name="close-api")
    operator_dsn = settings.operator_dsn
    operator_engine = None
    if operator_dsn is not None:
        operator_engine = _pool(settings, operator_dsn, size=OPERATOR_POOL_SIZE, name="close-api operators")
    closes: Batches[CloseCommand, Decision] = Batches(
        work=partial(accept_batch, closing, deadline_s=deadline_s),
        capacity=settings.queue_capacity,
        size=settings.batch_size,
        in_flight=settings.batches_in_flight,
        key=turn_of,
    )
    listening = _listen(settings)
    keys = _keys(settings)
    try:
        if keys is not None:
            await keys.load()
        async with beating(engine, "close-api"):
            doors = make_doors(
                engine,
                closes,
                identity=_identity(settings, keys),
                rates=RateLimits(limit=settings.rate_limit_closes, window_s=settings.rate_limit_window_s),
                slot=settings.replication_slot,
                deadline_s=deadline_s,
                stopping=stop,
                keyless=lambda: keys is not None and not keys.known,
                operator_engine=operator_engine,
            )
            tls = _certificates(settings)
            rest = make_server(
                build_app(doors),
                answer_within_s=deadline_s,
                max_connections=settings.max_connections,
                tls=None if tls is None else tls.http_context(),
            )
            grpc = make_grpc_server(
                doors,
                host=settings.grpc_host,
                port=settings.grpc_port,
                credentials=None if tls is None else tls.grpc_credentials(),
                limits=Limits(concurrent_calls=settings.max_calls, connections=settings.max_connections),
                reflected=settings.grpc_reflection,
            )
            async with serve_health(settings.health_host, settings.health_port, partial(_missing, doors)):
                log.info("listening", host=settings.http_host, port=listening.getsockname()[1], tls=tls is not None)
                await _answer((rest, listening), grpc, closes, keys, stop)
    finally:
        await closing.dispose()
        await engine.dispose()
        if operator_engine is not None:
            await operator_engine.dispose()


async def _missing(doors: Doors) -> Mapping[str, str | None]:
    state = await doors.ready()
    return {"closes": "; ".join(state.reasons)} if state.status == "unready" else {}


def _pool(settings: Settings, dsn: str, *, size: int, name: str) -> Database:
    return make_engine(
        dsn,
        pool_size=size,
        application_name=name,
        pool_timeout_s=settings.request_deadline_ms / 1000,
        statement_timeout_ms=settings.request_deadline_ms,
        lock_timeout_ms=min(LOCK_TIMEOUT_MS, settings.request_deadline_ms),
        by_index=True,
    )


def _keys(settings: Settings) -> Keys | None:
    """The keys that tokens are checked with; None where nobody needs a token."""
    if settings.jwks is None or settings.auth == "disabled":
        return None
    return Keys(settings.jwks, refresh_s=settings.jwks_refresh_s, max_age_s=settings.jwks_max_age_s)


def _identity(settings: Settings, keys: Keys | None) -> Identity:
    if keys is None:
        return Disabled()
    assert settings.issuer is not None
    assert settings.audience is not None
    rules = TokenRules(settings.issuer, settings.audience, settings.token_leeway_s)
    return Tokens(keys, rules, cache_size=settings.token_cache_size)


def _certificates(settings: Settings) -> Certificates | None:
    if settings.tls_certificate_path is None or settings.tls_key_path is None:
        return None
    return Certificates(TlsFiles(settings.tls_certificate_path, settings.tls_key_path, settings.tls_client_ca_path))


async def _answer(
    rest: tuple[uvicorn.Server, socket.socket],
    grpc: GrpcServer,
    closes: Batches[CloseCommand, Decision],
    keys: Keys | None,
    stop: asyncio.Event,
) -> None:
    """Serve until `stop`; then take no new connection, answer every call that is there, and end the queue."""
    server, listening = rest
    answering, answered = {"REST", "gRPC"}, asyncio.Event()

    async def until_answered(door: str, serving: Coroutine[Any, Any, None]) -> None:
        try:
            await serving
        finally:
            answering.discard(door)
            if not answering:
                answered.set()

    async def end() -> None:
        await stop.wait()
        server.should_exit = True

    parts: dict[str, Coroutine[Any, Any, object]] = {
        "server": until_answered("REST", server.serve([listening])),
        "gRPC server": until_answered("gRPC", serve(grpc, grace_s=grpc.doors.deadline_s)),
        "batches": closes.run(answered),
    }
    if keys is not None:
        parts["keys"] = keys.run(stop)
    ending = asyncio.create_task(end())
    try:
        await run_parts(stop, parts)
    finally:
        ending.cancel()


def _listen(settings: Settings) -> socket.socket:
    """Bind before anything is served, so that a taken port is one clear line; port 0 takes a free one."""
    family = socket.AF_INET6 if ":" in settings.http_host else socket.AF_INET
    try:
        return socket.create_server((settings.http_host, settings.http_port), family=family, backlog=2048)
    except OSError as error:
        raise PortTaken(
            f"cannot listen on {settings.http_host}:{settings.http_port} ({error.strerror}); "
            "stop what has the port, or set CLOSE_API_HTTP_PORT"
        ) from error


def main() -> None:
    """Read the settings (a wrong one is named, exit code 2) and serve until SIGTERM or SIGINT."""
    settings = load(Settings)
    configure_logging(settings.log_format, "close-api")
    with traced(settings.otlp_endpoint, "close-api", ratio=settings.otlp_sample_ratio):
        run_service(partial(_serve, settings))


if __name__ == "__main__":
    main()
