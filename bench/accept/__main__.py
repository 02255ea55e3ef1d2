"""Run the comparison: `python -m bench.accept [--admin-dsn postgresql://...]`; without a DSN, on the stack `bench`.

Both services run against one fresh database, in turns, under the same load. Exit code 1 if the ratio is below the aim.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import psycopg

from closeflow.storage.schema.migrate import upgrade
from devstack import control

AIM: Final = 6.0
DATABASE: Final = "bench_accept"
START_WITHIN_S: Final = 20.0
HERE: Final = Path(__file__).parent


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def fresh_database(admin_dsn: str, positions: int) -> str:
    """A migrated database with open stock positions 1..n; dropped first if a run before left it."""
    with psycopg.connect(admin_dsn, autocommit=True) as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
        admin.execute(f"CREATE DATABASE {DATABASE}")
    dsn = urlunsplit(urlsplit(admin_dsn)._replace(path=f"/{DATABASE}"))
    upgrade(dsn)
    with psycopg.connect(dsn, autocommit=True) as database:
        database.execute("INSERT INTO accounts (account_id, broker) VALUES ('BENCH', 'none')")
        database.execute(
            "INSERT INTO positions (id, account_id, symbol, asset_type, opening_qty, quantity)"
            " SELECT n, 'BENCH', 'S' || n, 'stock', 10, 10 FROM generate_series(1, %s) n",
            (positions,),
        )
        database.execute("VACUUM ANALYZE positions")
    return dsn


@contextmanager
def running(arguments: list[str], environment: Mapping[str, str], port: int) -> Iterator[None]:
    """The service as a process, answering on `port`; it is killed at the end. Exits where it does not answer within
    START_WITHIN_S."""
    process = subprocess.Popen([sys.executable, *arguments], env={**os.environ, **environment})
    try:
        deadline = time.monotonic() + START_WITHIN_S
        while not answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{' '.join(arguments)} did not start")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(10)


def answers(port: int) -> bool:
    """Whether an HTTP server is there, whatever it says of its health."""
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def load(port: int, clients: int, seconds: float, first: int, last: int) -> dict[str, Any]:
    """What `bench.accept.load` measured of positions `first` to `last`; exits unless every close was a 201."""
    arguments = [sys.executable, str(HERE / "load.py"), *map(str, (port, clients, seconds, first, last))]
    found: dict[str, Any] = json.loads(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout)
    if set(found["statuses"]) != {"201"} or found["exhausted"]:
        raise SystemExit(f"not every close was accepted: {found}")
    return found


def measure(dsn: str, options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Warm both up, then measure them in turns, so that what else the machine does meets both."""
    ours, plain = free_port(), free_port()
    services = {
        "close-api": (["-m", "close_api"], ours),
        "ORM session per request": ([str(HERE / "baseline.py"), str(plain)], plain),
    }
    environment = {
        "CLOSE_API_POSTGRES_DSN": dsn,
        "CLOSE_API_AUTH": "disabled",
        "CLOSE_API_HTTP_PORT": str(ours),
        "BASELINE_DSN": dsn.replace("postgresql://", "postgresql+psycopg://", 1),
    }
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in services}
    position = 1
    for turn in range(options.turns + 1):
        for name, (arguments, port) in services.items():
            with running(arguments, environment, port):
                position += load(port, options.clients, 1.0, position, options.positions)["used"]
                found = load(port, options.clients, options.seconds, position, options.positions)
            position += found["used"]
            if turn:
                runs[name].append(found)
                print(
                    f"  {name:24} {found['per_second']:7.0f} closes/s   p50 {found['p50_ms']:6.1f} ms"
                    f"   p99 {found['p99_ms']:6.1f} ms",
                    flush=True,
                )
    return runs


def main() -> int:
    """Measure both services in turns and print their figures; the exit code is 1 below the aim."""
    parser = argparse.ArgumentParser(prog="python -m bench.accept", description=__doc__)
    parser.add_argument("--admin-dsn", help="a PostgreSQL that databases may be made in")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=6.0, help="per turn and service")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--positions", type=int, default=150_000)
    options = parser.parse_args()
    admin_dsn = options.admin_dsn or control.up("bench", lambda line: print(line, file=sys.stderr)).admin_dsn
    print(f"closes accepted over REST, {options.clients} clients, {options.turns} turns of {options.seconds:g} s each")
    runs = measure(fresh_database(admin_dsn, options.positions), options)
    rates = {name: [run["per_second"] for run in found] for name, found in runs.items()}
    ratio = statistics.median(ours / plain for ours, plain in zip(*rates.values(), strict=True))
    print("median: " + ", ".join(f"{name} {statistics.median(found):.0f}/s" for name, found in rates.items()))
    print(f"ratio, median of the turns: {ratio:.1f} x (aim: at least {AIM:g} x)")
    return 0 if ratio >= AIM else 1


if __name__ == "__main__":
    raise SystemExit(main())
