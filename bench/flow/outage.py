"""Connect away for a minute while closes go on: what accepting notices of it, and how soon it is made good."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import aiohttp

import devstack
from bench.flow import steady
from bench.flow.ours import Flow

ACCEPT_AIM: Final = 1.2
DRAIN_AIM: Final = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """Seconds from each POST to its answer while Connect was there and while it was away, and what was made good."""

    accepts_s: Sequence[float]
    accepts_away_s: Sequence[float]
    behind: int
    """Positions that were not closed when Connect had come back."""
    drained_s: float


async def measure(flow: Flow, first: int, rate: float, away_s: float) -> Outage:
    """Ask for closes at the rate, before the outage and during it; returns once every position is closed."""
    count = int(rate * away_s)
    before = await _accepts(flow, first, first + count - 1, rate)
    await steady.closed(flow.system.admin_dsn, first, first + count - 1)
    first += count
    last = first + count - 1
    await asyncio.to_thread(devstack.kill_part, flow.system.stack.instance, "connect")
    away = await _accepts(flow, first, last, rate)
    await asyncio.to_thread(devstack.start_part, flow.system.stack.instance, "connect")
    began = time.perf_counter()
    await steady.closed(flow.system.admin_dsn, first, last, within_s=10 * away_s)
    return Outage(accepts_s=before, accepts_away_s=away, behind=count, drained_s=time.perf_counter() - began)


async def _accepts(flow: Flow, first: int, last: int, rate: float) -> list[float]:
    took: list[float] = []

    async def close(number: int) -> None:
        began = time.perf_counter()
        await steady.close(http, number)
        took.append(time.perf_counter() - began)

    async with aiohttp.ClientSession(flow.system.url(), headers=flow.system.authorization()) as http:
        begin = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for number in range(first, last + 1):
                await asyncio.sleep(max(0.0, begin + (number - first) / rate - time.perf_counter()))
                tasks.create_task(close(number))
    return took
