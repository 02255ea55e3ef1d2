"""The alternatives by name, how their figures are printed, and what closeflow is to reach beside each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import devstack
from bench.figures import percentile
from bench.flow.alternative import Outcome
from bench.flow.usual.run import run as run_usual
from bench.flow.with_dbos.run import run as run_dbos
from bench.flow.with_temporal.run import run as run_temporal

AIMS: Final = {"usual": 8.0, "dbos": 4.0, "temporal": 6.0}
"""How many times as many closes per second closeflow is to close."""

RUNS: Final[Mapping[str, Callable[..., Outcome]]] = {"usual": run_usual, "dbos": run_dbos, "temporal": run_temporal}


def show(name: str, outcome: Outcome) -> None:
    """What a run took, and where the CPU time went."""
    n = outcome.closes
    print(f"{name}: {n} closes")
    print(f"  accepted {n / outcome.accepted_s:6.0f} closes/s, closed {n / outcome.closed_s:6.0f} closes/s")
    shares = (percentile(outcome.latencies_s, share) for share in (0.5, 0.9, 0.99))
    print("  request -> closed, by the database: p50 {:.2f} s  p90 {:.2f} s  p99 {:.2f} s".format(*shares))
    for part, seconds in sorted(outcome.cpu_s.items(), key=lambda one: -one[1]):
        print(f"    {part:18} {1e6 * seconds / n:7.0f} µs of CPU per close")
    print(f"  CPU per close: {1e3 * sum(outcome.cpu_s.values()) / n:.2f} ms")
    print(
        f"  every position closed once; the broker has {outcome.orders} orders, {outcome.repeated} repeated", flush=True
    )


def measure(stack: devstack.Stack, name: str, *, closes: int, clients: int, call_s: float, warm_up: int) -> Outcome:
    """Run the named alternative and print its figures."""
    outcome = RUNS[name](stack, closes=closes, clients=clients, call_s=call_s, warm_up=warm_up)
    show(name, outcome)
    return outcome


def compare(ours: float, others: Mapping[str, Outcome]) -> bool:
    """Print how many times as many closes per second ours are; whether every aim is reached."""
    reached = True
    for name, outcome in others.items():
        ratio = ours * outcome.closed_s / outcome.closes
        reached = reached and ratio >= AIMS[name]
        print(f"closed/s, ours : {name}: {ratio:.1f} x (aim: at least {AIMS[name]:g} x)")
    return reached


def names(text: str) -> tuple[str, ...]:
    """Names of alternatives as the command line has them, separated by commas. Raises ValueError for others."""
    found = tuple(text.split(","))
    if unknown := set(found) - set(RUNS):
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
    return found
