"""What the alternatives share: a database with open positions, the lean broker, their processes, what is measured."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import httpx
import psycopg

import devstack
from bench.accepting import REST_LOAD, loaded, start_load
from bench.cpu import cpu_seconds
from bench.flow.lean import LEAN, LeanBroker, start_lean, symbol
from closeflow.storage.schema.databases import drop_database, ensure_database
from demo.services import free_port
from demo.system import REPOSITORY
from devstack.processes import spawn

BOOKS: Final = Path(__file__).with_name("books.sql")
HELD: Final = 10
POLL_S: Final = 0.05
START_WITHIN_S: Final = 60.0
STOP_WITHIN_S: Final = 20.0
SLOWEST: Final = 4.0

_OPEN: Final = "SELECT count(*) FROM positions WHERE id BETWEEN %s AND %s AND status <> 'closed'"
_LATENCIES: Final = """
    SELECT extract(epoch FROM completed_at - created_at)::float8 FROM close_requests
    WHERE position_id BETWEEN %s AND %s AND completed_at IS NOT NULL
"""
_WRONG: Final = """
    SELECT count(*) FROM positions p WHERE status <> 'closed' OR quantity <> 0
       OR (SELECT count(*) FROM close_requests r WHERE r.position_id = p.id AND r.filled_qty = %(held)s) <> 1
       OR (SELECT count(*) FROM close_requests r WHERE r.position_id = p.id) <> 1
       OR (SELECT coalesce(sum(e.quantity), 0) FROM close_requests r
           JOIN orders o ON o.close_request_id = r.id JOIN executions e USING (client_order_id)
           WHERE r.position_id = p.id) <> %(held)s
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a burst took. Times in seconds; `latencies_s` are from the request to the closed position, by the database;
    `cpu_s` is by process. `orders` and `repeated` are the broker's count of all orders, those of the warm-up too."""

    closes: int
    accepted_s: float
    closed_s: float
    latencies_s: list[float]
    cpu_s: Mapping[str, float]
    orders: int
    repeated: int


