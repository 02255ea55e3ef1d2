"""An HTTP server over real sockets that does with each request what its script says, and keeps what it was asked."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from .answers import TRACE_ID, problem

_JSON: Final = "application/json"


@dataclass(frozen=True)
class Say:
    """Answer. A body that is a mapping or a list is JSON; `cut` announces more bytes than are sent."""

    status: int = 200
    body: Any = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False


@dataclass(frozen=True)
class DropUnread:
    """Reset the connection without reading the request."""


@dataclass(frozen=True)
class DropRead:
    """Read the request, then reset the connection."""


@dataclass(frozen=True)
class Silent:
    """Read the request, and answer nothing until the client goes away."""


@dataclass(frozen=True)
class Raw:
    """Read the request, write these bytes, and end the connection."""

    data: bytes


@dataclass(frozen=True)
class Events:
    """Answer with a stream of server-sent events in these pieces; `cut` resets the connection instead of ending it."""

    pieces: tuple[bytes, ...]
    cut: bool = False


Act = Say | DropUnread | DropRead | Silent | Raw | Events


@dataclass(frozen=True)
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def values(self) -> Any:
        """The body as JSON, floats as the text that was sent."""
        return json.loads(self.body, parse_float=str) if self.body else None


class ScriptedServer:
    """One act for each request, in order; a request beyond the script is answered with 599."""

    def __init__(self, *script: Act, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.seen: list[Seen] = []
        self.script = deque(script)
        self._tls = tls
        self._lock = threading.Lock()
        self._listening = socket.create_server(("127.0.0.1", port))
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self._listening.getsockname()[1]}"

    def stop(self) -> None:
        """End all connections."""
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for one in list(self._open):
            reset(one)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError):
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            self._open.add(connection)
            reader = connection.makefile("rb")
            while reader.peek(1) and self._act(connection, reader):
                pass
        connection.close()

    def _act(self, connection: socket.socket, reader: Any) -> bool:
        """Whether the connection goes on."""
        with self._lock:
            act = self.script.popleft() if self.script else Say(599, {"detail": "beyond the script"})
        if isinstance(act, DropUnread):
            reset(connection)
            return False
        seen = _read(reader)
        with self._lock:
            self.seen.append(seen)
        match act:
            case Say():
                connection.sendall(_response(act))
                return not act.cut
            case DropRead():
                reset(connection)
            case Silent():
                reader.read(1)
            case Raw(data=data):
                connection.sendall(data)
            case Events():
                _stream(connection, act)
                return not act.cut
        return False


def refused(code: str, status: int, *, again: bool, retry_after: str | None = None, **members: Any) -> Say:
    """An error as close-api writes it; `again` is its Should-Retry."""
    headers = {"content-type": "application/problem+json", "should-retry": str(again).lower(), "trace-id": TRACE_ID}
    return Say(
        status,
        problem(code, status, **members),
        headers | ({"retry-after": retry_after} if retry_after is not None else {}),
    )


@contextmanager
def scripted(*script: Act, tls: ssl.SSLContext | None = None) -> Iterator[ScriptedServer]:
    """The server for as long as the block runs; afterwards its script must have been played to its end."""
    server = ScriptedServer(*script, tls=tls)
    try:
        yield server
        assert list(server.script) == [], "the client asked less often than the script says"
    finally:
        server.stop()


def nobody() -> str:
    """An address where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"127.0.0.1:{taken.getsockname()[1]}"


def _read(reader: Any) -> Seen:
    method, target, _ = reader.readline().decode().split()
    headers: dict[str, str] = {}
    while (line := reader.readline().decode().strip()) != "":
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    parts = urlsplit(target)
    body = reader.read(int(headers.get("content-length", 0)))
    return Seen(method, parts.path, dict(parse_qsl(parts.query)), headers, body)


def _response(act: Say) -> bytes:
    body = act.body if isinstance(act.body, bytes) else json.dumps(act.body).encode()
    headers = {"content-type": _JSON, "content-length": str(len(body) + (100 if act.cut else 0)), **act.headers}
    lines = [f"HTTP/1.1 {act.status} Said", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode() + body


def _stream(connection: socket.socket, act: Events) -> None:
    head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    connection.sendall(head.encode())
    for piece in act.pieces:
        connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
    if act.cut:
        connection.close()
    else:
        connection.sendall(b"0\r\n\r\n")


def reset(connection: socket.socket) -> None:
    """End a connection so that what was not read on it is lost."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
