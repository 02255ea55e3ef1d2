"""Run the comparison: `python -m bench.cdc [--rate 100]`, on the stack `bench`.

Two connectors of one worker read the same outbox at the same time: the one of connect/, and one with Debezium's own
defaults for polling and batches. Each row is timed from the return of its COMMIT to a consumer of either topic. Exit
code 1 if the ratio of the medians is below the aim.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

import psycopg
from aiokafka import AIOKafkaConsumer

import devstack
from bench.figures import milliseconds, percentile
from closectl.platform.connector import Outbox, register, unregister
from closeflow.kafka import TopicSpec, ensure_topics
from closeflow.kafka.topics import remove_topics
from demo.system import System

AIM: Final = 30.0
DATABASE: Final = "bench_cdc"
TOPIC: Final = "bench-events"
INSERT: Final = """
    INSERT INTO outbox_events (id, topic, key, event_type, schema_version, payload, position_id)
    VALUES (%s, 'bench-events', %s, 'BENCH', 'bench.v1', %s, 1)
"""
SETTLE_S: Final = 3.0
OURS: Final = ("poll.interval.ms", "max.batch.size", "max.queue.size")


@dataclass(frozen=True, slots=True)
class DefaultOutbox(Outbox):
    """The same connector without our settings of polling and batches: Debezium then uses 500 ms, 2048 and 8192."""

    @property
    def connector(self) -> str:
        """Another name than ours, so that both can be registered in turn."""
        return f"closeflow-defaults-{self.database}"

    @property
    def slot(self) -> str:
        """A slot of its own: two connectors cannot read from one."""
        return f"defaults_{self.database}"

    def config(self) -> dict[str, str]:
        """Our configuration without the settings that differ from Debezium's defaults."""
        return {name: value for name, value in Outbox.config(self).items() if name not in OURS}


class Receiver:
    """Notes when each event id arrives on a topic."""

    def __init__(self, servers: str, topic: str) -> None:
        self._consumer = AIOKafkaConsumer(
            topic, bootstrap_servers=servers, group_id=None, auto_offset_reset="latest", fetch_max_wait_ms=500
        )
        self.arrived: dict[UUID, float] = {}

    async def run(self, started: asyncio.Event) -> None:
        """Note when each event arrives (monotonic seconds), from the topic's end on; `started` is set once nothing can
        be missed."""
        await self._consumer.start()
        await self._consumer.seek_to_end()
        started.set()
        try:
            async for record in self._consumer:
                now = time.perf_counter()
                headers = dict(record.headers)
                self.arrived[UUID(headers["ce_id"].decode())] = now
        finally:
            await self._consumer.stop()


async def measure(dsn: str, servers: str, topics: Sequence[str], rate: float, seconds: float) -> list[list[float]]:
    """Insert at a steady rate, whatever the latency is (open loop); returns seconds per event for each topic."""
    receivers = [Receiver(servers, topic) for topic in topics]
    ready = [asyncio.Event() for _ in receivers]
    tasks = [asyncio.create_task(one.run(event)) for one, event in zip(receivers, ready, strict=True)]
    await asyncio.gather(*(event.wait() for event in ready))
    committed: dict[UUID, float] = {}
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as database:
        begin = time.perf_counter()
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, begin + number / rate - time.perf_counter()))
            event_id = uuid4()
            await database.execute(INSERT, (event_id, str(number), '{"n": 1}'))
            committed[event_id] = time.perf_counter()
        deadline = time.perf_counter() + 15
        while any(len(one.arrived.keys() & committed) < len(committed) for one in receivers):
            if time.perf_counter() > deadline:
                raise SystemExit("not every event arrived; see the log of Connect")
            await asyncio.sleep(0.05)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return [[one.arrived[event_id] - at for event_id, at in committed.items()] for one in receivers]


def main() -> int:
    """Print commit to consumer with Debezium's defaults and with ours; the exit code is 1 below the aim."""
    parser = argparse.ArgumentParser(prog="python -m bench.cdc", description=__doc__)
    parser.add_argument("--rate", type=float, default=100.0, help="events per second")
    parser.add_argument("--seconds", type=float, default=15.0)
    options = parser.parse_args()
    stack = devstack.up("bench", lambda line: print(line, file=sys.stderr))
    system = System(stack, DATABASE, Path(stack.data_dir) / "bench")
    system.wipe()
    system.prepare()
    mine = system.outbox
    defaults = DefaultOutbox(mine.database, mine.host, mine.port, mine.credentials_file, "defaults-")
    topics = (TOPIC, f"defaults-{TOPIC}")
    specs = [TopicSpec(name=name, partitions=6, config={}) for name in topics]
    asyncio.run(remove_topics(system.kafka, specs))
    asyncio.run(ensure_topics(system.kafka, specs))
    unregister(stack.connect_url, defaults, dsn=stack.admin_dsn)
    register(stack.connect_url, defaults, dsn=system.admin_dsn)
    try:
        asyncio.run(measure(system.admin_dsn, stack.kafka_bootstrap_servers, topics, options.rate, SETTLE_S))
        found = asyncio.run(
            measure(system.admin_dsn, stack.kafka_bootstrap_servers, topics, options.rate, options.seconds)
        )
    finally:
        unregister(stack.connect_url, defaults, dsn=system.admin_dsn)
        system.wipe()
    print(f"commit -> consumer at {options.rate:g} events/s, both connectors on the same rows")
    for name, times in zip(("connect/outbox-connector.json", "Debezium's defaults"), found, strict=True):
        print(f"  {name:30} {milliseconds(times)}")
    ratio = percentile(found[1], 0.5) / percentile(found[0], 0.5)
    print(f"ratio of the medians: {ratio:.0f} x (aim: at least {AIM:g} x)")
    return 0 if ratio >= AIM else 1


if __name__ == "__main__":
    raise SystemExit(main())
