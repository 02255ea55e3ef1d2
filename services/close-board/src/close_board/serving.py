"""The HTTP server of the pages: uvicorn in the service's own loop, with the service's own signals."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import structlog
import uvicorn
from starlette.types import ASGIApp

from closeflow.clock import timeout

READ_AGAIN_AFTER_S: Final = 30.0
"""How soon a certificate that was replaced is shown."""
_GRACE_S: Final = 5
_MAX_CONNECTIONS: Final = 2_000

log = structlog.get_logger(__name__)


class PortTaken(Exception):
    """Something else listens there; the text says how to mend it."""


class _Server(uvicorn.Server):
    """Leaves the signals to `run_service`."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(host: str, port: int) -> socket.socket:
    """Bind before anything is served; port 0 takes a free one. Raises PortTaken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise PortTaken(
            f"cannot listen on {host}:{port} ({error.strerror}); stop what has the port, or set CLOSE_BOARD_HTTP_PORT"
        ) from error


class Certificate:
    """The PEM files that the server shows, read again when they change."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = (certificate, key)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._seen = self._state()
        self.context.load_cert_chain(certificate, key)

    async def run(self, stop: asyncio.Event) -> None:
        """Look again and again until `stop`; files that cannot be used are left alone until they can."""
        while not stop.is_set():
            try:
                async with timeout(READ_AGAIN_AFTER_S):
                    await stop.wait()
            except TimeoutError:
                self._look()

    def _look(self) -> None:
        try:
            state = self._state()
            if state != self._seen:
                self.context.load_cert_chain(*self._files)
                self._seen = state
                log.info("certificate_replaced")
        except OSError as error:
            log.warning("certificate_not_replaced", reason=str(error))

    def _state(self) -> tuple[tuple[int, int], ...]:
        return tuple((file.stat().st_mtime_ns, file.stat().st_ino) for file in self._files)


def make_server(app: ASGIApp, certificate: Certificate | None) -> uvicorn.Server:
    """A server that leaves signals to the service; streams end by themselves when it stops."""
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_graceful_shutdown=_GRACE_S,
    )
    if certificate is not None:
        config.load()
        config.ssl = certificate.context
    return _Server(config)
