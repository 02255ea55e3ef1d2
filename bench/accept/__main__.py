"""Run the comparison: `python -m bench.accept [--admin-dsn postgresql://...]`; without a DSN, on the stack `bench`.

Both services run against one fresh database, in turns, under the same load. Exit code 1 if the ratio is below the aim.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from typing import Any, Final

from bench.accepting import (
    ACCOUNT,
    REST_LOAD,
    all_accepted,
    close_api,
    fresh_database,
    loaded,
    orm_baseline,
    running,
    start_load,
)
from devstack import control

AIM: Final = 6.0
DATABASE: Final = "bench_accept"


def load(port: int, clients: int, seconds: float, first: int, last: int) -> dict[str, Any]:
    """What `bench.accept.load` measured of positions `first` to `last`; exits unless every close was a 201."""
    return all_accepted(loaded(start_load(REST_LOAD, port, clients, seconds, first, last)))


def measure(dsn: str, options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Warm both up, then measure them in turns, so that what else the machine does meets both."""
    services = {
        "close-api": close_api(dsn, {"CLOSE_API_AUTH": "disabled"}),
        "ORM session per request": orm_baseline(dsn),
    }
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in services}
    position = 1
    for turn in range(options.turns + 1):
        for name, service in services.items():
            with running(service):
                position += load(service.port, options.clients, 1.0, position, options.positions)["used"]
                found = load(service.port, options.clients, options.seconds, position, options.positions)
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
    runs = measure(fresh_database(admin_dsn, DATABASE, {ACCOUNT: options.positions}), options)
    rates = {name: [run["per_second"] for run in found] for name, found in runs.items()}
    ratio = statistics.median(ours / plain for ours, plain in zip(*rates.values(), strict=True))
    print("median: " + ", ".join(f"{name} {statistics.median(found):.0f}/s" for name, found in rates.items()))
    print(f"ratio, median of the turns: {ratio:.1f} x (aim: at least {AIM:g} x)")
    return 0 if ratio >= AIM else 1


if __name__ == "__main__":
    raise SystemExit(main())
