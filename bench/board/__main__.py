"""Run it: `python -m bench.board [--closes 10000] [--rate 100]`, on the stack `bench`.

So many closes are accepted while nobody plans them, so that all stay open; the connector publishes them. Then: how long
the board takes from its start until it has read them all, also after kill -9; how long its page takes; and the CPU time
of the board, and of close-api for it, in each second in which `--rate` events of positions come and one page is open.
Exit code 1 where the page takes a second or more, or a second of updates 250 ms of CPU or more.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from decimal import Decimal
from statistics import median
from typing import Any, Final
from uuid import UUID, uuid4

import httpx
import psycopg

import devstack
from bench.cpu import cpu_seconds
from bench.figures import milliseconds
from close_board.view import ROWS_SHOWN
from closeflow.contracts import PositionEvent, encode
from closeflow.contracts.topics import POSITION_EVENTS, SUBMIT_ORDER
from closeflow.kafka.log_ends import open_log_ends
from closeflow.kafka.producer import Outgoing, open_producer
from demo.system import ACCOUNT, BOARD, System

OVERRIDES: Final = {"close-api": {"RATE_LIMIT_CLOSES": "100000000"}}
DATABASE: Final = "closeflow_bench_board"
PAGE_S: Final = 1.0
READY_WITHIN_S: Final = 300.0
CPU_S: Final = 0.25
LOOKS: Final = 20
MEASURED_S: Final = 20.0
ACCEPTED_AT_ONCE: Final = 500
PUBLISHED_WITHIN_S: Final = 120.0


def prepare(system: System, closes: int) -> None:
    """Nothing of a run before, the positions, and close-api alone."""
    system.wipe()
    system.prepare()
    with psycopg.connect(system.admin_dsn, autocommit=True) as database:
        database.execute("INSERT INTO accounts (account_id, broker) VALUES (%s, 'alpaca')", (ACCOUNT,))
        database.execute(
            "INSERT INTO positions (id, account_id, symbol, asset_type, opening_qty, quantity)"
            " SELECT n, %s, 'S' || n, 'stock', 10, 10 FROM generate_series(1, %s) n",
            (ACCOUNT, closes),
        )
        database.execute("VACUUM ANALYZE positions")
    system.start("close-api")


def accept(system: System, closes: int) -> None:
    """By batches, as a portfolio service would."""
    with httpx.Client(base_url=system.url(), headers=system.authorization(), timeout=60) as http:
        for first in range(1, closes + 1, ACCEPTED_AT_ONCE):
            ids = range(first, min(closes, first + ACCEPTED_AT_ONCE - 1) + 1)
            body = {"closes": [{"position_id": one} for one in ids]}
            answer = http.post("/v1/positions:batchClose", json=body, headers={"Idempotency-Key": f"b{first}"})
            answer.raise_for_status()


def started(system: System) -> float:
    """Seconds from the start of the board's process until it has read all and is ready."""
    at, service = time.monotonic(), system.launch(BOARD)
    while time.monotonic() - at < READY_WITHIN_S and service.running:
        with suppress(httpx.TransportError):
            if httpx.get(service.spec.ready_url, timeout=2).status_code == httpx.codes.OK:
                return time.monotonic() - at
        time.sleep(0.05)
    raise SystemExit(f"the board was not ready within {READY_WITHIN_S:.0f} s; its log is {service.log}")


def log_read(system: System) -> dict[str, Any]:
    """What the board said of the reading."""
    lines = [json.loads(one) for one in (system.directory / f"{BOARD}.log").read_text().splitlines() if one[:1] == "{"]
    return next(one for one in reversed(lines) if one["event"] == "log_read")


@contextmanager
def viewer(system: System) -> Iterator[httpx.Client]:
    """A browser that is logged in."""
    with httpx.Client(base_url=system.board_url(), timeout=60, follow_redirects=True) as http:
        http.post("/login", data={"token": system.token()}).raise_for_status()
        yield http


@contextmanager
def page_open(http: httpx.Client) -> Iterator[list[int]]:
    """One page that takes its events, and how many bytes each had."""
    sizes: list[int] = []
    stop = threading.Event()

    def take() -> None:
        with http.stream("GET", "/events", timeout=60) as events:
            for line in events.iter_lines():
                if line.startswith("data: "):
                    sizes.append(len(line))
                if stop.is_set():
                    return

    taking = threading.Thread(target=take, daemon=True)
    taking.start()
    try:
        yield sizes
    finally:
        stop.set()
        taking.join(30)


async def fill(system: System, requests: Mapping[int, UUID], rate: int, seconds: float) -> int:
    """Publish so many versions a second, each of which says that a little more of a close is filled."""
    sent, begun = 0, time.monotonic()
    versions = dict.fromkeys(requests, 1000)  # Above those of the accepted closes.
    ids = sorted(requests)
    async with open_producer(system.kafka) as producer:
        while (passed := time.monotonic() - begun) < seconds:
            due = []
            while sent < passed * rate:
                position = ids[sent * 7 % len(ids)]
                versions[position] += 1
                value = encode(_filled(position, requests[position], versions[position]))
                due.append(Outgoing(topic=POSITION_EVENTS, key=str(position).encode(), value=value))
                sent += 1
            await producer.publish_many(due)
            await asyncio.sleep(0.02)
    return sent


