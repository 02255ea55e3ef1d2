"""One account's single closes, alone and beside another account that asks for all it can.

The quiet account closes at a steady rate, whatever the answers take, so that a slow one delays no other and is counted
with all of its wait. What is compared is the 99th percentile, alone and beside the flood, in the same turn.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any, Final

from bench.accepting import REST_LOAD, all_accepted, close_api, fresh_database, loaded, running, start_load
from bench.doors.issuer import Issuer

AIM: Final = 2.0
DATABASE: Final = "bench_fairness"
QUIET: Final = "QUIET"
FLOOD: Final = "FLOOD"
RATE: Final = 50.0
_QUIET_CLIENTS: Final = 16
_BATCH: Final = 500
_BATCH_CLIENTS: Final = 4
_SINGLE_CLIENTS: Final = 64
_FLOOD_BEFORE_S: Final = 2.0


def measure(admin_dsn: str, options: argparse.Namespace, directory: Path) -> bool:
    """Print what the quiet account's closes take in each turn, and how much more the flood makes of it; whether the
    aim is reached."""
    issuer = Issuer(directory)
    quiet = int(options.turns * 2 * (options.seconds + 1) * RATE)
    dsn = fresh_database(admin_dsn, DATABASE, {QUIET: quiet, FLOOD: options.positions})
    service = close_api(dsn, issuer.settings)
    quiet_token, flood_token = issuer.token("quiet", [QUIET]), issuer.token("flood", [FLOOD])
    next_quiet, last_quiet = 1, quiet
    next_flood, last_flood = quiet + 1, quiet + options.positions

    def closes(seconds: float) -> dict[str, Any]:
        nonlocal next_quiet
        where = (service.port, _QUIET_CLIENTS, seconds, next_quiet, last_quiet, "--rate", RATE)
        found = all_accepted(loaded(start_load(REST_LOAD, *where, token=quiet_token)))
        next_quiet += found["used"]
        return found

    print(f"{RATE:g} closes/s of one account, {options.turns} turns of {options.seconds:g} s alone and beside a flood")
    ratios: list[float] = []
    with running(service):
        closes(1.0)
        for turn in range(1, options.turns + 1):
            alone = closes(options.seconds)
            half = (last_flood - next_flood + 1) // (2 * (options.turns - turn + 1))
            seconds = options.seconds + 2 * _FLOOD_BEFORE_S
            floods = [
                start_load(REST_LOAD, service.port, clients, seconds, first, first + half - 1, *size, token=flood_token)
                for clients, first, size in (
                    (_BATCH_CLIENTS, next_flood, ("--size", _BATCH)),
                    (_SINGLE_CLIENTS, next_flood + half, ()),
                )
            ]
            next_flood += 2 * half
            time.sleep(_FLOOD_BEFORE_S)
            beside = closes(options.seconds)
            flooded = [loaded(one) for one in floods]
            ratios.append(beside["p99_ms"] / alone["p99_ms"])
            print(
                f"  turn {turn}  alone p50 {alone['p50_ms']:6.1f} ms p99 {alone['p99_ms']:6.1f} ms"
                f"   beside p50 {beside['p50_ms']:6.1f} ms p99 {beside['p99_ms']:6.1f} ms   {ratios[-1]:5.2f} x",
                flush=True,
            )
            for name, one in zip(("batches of 500", "one by one"), flooded, strict=True):
                told = "  (no position was left)" if one["exhausted"] else ""
                print(f"    the flood, {name}: {one['per_second']:.0f} closes/s accepted, {one['statuses']}{told}")
    ratio = statistics.median(ratios)
    print(f"p99 beside : alone, median of the turns: {ratio:.2f} x (aim: at most {AIM:g} x)")
    return ratio <= AIM
