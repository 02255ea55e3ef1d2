"""Run it: `python -m bench.flow [--closes 5000] [--broker lean|simulator] [--profile]`, on the stack `bench`; beside
other ways to do it: `python -m bench.flow --against usual,dbos,temporal`.

First nothing is asked for. Then so many closes, as fast as the clients can, until every position is closed; then some
at a steady rate. A round before these is not counted, because the virtual machines of Kafka and Connect compile then.
Calls to the broker and submits of the account are not limited; everything else is as it is by default. The others close
as many in the same run, one after another, and the exit code is 1 where an aim is not reached.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Final

import devstack
from bench.figures import milliseconds, percentile
from bench.flow import against, ageing, outage, steady
from bench.flow.lean import LEAN
from bench.flow.ours import Figures, Flow, is_ours, running
from bench.flow.profiles import profiled

WARM_UP: Final = 4000
"""Fewer, and Connect still compiles: seen 2.0 ms of CPU per close in it instead of 0.6."""
OTHERS_WARM_UP: Final = 1000
IDLE_S: Final = 30.0
OUTAGE_S: Final = 60.0
COUNTED: Final = ("transactions", "statements", "inserted", "updated", "deleted")


def show(figures: Figures) -> None:
    """What a run took, and where the CPU time went."""
    n = figures.closes
    print(f"  accepted {n / figures.accepted_s:6.0f} closes/s, closed {n / figures.closed_s:6.0f} closes/s")
    shares = (percentile(figures.latencies_s, share) for share in (0.5, 0.9, 0.99))
    print("  request -> closed, by the database: p50 {:.2f} s  p90 {:.2f} s  p99 {:.2f} s".format(*shares))
    cpu = {name: 1e6 * seconds / n for name, seconds in figures.used.cpu_s.items()}
    for name, used in sorted(cpu.items(), key=lambda one: -one[1]):
        print(f"    {name:18} {used:7.0f} µs of CPU per close")
    ours = sum(used for name, used in cpu.items() if is_ours(name))
    print(f"  CPU per close: {sum(cpu.values()) / 1000:.2f} ms, of which our services {ours / 1000:.2f} ms")
    counted = figures.used.database
    rows = "  ".join(f"{name} {counted[name] / n:.1f}" for name in COUNTED)
    print(f"  PostgreSQL per close: WAL {counted['wal'] / n / 1024:.1f} KiB  {rows}")
    print("  records per close: " + "  ".join(f"{k} {v / n:.2f}" for k, v in figures.used.records.items() if v))
    print(f"  sends per close {figures.sends / n:.3f}, answered not_sent {figures.not_sent}")


def measure(flow: Flow, options: argparse.Namespace) -> Figures:
    """Print and return the figures of a burst, after one that is not counted."""
    show_idle(flow)
    flow.burst(1, WARM_UP, clients=options.clients)
    print(f"{options.closes} closes by {options.clients} clients, {options.broker} broker", flush=True)
    ours = {name: pid for name, pid in flow.pids.items() if is_ours(name)}
    with profiled(ours, flow.system.directory / "profiles") if options.profile else nullcontext():
        figures = flow.burst(WARM_UP + 1, WARM_UP + options.closes, clients=options.clients)
    show(figures)
    show_steady(flow, WARM_UP + options.closes + 1, options)
    return figures


def show_steady(flow: Flow, first: int, options: argparse.Namespace) -> None:
    """What one close takes at a steady rate."""
    last = first + steady_closes(options) - 1
    if last < first:
        return
    times = asyncio.run(steady.measure(flow.system, first, last, options.rate))
    print(f"at a steady {options.rate:g} closes/s, request -> closed: {milliseconds(times)}")
    found = steady.stages(flow.system, first, last)
    print("  p50 by stage: " + "  ".join(f"{name} {took:.1f} ms" for name, took in found.items()), flush=True)


def show_idle(flow: Flow) -> None:
    """What the processes take while there is nothing to do."""
    idle = flow.idle(IDLE_S)
    print(
        "before the first close: "
        + "  ".join(f"{name} {100 * share:.1f} %" for name, share in idle.items() if name != LEAN)
    )
    print(f"  our services {100 * sum(share for name, share in idle.items() if is_ours(name)):.1f} % of a core")


def show_outage(flow: Flow, first: int, options: argparse.Namespace) -> bool:
    """What a minute without Connect costs; whether the aims are reached."""
    found = asyncio.run(outage.measure(flow, first, options.rate, OUTAGE_S))
    print(f"Connect killed for {OUTAGE_S:g} s at {options.rate:g} closes/s")
    print(f"  accepted before it: {milliseconds(found.accepts_s)}")
    print(f"  accepted during it: {milliseconds(found.accepts_away_s)}")
    times = percentile(found.accepts_away_s, 0.99) / percentile(found.accepts_s, 0.99)
    drained = found.behind / found.drained_s / options.rate
    print(f"  p99 of accepting, during : before: {times:.2f} x (aim: at most {outage.ACCEPT_AIM:g} x)")
    print(f"  {found.behind} closed within {found.drained_s:.1f} s of its return, {drained:.1f} x as fast as they came")
    print(f"  (aim: at least {outage.DRAIN_AIM:g} x)", flush=True)
    return times <= outage.ACCEPT_AIM and drained >= outage.DRAIN_AIM


def show_ageing(young: Figures, plans: Mapping[str, str], options: argparse.Namespace) -> bool:
    """The burst once more, among closes that are over; whether it is about as fast and no plan is another one."""
    print(f"ageing: {options.age} closes that are over", flush=True)
    with started(options, over=options.age) as flow:
        flow.burst(1, WARM_UP, clients=options.clients)
        old = flow.burst(WARM_UP + 1, WARM_UP + options.closes, clients=options.clients)
        show(old)
        after, outbox = ageing.plans(flow.system), ageing.outbox_bytes(flow.system)
    ratio = young.closed_s / old.closed_s
    changed = [name for name in plans if after[name] != plans[name]]
    print(f"closed/s, aged : young: {ratio:.2f} x (aim: at least {ageing.AIM:g} x)")
    print(f"  plans that read something else now: {', '.join(changed) or 'none'} of {len(plans)}")
    print(f"  outbox: {outbox / 1024 / 1024:.1f} MiB (aim: at most {ageing.OUTBOX_AIM_BYTES / 1024 / 1024:g} MiB)")
    return ratio >= ageing.AIM and not changed and outbox <= ageing.OUTBOX_AIM_BYTES


def steady_closes(options: argparse.Namespace) -> int:
    """How many closes the steady part asks for."""
    return int(options.rate * options.seconds)


def parsed() -> argparse.Namespace:
    """The options of the command line; exits where they do not go together."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.flow", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--closes", type=int, default=5000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--broker", choices=("lean", "simulator"), default="lean")
    parser.add_argument("--call-ms", type=float, default=0.0, help="what an order takes the lean broker")
    parser.add_argument(
        "--default-rates", action="store_true", help="calls to the broker, and submits, are limited as by default"
    )
    parser.add_argument("--instances", type=int, default=1, help="of order-submitter and of fill-processor")
    parser.add_argument("--rate", type=float, default=20.0, help="closes per second in the steady part")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long that is; 0 leaves it out")
    parser.add_argument("--outage", action="store_true", help="then Connect is killed for a minute at --rate")
    parser.add_argument("--age", type=int, default=0, help="then so many closes are over, and the burst comes again")
    parser.add_argument("--against", type=against.names, default=(), help=f"any of {','.join(against.AIMS)}")
    parser.add_argument("--profile", action="store_true", help="py-spy of our services; it slows what it measures")
    options = parser.parse_args()
    if options.against and (options.profile or options.default_rates or options.broker != "lean"):
        parser.error("--against is with the lean broker alone, without limits and without profiles")
    return options