@dataclass(slots=True)
class Setting:
    """Where an alternative runs; see `prepared`."""

    stack: devstack.Stack
    directory: Path
    dsn: str
    broker: LeanBroker
    positions: int
    pids: dict[str, int] = field(default_factory=dict)
    _started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start a process of the alternative, ready or not. `bench` is on its path; its log is `<name>.log`."""
        process = spawn(
            command,
            log=self.directory / f"{name}.log",
            directory=self.directory,
            signal_on_death=signal.SIGTERM,
            environment={"PYTHONPATH": str(REPOSITORY), **environment},
        )
        self._started.append(process)
        self.pids[name] = process.pid

    def serve(self, name: str, command: Sequence[str], environment: Mapping[str, str], port: int) -> None:
        """Start a process and wait until it answers HTTP on `port`, whatever it answers."""
        self.start(name, command, environment)
        process = self._started[-1]
        deadline = time.monotonic() + START_WITHIN_S
        while time.monotonic() < deadline and process.poll() is None:
            try:
                httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=2.0)
            except httpx.TransportError:
                time.sleep(0.05)
            else:
                return
        raise SystemExit(f"{name} did not start; see {self.directory / name}.log")

    def await_line(self, name: str, line: str) -> None:
        """Wait until the process has printed this line."""
        log = self.directory / f"{name}.log"
        deadline = time.monotonic() + START_WITHIN_S
        while line not in log.read_text().splitlines():
            if time.monotonic() > deadline or any(one.poll() is not None for one in self._started):
                raise SystemExit(f"{name} did not start; see {log}")
            time.sleep(0.05)

    def count_parts(self, *names: str) -> None:
        """Count the CPU of these parts of the stack too."""
        parts = devstack.status(self.stack.instance).parts
        self.pids |= {name: pid for name in names if (pid := parts[name].pid) is not None}

    def burst(self, port: int, first: int, last: int, *, clients: int) -> Outcome:
        """Close positions `first` to `last` over the API on `port`, as fast as so many clients can; returns once all
        are closed. Exits where they are not at SLOWEST a second."""
        within_s = START_WITHIN_S + (last - first + 1) / SLOWEST
        before = cpu_seconds(self.pids)
        began = time.perf_counter()
        with start_load(REST_LOAD, port, clients, within_s, first, last) as loading:
            try:
                self._await_closed(first, last, began + within_s)
            except BaseException:
                loading.kill()
                raise
            closed_s = time.perf_counter() - began
            after = cpu_seconds(self.pids)
            accepted = loaded(loading)
        if accepted["statuses"] != {"201": last - first + 1}:
            raise SystemExit(f"not every close was accepted: {accepted['statuses']}")
        with psycopg.connect(self.dsn) as database:
            latencies = [one for (one,) in database.execute(_LATENCIES, (first, last))]
        orders, repeated = self.broker.sent()
        return Outcome(
            closes=last - first + 1,
            accepted_s=accepted["seconds"],
            closed_s=closed_s,
            latencies_s=latencies,
            cpu_s={name: after[name] - before[name] for name in before},
            orders=orders,
            repeated=repeated,
        )

    def warm_up_and_measure(self, port: int, *, closes: int, clients: int) -> Outcome:
        """Close the first positions uncounted and the last `closes` measured. Exits where a position was not closed by
        exactly one request, order and set of fills, or the broker got another number of orders."""
        self.burst(port, 1, self.positions - closes, clients=clients)
        outcome = self.burst(port, self.positions - closes + 1, self.positions, clients=clients)
        with psycopg.connect(self.dsn) as database:
            row = database.execute(_WRONG, {"held": HELD}).fetchone()
        assert row is not None
        if row[0] or outcome.orders != self.positions:
            raise SystemExit(
                f"{row[0]} of {self.positions} positions are not closed exactly once; the broker has {outcome.orders}"
                f" orders; see {self.directory}"
            )
        return outcome

    def stop(self) -> None:
        """End what was started, the last first, with SIGKILL where SIGTERM is not enough."""
        for process in self._started:
            if process.poll() is None:
                process.terminate()
        while self._started:
            process = self._started.pop()
            try:
                process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _await_closed(self, first: int, last: int, deadline: float) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as database:
            while True:
                row = database.execute(_OPEN, (first, last)).fetchone()
                assert row is not None
                if row[0] == 0:
                    return
                ended = [one.args for one in self._started if one.poll() is not None]
                if ended or time.perf_counter() > deadline:
                    why = f"{ended} ended" if ended else "not in time"
                    raise SystemExit(f"{row[0]} positions are not closed: {why}; see {self.directory}")
                time.sleep(POLL_S)


@contextmanager
def prepared(stack: devstack.Stack, name: str, *, positions: int, call_s: float) -> Iterator[Setting]:
    """A database `bench_<name>` with the tables of books.sql and open positions 1..n of HELD each, and the lean broker
    that holds them. All of it, and every process that was started, is gone afterwards; logs stay."""
    directory = Path(stack.data_dir) / "bench" / name
    directory.mkdir(parents=True, exist_ok=True)
    _clear(directory, logs=True)
    database = f"bench_{name}"
    dsn = urlunsplit(urlsplit(stack.admin_dsn)._replace(path=f"/{database}"))
    drop_database(stack.admin_dsn, database)
    ensure_database(stack.admin_dsn, database)
    _fill(dsn, positions)
    broker = start_lean(directory, port=free_port(), stream_port=free_port(), positions=positions, call_s=call_s)
    setting = Setting(stack, directory, dsn, broker, positions, {LEAN: broker.process.pid})
    try:
        yield setting
    finally:
        setting.stop()
        broker.kill()
        drop_database(stack.admin_dsn, database)
        _clear(directory, logs=False)


def _clear(directory: Path, *, logs: bool) -> None:
    for path in directory.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif logs or path.suffix != ".log":
            path.unlink()


def _fill(dsn: str, count: int) -> None:
    with psycopg.connect(dsn, autocommit=True) as database:
        database.execute(BOOKS.read_bytes())
        copying = "COPY positions (id, account_id, symbol, quantity) FROM STDIN"
        with database.cursor() as cursor, cursor.copy(copying) as copy:
            for number in range(1, count + 1):
                copy.write_row((number, "main", symbol(number), HELD))
        database.execute("VACUUM ANALYZE positions")
