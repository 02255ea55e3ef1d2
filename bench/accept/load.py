"""Clients over keep-alive connections: each sends a close, or a batch of them, waits for the answer, sends the next.

    load.py PORT CLIENTS SECONDS FIRST LAST [--size N] [--rate R]

closes positions FIRST to LAST and prints what it measured as JSON. With --size each call is a batchClose of N. With
--rate all clients together send R calls a second, at even distances, and a call's time counts from when it was due;
otherwise each sends as soon as it has its answer. A bearer token is taken from BENCH_TOKEN. It runs as a process of its
own and is lean on purpose (a raw protocol, no client library), because it shares the machine with what it measures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import Final, cast

import uvloop

_LENGTH: Final = b"content-length: "
_ITEM_STATUS: Final = b'"status":'


@dataclass(slots=True)
class Tally:
    """What the clients share: the next position to close, when to stop, and what came back (latencies in seconds)."""

    next_position: int
    last_position: int
    starts_at: float
    ends_at: float
    headers: str
    size: int
    rate: float | None
    statuses: Counter[str] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)
    calls: int = 0

    def next_call(self) -> bytes | None:
        """The next call as it goes out; None when no position is left."""
        first = self.next_position
        if first + self.size - 1 > self.last_position:
            self.next_position = self.last_position + 1
            return None
        self.next_position = first + self.size
        self.calls += 1
        if self.size == 1:
            path, body = f"/v1/positions/{first}/close", "{}"
        else:
            closes = ",".join(f'{{"position_id":{one}}}' for one in range(first, self.next_position))
            path, body = "/v1/positions:batchClose", f'{{"closes":[{closes}]}}'
        return (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nIdempotency-Key: bench-{first}\r\n{self.headers}"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        ).encode()

    def due_at(self) -> float:
        """When the next call is to be sent, by the clock of `perf_counter`."""
        return 0.0 if self.rate is None else self.starts_at + self.calls / self.rate

    def count(self, status: str, body: bytes | bytearray) -> None:
        """Count what came back: of a batch each of its results."""
        if self.size == 1 or status != "200":
            self.statuses[status] += 1
            return
        accepted = body.count(_ITEM_STATUS + b"201,")
        self.statuses["201"] += accepted
        if accepted < self.size:
            self.statuses["not accepted"] += self.size - accepted


class Client(asyncio.Protocol):
    """One keep-alive connection; its next call is sent when the answer to the last one is there, and it is due."""

    def __init__(self, tally: Tally, ended: asyncio.Future[None]) -> None:
        self._tally = tally
        self._ended = ended
        self._status = ""
        self._received = bytearray()
        self._length: int | None = None
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first call when it is due."""
        self._transport = cast(asyncio.Transport, transport)
        self._await_turn()

    def data_received(self, data: bytes) -> None:
        """Count an answer once its body is complete, and go on to the next call."""
        self._received += data
        if self._length is None:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._received[:end])
            at = head.lower().find(_LENGTH) + len(_LENGTH)
            self._length = int(head[at:].split(b"\r\n", 1)[0])
            self._status = head[9:12].decode()
            del self._received[: end + 4]
        if len(self._received) < self._length:
            return
        self._tally.count(self._status, self._received)
        self._tally.latencies_s.append(time.perf_counter() - self._sent_at)
        self._received.clear()
        self._length = None
        self._await_turn()

    def connection_lost(self, error: Exception | None) -> None:
        """Count it as a failure unless this client had ended."""
        if not self._ended.done():
            self._tally.statuses["connection lost"] += 1
            self._end()

    def _await_turn(self) -> None:
        now = time.perf_counter()
        due_at = max(self._tally.due_at(), now)
        if due_at >= self._tally.ends_at:
            self._end()
            return
        call = self._tally.next_call()
        if call is None:
            self._end()
        elif due_at > now:
            asyncio.get_running_loop().call_later(due_at - now, self._send, call, due_at)
        else:
            self._send(call, now)

    def _send(self, call: bytes, due_at: float) -> None:
        self._sent_at = due_at
        self._transport.write(call)

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)
        self._transport.close()


async def drive(options: argparse.Namespace) -> dict[str, object]:
    """Close positions for so many seconds; statuses by count, latencies in milliseconds, the CPU time in seconds."""
    loop = asyncio.get_running_loop()
    token = os.environ.get("BENCH_TOKEN")
    cpu_s = time.process_time()
    started = time.perf_counter()
    tally = Tally(
        next_position=options.first,
        last_position=options.last,
        starts_at=started,
        ends_at=started + options.seconds,
        headers=f"Authorization: Bearer {token}\r\n" if token else "",
        size=options.size,
        rate=options.rate,
    )
    ends: list[asyncio.Future[None]] = [loop.create_future() for _ in range(options.clients)]
    for ended in ends:
        await loop.create_connection(partial(Client, tally, ended), "127.0.0.1", options.port)
    await asyncio.gather(*ends)
    took = time.perf_counter() - started
    ranked = sorted(tally.latencies_s) or [0.0]
    return {
        "seconds": took,
        "statuses": dict(tally.statuses),
        "used": tally.next_position - options.first,
        "per_second": tally.statuses["201"] / took,
        "p50_ms": 1000 * ranked[len(ranked) // 2],
        "p99_ms": 1000 * ranked[len(ranked) * 99 // 100],
        "exhausted": tally.next_position > options.last,
        "cpu_s": time.process_time() - cpu_s,
    }


def parsed(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, kind in (("port", int), ("clients", int), ("seconds", float), ("first", int), ("last", int)):
        parser.add_argument(name, type=kind)
    parser.add_argument("--size", type=int, default=1)
    parser.add_argument("--rate", type=float)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    print(json.dumps(uvloop.run(drive(parsed(sys.argv[1:])))))
