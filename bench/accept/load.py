"""A closed loop of clients over keep-alive connections: each sends a close, waits for the answer, sends the next.

It runs as a process of its own and is lean on purpose (a raw protocol, no client library), because it shares the
machine with what it measures.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import Final, cast

import uvloop

_LENGTH: Final = b"content-length: "


@dataclass(slots=True)
class Tally:
    """What the clients share: the next position to close, when to stop, and what came back (latencies in seconds)."""

    next_position: int
    last_position: int
    ends_at: float
    statuses: Counter[str] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)


class Client(asyncio.Protocol):
    """One keep-alive connection; its next close is sent when the answer to the last one is there."""

    def __init__(self, tally: Tally, ended: asyncio.Future[None]) -> None:
        self._tally = tally
        self._ended = ended
        self._received = b""
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first close."""
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        """Count an answer once its body is complete, and send the next close."""
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        at = head.lower().find(_LENGTH) + len(_LENGTH)
        if len(body) < int(head[at:].split(b"\r\n", 1)[0]):
            return
        now = time.perf_counter()
        self._tally.statuses[head[9:12].decode()] += 1
        self._tally.latencies_s.append(now - self._sent_at)
        self._received = b""
        if now < self._tally.ends_at:
            self._send()
        else:
            self._end()

    def connection_lost(self, error: Exception | None) -> None:
        """Count it as a failure unless this client had ended."""
        if not self._ended.done():
            self._tally.statuses["connection lost"] += 1
            self._end()

    def _send(self) -> None:
        position = self._tally.next_position
        if position > self._tally.last_position:
            self._end()
            return
        self._tally.next_position = position + 1
        self._sent_at = time.perf_counter()
        self._transport.write(
            f"POST /v1/positions/{position}/close HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Idempotency-Key: bench-{position}\r\nContent-Type: application/json\r\n"
            "Content-Length: 2\r\n\r\n{}".encode()
        )

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)
        self._transport.close()


async def drive(port: int, clients: int, seconds: float, first: int, last: int) -> dict[str, object]:
    """Close positions `first` to `last` for so many seconds; statuses by count, latencies in milliseconds."""
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    tally = Tally(first, last, started + seconds)
    ends: list[asyncio.Future[None]] = [loop.create_future() for _ in range(clients)]
    for ended in ends:
        await loop.create_connection(partial(Client, tally, ended), "127.0.0.1", port)
    await asyncio.gather(*ends)
    took = time.perf_counter() - started
    ranked = sorted(tally.latencies_s)
    return {
        "seconds": took,
        "statuses": dict(tally.statuses),
        "used": tally.next_position - first,
        "per_second": tally.statuses["201"] / took,
        "p50_ms": 1000 * ranked[len(ranked) // 2],
        "p99_ms": 1000 * ranked[len(ranked) * 99 // 100],
        "exhausted": tally.next_position > last,
    }


if __name__ == "__main__":
    port, clients, seconds, first, last = sys.argv[1:]
    print(json.dumps(uvloop.run(drive(int(port), int(clients), float(seconds), int(first), int(last)))))
