"""Closes at a steady rate, whatever the latency is (open loop): how long each takes, and where.

A close is timed from before its POST to the commit that closed its position, as PostgreSQL has noted it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Final

import aiohttp
import psycopg

from demo.system import System

POLL_S: Final = 0.2
CLOSED_WITHIN_S: Final = 30.0
CREATED: Final = 201
_CLOSED: Final = """
    SELECT id, extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 FROM positions
    WHERE id BETWEEN %s AND %s AND status = 'closed'
"""
_STAGES: Final = """
    SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY 1000 * extract(epoch FROM s.started_at - r.created_at)),
           percentile_cont(0.5) WITHIN GROUP (ORDER BY 1000 * extract(epoch FROM s.begun_at - s.started_at)),
           percentile_cont(0.5) WITHIN GROUP (ORDER BY 1000 * extract(epoch FROM e.occurred_at - s.begun_at)),
           percentile_cont(0.5) WITHIN GROUP (ORDER BY 1000 * extract(epoch FROM r.completed_at - e.occurred_at))
    FROM close_requests r JOIN orders o ON o.close_request_id = r.id
    JOIN order_sends s USING (client_order_id) JOIN executions e USING (client_order_id)
    WHERE r.position_id BETWEEN %s AND %s
"""
STAGES: Final = ("accepted -> claimed", "claimed -> begun", "begun -> filled", "filled -> booked")


async def measure(system: System, first: int, last: int, rate: float) -> list[float]:
    """Seconds from request to closed, one for each position."""
    asked: dict[int, float] = {}
    async with aiohttp.ClientSession(system.url(), headers=system.authorization()) as http:
        begin = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for number in range(first, last + 1):
                await asyncio.sleep(max(0.0, begin + (number - first) / rate - time.perf_counter()))
                asked[number] = time.time()
                tasks.create_task(close(http, number))
    ended = await closed(system.admin_dsn, first, last)
    return [ended[number] - at for number, at in asked.items()]


def stages(system: System, first: int, last: int) -> Mapping[str, float]:
    """By stage, the median in milliseconds, by the clocks of the database and of the broker, which are the host's."""
    with psycopg.connect(system.admin_dsn) as database:
        row = database.execute(_STAGES, (first, last)).fetchone()
    assert row is not None
    return dict(zip(STAGES, row, strict=True))


async def close(http: aiohttp.ClientSession, number: int) -> None:
    """Ask for one close; exits where it is not accepted."""
    async with http.post(
        f"/v1/positions/{number}/close", headers={"Idempotency-Key": f"bench-{number}"}, json={}
    ) as answer:
        if answer.status != CREATED:
            raise SystemExit(f"position {number}: {answer.status} {await answer.text()}")


async def closed(dsn: str, first: int, last: int, *, within_s: float = CLOSED_WITHIN_S) -> dict[int, float]:
    """When each position was closed, in seconds since 1970, once all are."""
    deadline = time.monotonic() + within_s
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as database:
        while True:
            rows = await (await database.execute(_CLOSED, (first, last))).fetchall()
            if len(rows) == last - first + 1:
                return dict(rows)
            if time.monotonic() > deadline:
                raise SystemExit(f"{last - first + 1 - len(rows)} positions are not closed in time")
            await asyncio.sleep(POLL_S)
