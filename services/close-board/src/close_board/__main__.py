"""Run the close-board: `python -m close_board`, configured by CLOSE_BOARD_* environment variables."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine, Mapping
from datetime import timedelta
from functools import partial
from typing import Any

import structlog
import uvicorn

from close_board.app import Site, build_app
from close_board.close_api import CloseApi, open_close_api
from close_board.follow import Follower
from close_board.live import Live
from close_board.render import Pages
from close_board.serving import Certificate, listen, make_server
from close_board.settings import CloseBoardSettings
from close_board.viewers import Viewers
from closeflow.kafka.topics_at_start import wait_until_topics_fit
from closeflow.run import run_parts, run_service
from closeflow.settings import load
from closeflow.telemetry import configure_logging
from closeflow.telemetry.health_server import serve_health

log = structlog.get_logger(__name__)


async def serve(settings: CloseBoardSettings, stop: asyncio.Event) -> None:
    """Follow the topics and show what they say until asked to stop."""
    follower = Follower(settings.kafka_at(settings.kafka_bootstrap_servers, client_id="close-board"))

    async def readiness() -> Mapping[str, str | None]:
        return {"log": follower.trouble()}

    async with serve_health(settings.health_host, settings.health_port, readiness):
        if await wait_until_topics_fit(settings.kafka, "close-board", stop):
            await show(settings, follower, stop)


async def show(settings: CloseBoardSettings, follower: Follower, stop: asyncio.Event) -> None:
    """Serve the pages of what the follower reads, until asked to stop."""
    listening = listen(settings.http_host, settings.http_port)
    certificate = _certificate(settings)
    async with open_close_api(settings.close_api_url, settings.close_api_tls) as api:
        server = make_server(build_app(_site(settings, follower, api, stop)), certificate)
        parts: dict[str, Coroutine[Any, Any, object]] = {
            "follower": follower.run(stop),
            "server": _answer(server, listening, stop),
        }
        if certificate is not None:
            parts["certificate"] = certificate.run(stop)
        log.info("listening", host=settings.http_host, port=listening.getsockname()[1], tls=certificate is not None)
        await run_parts(stop, parts)


def _site(settings: CloseBoardSettings, follower: Follower, api: CloseApi, stop: asyncio.Event) -> Site:
    viewers, pages = Viewers(api), Pages(settings.instance)
    live = Live(
        model=follower.model,
        progress=follower.progress,
        viewers=viewers,
        api=api,
        pages=pages,
        still_after=timedelta(seconds=settings.still_after_s),
        old_after=timedelta(seconds=settings.old_after_s),
        refresh_s=settings.refresh_s,
        stopping=stop,
    )
    secure = settings.tls_certificate_path is not None or settings.behind_tls
    return Site(live, viewers, api, pages, secure, settings.max_viewers)


def _certificate(settings: CloseBoardSettings) -> Certificate | None:
    if settings.tls_certificate_path is None or settings.tls_key_path is None:
        return None
    return Certificate(settings.tls_certificate_path, settings.tls_key_path)


async def _answer(server: uvicorn.Server, listening: socket.socket, stop: asyncio.Event) -> None:
    async def end() -> None:
        await stop.wait()
        server.should_exit = True

    ending = asyncio.create_task(end())
    try:
        await server.serve([listening])
    finally:
        ending.cancel()


def main() -> None:
    """Read the settings (a wrong one is named, exit code 2) and run until SIGTERM or SIGINT."""
    settings = load(CloseBoardSettings)
    configure_logging(settings.log_format, "close-board")
    run_service(partial(serve, settings))


if __name__ == "__main__":
    main()
