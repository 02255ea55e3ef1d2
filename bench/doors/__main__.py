"""Run it: `python -m bench.doors`, on the stack `bench`, or with --admin-dsn on another PostgreSQL.

It measures, one after another and in turns, how many closes are accepted per second:

  ORM             FastAPI with an ORM session for each request (bench.accept's baseline), REST one by one
  REST            close-api, POST /v1/positions/{id}/close, one by one
  REST batch      close-api, POST /v1/positions:batchClose with 100 closes
  gRPC unary      close-api, ClosePosition
  gRPC stream     close-api, ClosePositions with 100 closes a message
  pgbench         what close-api sends to PostgreSQL for a batch of 100, recorded and sent again by pgbench

Every close is of a position that was open, and has to be accepted. close-api runs with its defaults, on a port of its
own, with authentication: tokens are signed with an Ed25519 key that the run makes. A closed loop of clients in a
process of its own is the load. Of each way the median of the turns is printed, with the CPU time that a close takes in
the service, in PostgreSQL and in the load; then how the ways compare. The exit code is 1 where an aim is missed.

With --fairness it measures something else: what one account's single closes take while another account floods
close-api (four connections with batches of 500, and 64 that close one by one), beside what they take alone.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from bench.accepting import ACCOUNT, drop_database, fresh_database, postmaster
from bench.doors import fairness, ways
from bench.doors.issuer import Issuer
from bench.doors.set_based import SIZE, SetBased, find_pgbench, record, store
from bench.doors.ways import PROCESSES, Figures, Ground
from devstack import control

DATABASE: Final = "bench_doors"
RECORDED: Final = "bench_doors_recorded"
ORM, REST, BATCH, UNARY, STREAM, PGBENCH = "ORM", "REST", "REST batch", "gRPC unary", "gRPC stream", "pgbench"
AIMS: Final = ((REST, ORM, 6.0), (BATCH, REST, 2.0), (STREAM, REST, 2.0), (STREAM, PGBENCH, 0.3))
"""Which way has to accept at least so many times as many as which other one."""
_BACKENDS: Final = 2

Turns = Mapping[str, Callable[[], Figures]]


def measure(turns: Turns, count: int) -> dict[str, list[Figures]]:
    """Each way once in every turn, so that what else the machine does meets them all."""
    found: dict[str, list[Figures]] = {name: [] for name in turns}
    for number in range(1, count + 1):
        for name, turn in turns.items():
            found[name].append(turn())
            print(f"  turn {number}  {name:12} {found[name][-1].per_second:7.0f} closes/s", flush=True)
    return found


def show(found: Mapping[str, Sequence[Figures]]) -> None:
    """The medians, one way a line; latencies are of a call, whatever it carries."""
    print(f"\n{'':12}{'closes/s':>10}{'p50 ms':>9}{'p99 ms':>9}   µs of CPU per close:", end="")
    print("".join(f"{process:>11}" for process in PROCESSES))
    for name, figures in found.items():
        rate = _median([one.per_second for one in figures], 10, ".0f")
        latencies = [[one.p50_ms for one in figures], [one.p99_ms for one in figures]]
        used = [[one.cpu_us.get(process) for one in figures] for process in PROCESSES]
        shown = rate + "".join(_median(one, 9, ".1f") for one in latencies) + " " * 23
        print(f"{name:12}{shown}{''.join(_median(one, 11, '.0f') for one in used)}")


def _median(values: Sequence[float | None], width: int, form: str) -> str:
    known = [one for one in values if one is not None]
    return f"{format(statistics.median(known), form) if known else '-':>{width}}"


def compare(found: Mapping[str, Sequence[Figures]]) -> bool:
    """Print how the ways compare, turn by turn and then the median; whether every aim is reached."""
    reached = True
    print()
    for name, other, aim in AIMS:
        if name not in found or other not in found:
            continue
        pairs = zip(found[name], found[other], strict=True)
        ratio = statistics.median(one.per_second / against.per_second for one, against in pairs)
        print(f"{name} : {other:8} {ratio:6.2f} x (aim: at least {aim:g} x){'' if ratio >= aim else '  MISSED'}")
        reached = reached and ratio >= aim
    return reached


def doors(admin_dsn: str, options: argparse.Namespace, directory: Path) -> bool:
    """Measure the ways that are asked for; whether every aim is reached."""
    recorded = options.turns * options.batches if PGBENCH in options.ways else 0
    program = find_pgbench()
    if recorded and program is None:
        raise SystemExit("pgbench is not here: install PostgreSQL's client programs, or leave it out with --ways")
    dsn = fresh_database(admin_dsn, DATABASE, {ACCOUNT: recorded * SIZE + options.positions})
    ground = Ground(
        dsn=dsn,
        postmaster=postmaster(admin_dsn),
        issuer=Issuer(directory),
        next_position=recorded * SIZE + 1,
        last_position=recorded * SIZE + options.positions,
        clients=options.clients,
        seconds=options.seconds,
    )
    turns: dict[str, Callable[[], Figures]] = {
        ORM: partial(ways.orm, ground),
        REST: partial(ways.rest, ground),
        BATCH: partial(ways.rest_batch, ground),
        UNARY: partial(ways.grpc_unary, ground),
        STREAM: partial(ways.grpc_stream, ground),
    }
    if program is not None and recorded:
        recording = record(fresh_database(admin_dsn, RECORDED, {ACCOUNT: recorded * SIZE}), 1, recorded)
        drop_database(admin_dsn, RECORDED)
        store(dsn, recording)
        set_based = SetBased(program, dsn, recording, turn=options.batches, clients=_BACKENDS)
        turns[PGBENCH] = partial(ways.pgbench, ground, set_based)
    print(f"closes accepted, {options.clients} clients, {options.turns} turns of {options.seconds:g} s each")
    found = measure({name: turn for name, turn in turns.items() if name in options.ways}, options.turns)
    show(found)
    return compare(found)


def parsed() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.doors", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    every = (ORM, REST, BATCH, UNARY, STREAM, PGBENCH)
    parser.add_argument("--admin-dsn", help="a PostgreSQL that databases may be made in")
    parser.add_argument("--fairness", action="store_true", help="measure one account beside another one's flood")
    parser.add_argument("--ways", type=lambda given: given.split(","), default=list(every), help=",".join(every))
    parser.add_argument("--clients", type=int, default=64, help="closes on their way where they come one by one")
    parser.add_argument("--seconds", type=float, default=4.0, help="per turn and way")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--positions", type=int, default=400_000, help="how many there are to close")
    parser.add_argument("--batches", type=int, default=300, help="of 100 closes, for each turn of pgbench")
    options = parser.parse_args()
    unknown = set(options.ways) - set(every)
    if unknown:
        parser.error(f"--ways: {', '.join(sorted(unknown))} is none of {', '.join(every)}")
    return options


def main() -> int:
    """Measure what is asked for; the exit code is 1 where an aim is missed."""
    options = parsed()
    admin_dsn = options.admin_dsn or control.up("bench", lambda line: print(line, file=sys.stderr)).admin_dsn
    with tempfile.TemporaryDirectory() as directory:
        asked = fairness.measure if options.fairness else doors
        return 0 if asked(admin_dsn, options, Path(directory)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
