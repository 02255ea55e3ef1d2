"""Run it: `python -m bench.closing [--rate 20]`, on the stack `bench`, with a broker that fills at once.

A first round of the same length is not counted: the virtual machines of Kafka and Connect compile while it runs (seen:
a p50 of 142 ms in their first half minute, 58 ms after it).

Closes are asked for at a steady rate (open loop), each timed from before its POST until a poll of the database, every
few milliseconds, sees the position closed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path
from typing import Final

import httpx
import psycopg

import devstack
from bench.figures import milliseconds
from broker_simulator.control import Behaviour, FillAtOnce, PositionSpec
from demo.system import ACCOUNT, SIMULATOR, System

DATABASE: Final = "bench_closing"
POLL_S: Final = 0.003
CLOSED_WITHIN_S: Final = 30.0
CLOSED: Final = "SELECT id FROM positions WHERE id = ANY(%s) AND status = 'closed'"


def symbol(number: int) -> str:
    """Four letters, a different one for every number below 26³."""
    return "B" + "".join(chr(65 + number // 26**place % 26) for place in (2, 1, 0))


def fill(system: System, count: int) -> None:
    """Positions 1..count, here and at the broker."""
    with psycopg.connect(system.admin_dsn, autocommit=True) as database:
        database.execute("INSERT INTO accounts (account_id, broker) VALUES (%s, 'alpaca')", (ACCOUNT,))
        with database.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO positions (id, account_id, symbol, asset_type, opening_qty, quantity)"
                " VALUES (%s, %s, %s, 'stock', 10, 10)",
                [(number, ACCOUNT, symbol(number)) for number in range(1, count + 1)],
            )
    with system.control() as control:
        held = [PositionSpec(symbol=symbol(one), asset_type="stock", quantity=10) for one in range(1, count + 1)]
        control.set_positions(held)
        control.script(Behaviour(execution=FillAtOnce()))


async def measure(system: System, first: int, last: int, rate: float) -> list[float]:
    """Seconds from request to closed, one for each position."""
    asked: dict[int, float] = {}
    closed: dict[int, float] = {}
    watching = asyncio.create_task(_watch(system.admin_dsn, last - first + 1, asked, closed))
    async with httpx.AsyncClient(base_url=system.url(), timeout=10) as http:
        begin = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for number in range(first, last + 1):
                await asyncio.sleep(max(0.0, begin + (number - first) / rate - time.perf_counter()))
                asked[number] = time.perf_counter()
                tasks.create_task(_close(http, number))
    async with asyncio.timeout(CLOSED_WITHIN_S):
        await watching
    return [closed[number] - at for number, at in asked.items()]


async def _close(http: httpx.AsyncClient, number: int) -> None:
    answer = await http.post(f"/v1/positions/{number}/close", headers={"Idempotency-Key": f"bench-{number}"}, json={})
    if answer.status_code != httpx.codes.CREATED:
        raise SystemExit(f"position {number}: {answer.status_code} {answer.text}")


async def _watch(dsn: str, count: int, asked: dict[int, float], closed: dict[int, float]) -> None:
    """Note when each position that was asked for is seen closed; asks only about those that are not yet."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as database:
        while len(closed) < count:
            open_ones = [number for number in asked if number not in closed]
            if open_ones:
                rows = await (await database.execute(CLOSED, (open_ones,))).fetchall()
                now = time.perf_counter()
                closed.update((number, now) for (number,) in rows)
            await asyncio.sleep(POLL_S)


def main() -> int:
    """Close at a steady rate, and print the times from the request to the closed position."""
    parser = argparse.ArgumentParser(prog="python -m bench.closing", description=__doc__)
    parser.add_argument("--rate", type=float, default=20.0, help="closes per second")
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    count = int(options.rate * options.seconds)
    stack = devstack.up("bench", lambda line: print(line, file=sys.stderr))
    system = System(stack, DATABASE, Path(stack.data_dir) / "bench")
    system.wipe()
    system.prepare()
    try:
        system.start(SIMULATOR)
        fill(system, 2 * count)
        system.start_all()
        asyncio.run(measure(system, 1, count, options.rate))
        times = asyncio.run(measure(system, count + 1, 2 * count, options.rate))
    finally:
        system.close()
        system.wipe()
    print(f"request -> closed at {options.rate:g} closes/s, the broker fills at once")
    print(f"  {milliseconds(times)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
