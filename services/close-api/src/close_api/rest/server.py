"""The HTTP server: uvicorn without its signals, and with a word for a call that ends otherwise than it said."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httptools
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from close_api.rest.request_body import BROKEN


class _Server(uvicorn.Server):
    """Leaves the signals to `run_service`."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Protocol(HttpToolsProtocol):
    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        # uvicorn's parser passes over bytes behind the last call of a connection: a body without a length.
        self.parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        """The parser ends at an offer to speak another protocol (Java's client makes one on every connection in plain
        text) and drops the body of that call. No offer is taken (RFC 9110 section 7.8): the call is read without it."""
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
        except httptools.HttpParserUpgrade as offer:
            if self.parser.get_method() == b"CONNECT":
                self.send_400_response("There is no way through here.")
                return
            head = self._head_without_offer()
            self.parser = httptools.HttpRequestParser(self)
            self.data_received(head + data[offer.args[0] :])

    def _should_upgrade(self) -> bool:
        """Only asked of a call with an offer: it is not begun as it is."""
        return True

    def _head_without_offer(self) -> bytes:
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        lines += [b"%b: %b" % one for one in self.headers if one[0] not in (b"upgrade", b"connection")]
        if any(name == b"connection" and b"close" in value.lower() for name, value in self.headers):
            lines.append(b"connection: close")
        return b"\r\n".join((*lines, b"\r\n"))

    def send_400_response(self, msg: str) -> None:
        """Bytes that are no call. Behind one that has not begun they are a body that was not announced, or a longer one
        than was: it is told so, and answers by itself."""
        if self.cycle is None or self.cycle.response_started or self.cycle.more_body:
            super().send_400_response(msg)
            return
        self.cycle.scope[BROKEN] = True  # type: ignore[typeddict-unknown-key]
        self.cycle.keep_alive = False


def make_server(app: ASGIApp, *, answer_within_s: float) -> uvicorn.Server:
    """A server that leaves signals to the service; calls that it has taken when it stops are answered first."""
    return _Server(
        uvicorn.Config(
            app,
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=int(2 * answer_within_s) + 1,
        )
    )