def _filled(position: int, request: UUID, version: int) -> PositionEvent:
    filled = Decimal(version) / 10_000
    return PositionEvent.model_validate(
        {
            "event_id": uuid4(),
            "event_type": "POSITION_REDUCED",
            "emission": 1,
            "position_id": position,
            "position_version": version,
            "account_id": ACCOUNT,
            "symbol": f"S{position}",
            "asset_type": "stock",
            "position_status": "closing",
            "quantity": 10 - filled,
            "close_request_id": request,
            "close_request_status": "submitted",
            "side": "sell",
            "target_qty": Decimal(10),
            "filled_qty": filled,
            "occurred_at": datetime.now(UTC),
        }
    )


def look(http: httpx.Client) -> tuple[list[float], int]:
    """Seconds that the page takes, whole, and its bytes."""
    took, size = [], 0
    for _ in range(LOOKS):
        at = time.monotonic()
        answer = http.get("/")
        answer.raise_for_status()
        took.append(time.monotonic() - at)
        size = len(answer.content)
    return took, size


def update(system: System, http: httpx.Client, requests: Mapping[int, UUID], rate: int) -> dict[str, list[float]]:
    """CPU seconds of each second in which events come, by process; while nothing comes first."""
    pids = {name: system.running[name].process.pid for name in (BOARD, "close-api")}
    used: dict[str, list[float]] = {name: [] for name in pids}
    with page_open(http) as sizes:
        time.sleep(5)
        sending = threading.Thread(target=lambda: asyncio.run(fill(system, requests, rate, MEASURED_S + 4)))
        sending.start()
        time.sleep(2)
        first = len(sizes)
        while len(used[BOARD]) < MEASURED_S:
            before = cpu_seconds(pids)
            time.sleep(1)
            for name, after in cpu_seconds(pids).items():
                used[name].append(after - before[name])
        told = sizes[first:]
        sending.join()
    changes, size = len(told) / MEASURED_S, sum(told) / len(told) / 1024
    print(f"  one page was sent {changes:.1f} changes a second, of {size:.1f} KiB each")
    return used


def requests_of(system: System) -> dict[int, UUID]:
    """The close of each position."""
    with psycopg.connect(system.admin_dsn) as database:
        return dict(database.execute("SELECT position_id, id FROM close_requests").fetchall())


def main() -> int:
    """Print the figures; 1 where an aim is not reached."""
    parser = argparse.ArgumentParser(prog="bench.board", description=__doc__)
    parser.add_argument("--closes", type=int, default=10_000)
    parser.add_argument("--rate", type=int, default=100, help="events of positions a second")
    given = parser.parse_args()
    system = System(devstack.up("bench"), DATABASE, devstack.up("bench").data_dir / "board", overrides=OVERRIDES)
    try:
        prepare(system, given.closes)
        accept(system, given.closes)
        return measure(system, given.closes, given.rate)
    finally:
        system.close()
        system.wipe()


def measure(system: System, closes: int, rate: int) -> int:
    """What is said in the head of this file."""
    until_published(system, closes)
    ready_s = started(system)
    print(
        f"{closes} closes are open; the board read {log_read(system)['records']} records and was ready {ready_s:.1f} s "
        f"after its start, of which reading {log_read(system)['seconds']} s"
    )
    with viewer(system) as http:
        while http.get("/").text.count('<tr id="close-') < min(closes, ROWS_SHOWN):
            time.sleep(1)  # They are at work for their first seconds, and not stuck.
        took, size = look(http)
        print(f"  page: {milliseconds(took)}, {size / 1024:.0f} KiB")
        used = update(system, http, requests_of(system), rate)
    for name, seconds in used.items():
        told = f"median {1000 * median(seconds):.0f} ms, most {1000 * max(seconds):.0f} ms"
        print(f"  {name}: {told} of CPU in a second with {rate} events")
    system.kill(BOARD)
    again_s = started(system)
    print(f"  after kill -9: ready {again_s:.1f} s after its start, {log_read(system)['records']} records read")
    with viewer(system) as http:
        page = http.get("/").text
    assert f'id="open-total">{closes}<' in page
    return int(max(took) >= PAGE_S or median(used[BOARD]) >= CPU_S)


def until_published(system: System, closes: int) -> None:
    """Until Kafka has an event of each position and of each attempt."""
    deadline = time.monotonic() + PUBLISHED_WITHIN_S
    while asyncio.run(records(system)) < 2 * closes:
        if time.monotonic() > deadline:
            raise SystemExit(f"the closes are not published within {PUBLISHED_WITHIN_S:.0f} s")
        time.sleep(0.5)


async def records(system: System) -> int:
    """How many the board's topics have."""
    async with open_log_ends(system.kafka, [POSITION_EVENTS, SUBMIT_ORDER]) as ends:
        return sum((await ends.ends()).values())


if __name__ == "__main__":
    sys.exit(main())
