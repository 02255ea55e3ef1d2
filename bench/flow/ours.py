"""closeflow itself under the load: all its services, PostgreSQL, Kafka and Connect, with one of two brokers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
from aiokafka import AIOKafkaConsumer, TopicPartition
from psycopg.rows import dict_row

import devstack
from bench.accepting import REST_LOAD, loaded, start_load
from bench.cpu import cpu_seconds
from bench.flow import ageing
from bench.flow.lean import LEAN, start_lean, symbol
from broker_simulator.control import Behaviour, FillAtOnce, PositionSpec
from closeflow.kafka.topics import load_topics
from demo.system import ACCOUNT, REPOSITORY, SERVICES, SIMULATOR, System

DATABASE: Final = "bench_flow"
UNLIMITED: Final = "10000"
POLL_S: Final = 0.1
IDLE_AFTER_S: Final = 8.0
CONSUMERS: Final = ("order-submitter", "fill-processor")

_COUNTERS: Final = """
    SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn AS wal, xact_commit AS transactions,
           tup_inserted AS inserted, tup_updated AS updated, tup_deleted AS deleted,
           (SELECT sum(calls) FROM pg_stat_statements WHERE dbid = datid) AS statements
    FROM pg_stat_database WHERE datname = current_database()
"""
_OPEN: Final = "SELECT EXISTS (SELECT FROM positions WHERE id BETWEEN %s AND %s AND status <> 'closed')"
_LATENCIES: Final = """
    SELECT extract(epoch FROM completed_at - created_at)::float8 FROM close_requests
    WHERE position_id BETWEEN %s AND %s AND completed_at IS NOT NULL
"""
_SENDS: Final = """
    SELECT count(*) AS sends, count(*) FILTER (WHERE answer = 'not_sent') AS not_sent FROM order_sends
    WHERE kind = 'submit'
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What was used up to some moment."""

    cpu_s: Mapping[str, float]
    database: Mapping[str, int]
    records: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a run of some closes took. Times in seconds; `used` lies between its start and its last closed position."""

    closes: int
    accepted_s: float
    closed_s: float
    latencies_s: list[float]
    used: Counters
    sends: int
    not_sent: int


def is_ours(process: str) -> bool:
    """Whether a name of `Flow.pids` is an instance of one of our services."""
    return process.startswith(SERVICES)


class Flow:
    """The running system; see `running`."""

    def __init__(self, system: System, pids: Mapping[str, int]) -> None:
        self.system = system
        self.pids = pids
        self._specs = load_topics(REPOSITORY / "schemas" / "topics")

    def counters(self) -> Counters:
        """As they are now."""
        with psycopg.connect(self.system.admin_dsn, row_factory=dict_row) as database:
            database.execute("SELECT pg_stat_force_next_flush()")
            found = database.execute(_COUNTERS).fetchone()
        assert found is not None
        return Counters(
            cpu_s=cpu_seconds(self.pids),
            database={name: int(value) for name, value in found.items()},
            records=asyncio.run(self._ends()),
        )

    async def _ends(self) -> dict[str, int]:
        consumer = AIOKafkaConsumer(bootstrap_servers=self.system.stack.kafka_bootstrap_servers)
        await consumer.start()
        try:
            places = [TopicPartition(one.name, number) for one in self._specs for number in range(one.partitions)]
            ends = await consumer.end_offsets(places)
        finally:
            await consumer.stop()
        return {one.name: sum(end for tp, end in ends.items() if tp.topic == one.name) for one in self._specs}

    def burst(self, first: int, last: int, *, clients: int, within_s: float = 600.0) -> Figures:
        """Close positions `first` to `last` as fast as so many clients can; returns once all are closed."""
        count = last - first + 1
        before = self.counters()
        sent = self._sends()
        began = time.perf_counter()
        arguments = (self.system.port("close-api"), clients, within_s, first, last)
        loading = start_load(REST_LOAD, *arguments, token=self.system.token())
        self._await_closed(first, last, began + within_s)
        closed_s = time.perf_counter() - began
        after = self.counters()
        accepted = loaded(loading)
        if accepted["statuses"] != {"201": count}:
            raise SystemExit(f"not every close was accepted: {accepted['statuses']}")
        with psycopg.connect(self.system.admin_dsn) as database:
            latencies = [one for (one,) in database.execute(_LATENCIES, (first, last))]
        sends = self._sends()
        return Figures(
            closes=count,
            accepted_s=accepted["seconds"],
            closed_s=closed_s,
            latencies_s=latencies,
            used=difference(before, after),
            sends=sends[0] - sent[0],
            not_sent=sends[1] - sent[1],
        )

    def idle(self, seconds: float) -> dict[str, float]:
        """The share of a core that each process takes while nothing is asked for."""
        time.sleep(IDLE_AFTER_S)
        before = cpu_seconds(self.pids)
        began = time.perf_counter()
        time.sleep(seconds)
        after = cpu_seconds(self.pids)
        took = time.perf_counter() - began
        return {name: (after[name] - before[name]) / took for name in self.pids}

    def _await_closed(self, first: int, last: int, deadline: float) -> None:
        with psycopg.connect(self.system.admin_dsn, autocommit=True) as database:
            while True:
                row = database.execute(_OPEN, (first, last)).fetchone()
                assert row is not None
                if not row[0]:
                    return
                if time.perf_counter() > deadline:
                    raise SystemExit(f"not every position is closed in time; see {self.system.directory}")
                time.sleep(POLL_S)

    def _sends(self) -> tuple[int, int]:
        with psycopg.connect(self.system.admin_dsn) as database:
            row = database.execute(_SENDS).fetchone()
        assert row is not None
        return row[0], row[1]