def started(options: argparse.Namespace, *, over: int = 0) -> AbstractContextManager[Flow]:
    """The running system that the options ask for, among so many closes that are over."""
    return running(
        devstack.up("bench", lambda line: print(line, file=sys.stderr)),
        positions=WARM_UP + options.closes + steady_closes(options) + 2 * int(options.rate * OUTAGE_S),
        broker=options.broker,
        call_s=options.call_ms / 1000,
        limited=options.default_rates,
        instances=options.instances,
        over=over,
    )


def main() -> int:
    """Print the figures of a burst, and of what it is compared with; the exit code is 1 below an aim."""
    options = parsed()
    reached = True
    with started(options) as flow:
        ours = measure(flow, options)
        plans = ageing.plans(flow.system) if options.age else {}
        if options.outage:
            reached = show_outage(flow, WARM_UP + options.closes + steady_closes(options) + 1, options)
        stack = flow.system.stack
    if options.age:
        reached = show_ageing(ours, plans, options) and reached
    asked = {"closes": options.closes, "clients": options.clients, "call_s": options.call_ms / 1000}
    others = {name: against.measure(stack, name, **asked, warm_up=OTHERS_WARM_UP) for name in options.against}
    return 0 if against.compare(ours.closes / ours.closed_s, others) and reached else 1


if __name__ == "__main__":
    raise SystemExit(main())
