"""A connection that speaks as much HTTP/2 (RFC 9113) as it takes to say something wrong."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, GOAWAY = 0x0, 0x1, 0x4, 0x6, 0x7
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    """Section 4.1."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def head(*fields: tuple[str, str]) -> bytes:
    """A header block of literals without indexing or Huffman (RFC 7541 section 6.2.2), each below 127 bytes."""
    return b"".join(b"\x00" + b"".join(bytes([len(one)]) + one.encode("latin-1") for one in pair) for pair in fields)


def call_head(path: str, *more: tuple[str, str], content_type: str = "application/grpc") -> bytes:
    """As a gRPC client begins a call."""
    return head(
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "api"),
        ("te", "trailers"),
        ("content-type", content_type),
        *more,
    )


@dataclass(frozen=True)
class Frame:
    """One that came from the server."""

    kind: int
    flags: int
    stream: int
    payload: bytes


@dataclass(frozen=True)
class Connection:
    """To a server; nothing is sent that a test does not say."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, *parts: bytes) -> None:
        self.writer.write(b"".join(parts))

    async def rest(self, *, within_s: float) -> bytes:
        """All bytes until the server ends the connection. Raises TimeoutError where it does not."""
        async with asyncio.timeout(within_s):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""

    async def frames(self) -> AsyncIterator[Frame]:
        """What comes, to the end of the connection."""
        try:
            while True:
                start = await self.reader.readexactly(9)
                payload = await self.reader.readexactly(int.from_bytes(start[:3]))
                yield Frame(start[3], start[4], int.from_bytes(start[5:]), payload)
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return

    async def ending_of(self, stream: int, *, within_s: float) -> Sequence[Frame]:
        """The frames of a stream until one ends it, or the connection's end."""
        found: list[Frame] = []
        async with asyncio.timeout(within_s):
            async for one in self.frames():
                if one.kind == SETTINGS and not one.flags & ACK:
                    self.send(frame(SETTINGS, flags=ACK))
                if one.stream == stream:
                    found.append(one)
                    if one.kind == 0x3 or one.flags & END_STREAM:
                        break
        return found


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Connection]:
    """A connection on which nothing was said."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()