def difference(before: Counters, after: Counters) -> Counters:
    """What was used in between."""
    return Counters(
        cpu_s={name: after.cpu_s[name] - before.cpu_s[name] for name in before.cpu_s},
        database={name: after.database[name] - before.database[name] for name in before.database},
        records={name: after.records[name] - before.records[name] for name in before.records},
    )


@contextmanager
def running(
    stack: devstack.Stack,
    *,
    positions: int,
    broker: str,
    call_s: float,
    limited: bool,
    instances: int = 1,
    over: int = 0,
) -> Iterator[Flow]:
    """The whole system with positions 1..n open among so many closes that are `over`, so many instances of each
    consumer, and the named broker, `lean` or `simulator`; an order takes the lean one `call_s`. Calls to the broker and
    submits of the account are `limited` as by default, or not at all."""
    system = System(stack, DATABASE, Path(stack.data_dir) / "bench")
    settings = {} if limited else {"order-submitter": {"RATE_PER_S": UNLIMITED}}
    if broker == "lean":
        address = f"ws://127.0.0.1:{system.port(LEAN)}/stream"
        settings.setdefault("broker-gateway", {})["BROKER_STREAM_URL"] = address
    system.overrides = settings
    system.wipe()
    system.prepare()
    for log in system.directory.glob("*.log"):
        log.unlink()
    if over:
        ageing.age(system, over)
    _hold(system, positions, limited=limited)
    pids = {}
    lean = None
    try:
        if broker == "lean":
            ports = {"port": system.port(SIMULATOR), "stream_port": system.port(LEAN)}
            lean = start_lean(system.directory, **ports, positions=positions, call_s=call_s)
            pids[LEAN] = lean.process.pid
        else:
            system.start(SIMULATOR)
            _fill_simulator(system, positions)
        system.start(*SERVICES, *(f"{name}-{number}" for number in range(2, instances + 1) for name in CONSUMERS))
        pids |= {name: service.process.pid for name, service in system.running.items()}
        parts = devstack.status(stack.instance).parts
        pids |= {name: part.pid for name, part in parts.items() if part.pid is not None}
        yield Flow(system, pids)
    finally:
        system.close()
        if lean is not None:
            lean.kill()
        system.wipe()


def _hold(system: System, count: int, *, limited: bool) -> None:
    with psycopg.connect(system.admin_dsn, autocommit=True) as database:
        database.execute("CREATE EXTENSION pg_stat_statements")
        database.execute("INSERT INTO accounts (account_id, broker) VALUES (%s, 'alpaca')", (ACCOUNT,))
        with (
            database.cursor() as cursor,
            cursor.copy(
                "COPY positions (id, account_id, symbol, asset_type, opening_qty, quantity) FROM STDIN"
            ) as copy,
        ):
            for number in range(1, count + 1):
                copy.write_row((number, ACCOUNT, symbol(number), "stock", 10, 10))
        if not limited:
            database.execute("UPDATE account_limits SET submits_per_minute = 1000000")
        database.execute("VACUUM ANALYZE positions")


def _fill_simulator(system: System, positions: int) -> None:
    with system.control() as control:
        held = [PositionSpec(symbol=symbol(one), asset_type="stock", quantity=10) for one in range(1, positions + 1)]
        control.set_positions(held)
        control.script(Behaviour(execution=FillAtOnce()))
