"""The HTTP server: uvicorn without its signals, and with a word for a call that ends otherwise than it said."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from ssl import SSLContext
from typing import Any, Final

import httptools
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from close_api.rest.request_body import BROKEN

MAX_HEAD_BYTES: Final = 32 * 1024
"""Of the request line and all headers; a token takes at most 8 KiB of it."""
HEAD_WITHIN_S: Final = 10.0
TAKEN_WITHIN_S: Final = 30.0
"""So long an answer may lie that is not fetched, or that is the last of its connection."""
_TOO_LARGE: Final = f"The address and headers are larger than {MAX_HEAD_BYTES // 1024} KiB; send less."


class _Server(uvicorn.Server):
    """Leaves the signals to `run_service`, and bounds handshakes."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen as uvicorn does; but a handshake is waited for as a head is, and not for a minute: until it is over, a
        connection is none of those that are counted."""
        assert sockets is not None, "whoever serves has bound already"
        await self.lifespan.startup()
        loop, config = asyncio.get_running_loop(), self.config
        state = self.lifespan.state
        protocol = partial(
            config.http_protocol_class,
            config=config,
            server_state=self.server_state,  # type: ignore[call-arg] # As uvicorn's own call of it has them.
            app_state=state,
        )
        within_s = None if config.ssl is None else HEAD_WITHIN_S
        self.servers = [
            await loop.create_server(
                protocol, sock=one, ssl=config.ssl, backlog=config.backlog, ssl_handshake_timeout=within_s
            )
            for one in sockets
        ]
        self.started = True


class _Protocol(HttpToolsProtocol):
    """One connection. Its limits hold before anything is parsed: how many there are, how large a head may be and how
    long it may take, and how long an answer may lie unread."""

    max_connections = 1_000
    taken_within_s = TAKEN_WITHIN_S

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        # uvicorn's parser passes over bytes behind the last call of a connection: a body without a length.
        self.parser = httptools.HttpRequestParser(self)
        self._in_head = True
        self._bytes_of_no_body = 0  # Since a call began, or of its body came last.
        self._too_large = False
        self._deaf = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._taken_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Turn away what is over the limit; of the others a head is expected now."""
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            self._turn_away(503, b"retry-after: 1\r\n", "There are too many connections; use fewer, or try again.")
            return
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is expected any more."""
        self._head_ended()
        self._taken()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Answers are not fetched as fast as they are written."""
        super().pause_writing()
        self._expect_taken()

    def resume_writing(self) -> None:
        """They are. What is the last of the connection has to be taken to its end, though."""
        if not self.transport.is_closing():
            self._taken()
        super().resume_writing()

    def on_message_begin(self) -> None:
        """A call begins; its head is expected now."""
        super().on_message_begin()
        self._expect_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """One of the head. One behind a chunked body would become one too, unseen by whoever looked at the head."""
        if not self._in_head:
            raise ValueError("a header behind the body")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._head_ended()
        self._in_head = False
        self._too_large = len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MAX_HEAD_BYTES
        if self._too_large:
            raise ValueError("the head is too large")
        if b"#" in self.url:  # No part of what is sent (RFC 9112 section 3.2); it would be dropped.
            raise ValueError("a fragment in the address")
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Some of the body, whose own limit is its reader's."""
        super().on_body(body)
        self._bytes_of_no_body = 0

    def on_message_complete(self) -> None:
        """What comes next is another head."""
        super().on_message_complete()
        self._head_ended()
        self._in_head, self._bytes_of_no_body = True, 0

    def on_response_complete(self) -> None:
        """What is left of a body that nobody waits for has to come in the time of a head."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._expect_taken()
        elif not self._in_head and self.cycle.response_complete:
            self._expect_head()

    def timeout_keep_alive_handler(self) -> None:
        """Nothing came for long. An answer that nobody fetches keeps no connection."""
        if not self.transport.is_closing() and self.transport.get_write_buffer_size():
            self.transport.abort()
            return
        super().timeout_keep_alive_handler()

    def _expect_taken(self) -> None:
        if self._taken_timer is None:
            self._taken_timer = self.loop.call_later(self.taken_within_s, self.transport.abort)

    def _taken(self) -> None:
        if self._taken_timer is not None:
            self._taken_timer.cancel()
            self._taken_timer = None

    def _expect_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_WITHIN_S, self._head_is_late)

    def _head_ended(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self._turn_away(408, b"", "The call did not arrive in time.")

    def _turn_away(self, status: int, header: bytes, told: str) -> None:
        self._head_ended()
        if self._hears_no_more():
            return
        head = b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n" % len(told)
        self.transport.write(STATUS_LINE[status] + header + head + b"\r\n" + told.encode())
        self.transport.close()
        self._expect_taken()

    def _hears_no_more(self) -> bool:
        """Whether a call before is not answered yet: then its answer is the last thing that is written here. Anything
        else would be read as a part of it."""
        if self.cycle is None or self.cycle.response_complete or self.cycle.more_body:
            return False
        self._deaf = True
        self.cycle.keep_alive = False
        return True

    def data_received(self, data: bytes) -> None:
        """The parser ends at an offer to speak another protocol (Java's client makes one on every connection in plain
        text) and drops the body of that call. No offer is taken (RFC 9110 section 7.8): the call is read without it."""
        self._unset_keepalive_if_required()
        if self._deaf or self.transport.is_closing():
            return  # It was turned away.
        if self._in_head:
            self._expect_head()
        self._bytes_of_no_body += len(data)
        try:
            self.parser.feed_data(data)
            if self._bytes_of_no_body > MAX_HEAD_BYTES:  # The parser would gather it without an end.
                self._turn_away(431, b"", _TOO_LARGE)
        except httptools.HttpParserError:
            if self._too_large:
                self._turn_away(431, b"", _TOO_LARGE)
                return
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
        if not self._hears_no_more():
            super().send_400_response(msg)
            self._expect_taken()
        elif not self.cycle.response_started:
            self.cycle.scope[BROKEN] = True  # type: ignore[typeddict-unknown-key]


def make_server(
    app: ASGIApp,
    *,
    answer_within_s: float,
    max_connections: int = 1_000,
    taken_within_s: float = TAKEN_WITHIN_S,
    tls: SSLContext | None = None,
) -> uvicorn.Server:
    """A server that leaves signals to the service; calls that it has taken when it stops are answered first."""
    config = uvicorn.Config(
        app,
        http=type("Protocol", (_Protocol,), {"max_connections": max_connections, "taken_within_s": taken_within_s}),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=int(2 * answer_within_s) + 1,
    )
    if tls is not None:
        config.load()
        config.ssl = tls
    return _Server(config)
