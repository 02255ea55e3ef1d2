"""Closes over gRPC: unary calls side by side, or streams whose messages carry many closes.

    grpc_load.py PORT unary  CALLS   SECONDS FIRST LAST
    grpc_load.py PORT stream STREAMS SECONDS FIRST LAST --size N --window W

Each unary call, and each message of a stream, is sent when an answer has made room: CALLS of them at a time, or W
messages on each stream. What it measured is printed as JSON, as `bench.accept.load` does. The bearer token is taken
from BENCH_TOKEN. Messages are made and counted here and pass the library as bytes.
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
from typing import Any, Final

import grpc
import uvloop

from close_api.grpc.generated import close_pb2 as pb

_SERVICE: Final = "/closeflow.close.v1.CloseService/"


@dataclass(slots=True)
class Tally:
    """What the calls share: the next position, when to stop, and what came back (latencies in seconds)."""

    next_position: int
    last_position: int
    ends_at: float
    size: int
    statuses: Counter[str] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)

    def take(self) -> range | None:
        """The next positions to close; None at the end of the time or of the positions."""
        first = self.next_position
        if time.perf_counter() >= self.ends_at:
            return None
        if first + self.size - 1 > self.last_position:
            self.next_position = self.last_position + 1
            return None
        self.next_position = first + self.size
        return range(first, first + self.size)


async def call(channel: grpc.aio.Channel, metadata: tuple[tuple[str, str], ...], tally: Tally) -> None:
    """Unary calls, one after another."""
    close: Any = channel.unary_unary(_SERVICE + "ClosePosition")
    while (positions := tally.take()) is not None:
        one = pb.Close(position_id=positions[0], idempotency_key=f"bench-{positions[0]}")
        sent_at = time.perf_counter()
        try:
            await close(pb.ClosePositionRequest(close=one).SerializeToString(), metadata=metadata)
        except grpc.aio.AioRpcError as error:
            tally.statuses[f"{error.code().name}: {error.details()}"] += 1
        else:
            tally.statuses["201"] += 1
        tally.latencies_s.append(time.perf_counter() - sent_at)


async def stream(channel: grpc.aio.Channel, metadata: tuple[tuple[str, str], ...], tally: Tally, window: int) -> None:
    """One stream with so many messages on their way."""
    closes: Any = channel.stream_stream(_SERVICE + "ClosePositions")(metadata=metadata)
    sent_at: dict[int, float] = {}
    going_on = True

    async def send() -> bool:
        positions = tally.take()
        if positions is None:
            return False
        items = [pb.Close(position_id=one, idempotency_key=f"bench-{one}") for one in positions]
        message = pb.ClosePositionsRequest(batch_id=positions[0], closes=items).SerializeToString()
        sent_at[positions[0]] = time.perf_counter()
        await closes.write(message)
        return True

    try:
        while going_on and len(sent_at) < window:
            going_on = await send()
        while sent_at:
            answer = pb.ClosePositionsResponse.FromString(await closes.read())
            tally.latencies_s.append(time.perf_counter() - sent_at.pop(answer.batch_id))
            if going_on:
                going_on = await send()
            for result in answer.results:
                tally.statuses["201" if result.WhichOneof("result") == "close_request" else "not accepted"] += 1
        await closes.done_writing()
    except grpc.aio.AioRpcError as error:
        tally.statuses[f"{error.code().name}: {error.details()}"] += 1


async def drive(options: argparse.Namespace) -> dict[str, object]:
    """Close positions for so many seconds; as `bench.accept.load.drive`."""
    metadata = (("authorization", f"Bearer {os.environ['BENCH_TOKEN']}"),)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{options.port}") as channel:
        await channel.channel_ready()
        cpu_s = time.process_time()
        started = time.perf_counter()
        tally = Tally(options.first, options.last, started + options.seconds, options.size)
        if options.how == "unary":
            await asyncio.gather(*(call(channel, metadata, tally) for _ in range(options.side_by_side)))
        else:
            streams = (stream(channel, metadata, tally, options.window) for _ in range(options.side_by_side))
            await asyncio.gather(*streams)
        took = time.perf_counter() - started
        cpu_s = time.process_time() - cpu_s
    ranked = sorted(tally.latencies_s) or [0.0]
    return {
        "seconds": took,
        "statuses": dict(tally.statuses),
        "used": tally.next_position - options.first,
        "per_second": tally.statuses["201"] / took,
        "p50_ms": 1000 * ranked[len(ranked) // 2],
        "p99_ms": 1000 * ranked[len(ranked) * 99 // 100],
        "exhausted": tally.next_position > options.last,
        "cpu_s": cpu_s,
    }


def parsed(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("how", choices=("unary", "stream"))
    for name, kind in (("side_by_side", int), ("seconds", float), ("first", int), ("last", int)):
        parser.add_argument(name, type=kind)
    parser.add_argument("--size", type=int, default=1)
    parser.add_argument("--window", type=int, default=2)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    print(json.dumps(uvloop.run(drive(parsed(sys.argv[1:])))))
