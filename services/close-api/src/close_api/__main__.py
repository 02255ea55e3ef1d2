"""Run close-api: settings, logs, the pool, the queue and the server, in this order, and back."""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from typing import Final

import structlog
import uvicorn

from close_api.accept import accept_batch
from close_api.batching import Batches
from close_api.rest.app import Api, build_app
from close_api.rest.server import make_server
from close_api.settings import Settings
from closeflow.clock_and_job_watch import beating
from closeflow.domain.close.accept import CloseCommand, Decision
from closeflow.run import run_parts, run_service
from closeflow.settings import load
from closeflow.storage.core.engine import make_engine
from closeflow.telemetry import configure_logging

LOCK_TIMEOUT_MS: Final = 1_000
"""Longer than any transaction of ours holds a position; shorter than callers wait, because a batch waits as one."""

log = structlog.get_logger(__name__)


class PortTaken(Exception):
    """The address cannot be listened on."""


async def _serve(settings: Settings, stop: asyncio.Event) -> None:
    deadline_s = settings.request_deadline_ms / 1000
    engine = make_engine(
        settings.postgres_dsn.get_secret_value(),
        pool_size=settings.postgres_pool_size,
        application_name="close-api",
        pool_timeout_s=deadline_s,
        lock_timeout_ms=LOCK_TIMEOUT_MS,
        by_index=True,
    )
    closes: Batches[CloseCommand, Decision] = Batches(
        work=partial(accept_batch, engine, deadline_s=deadline_s),
        capacity=settings.queue_capacity,
        size=settings.batch_size,
        in_flight=settings.batches_in_flight,
    )
    api = Api(engine, closes, settings.replication_slot, deadline_s)
    listening = _listen(settings)
    log.info("listening", host=settings.http_host, port=listening.getsockname()[1])
    try:
        async with beating(engine, "close-api"):
            await _answer(make_server(build_app(api), answer_within_s=deadline_s), listening, closes, stop)
    finally:
        await engine.dispose()


async def _answer(
    server: uvicorn.Server, listening: socket.socket, closes: Batches[CloseCommand, Decision], stop: asyncio.Event
) -> None:
    """Serve until `stop`; then take no new connection, answer every request that is there, and end the queue."""
    answered = asyncio.Event()

    async def answer() -> None:
        try:
            await server.serve([listening])
        finally:
            answered.set()

    async def end() -> None:
        await stop.wait()
        server.should_exit = True

    ending = asyncio.create_task(end())
    try:
        await run_parts(stop, {"server": answer(), "batches": closes.run(answered)})
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
    run_service(partial(_serve, settings))


if __name__ == "__main__":
    main()
