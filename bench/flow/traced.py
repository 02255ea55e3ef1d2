"""What tracing costs: `python -m bench.flow.traced [--closes 2000] [--rounds 3] [--ratio 0.1]`, on the stack `bench`.

The same burst with tracing off and on in turns, in one run, on the same servers; our services are started anew before
each. The spans go to a collector that throws them away. The exit code is 1 where the median of the throughput with
tracing is below the aim.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from statistics import median
from typing import Final

import devstack
from bench.flow import span_sink
from bench.flow.__main__ import WARM_UP
from bench.flow.ours import Figures, Flow, is_ours, running
from demo.services import free_port
from demo.system import SERVICES
from devstack.processes import spawn

AIM: Final = 0.95
BEFORE_EACH: Final = 200
"""Closes that are not counted, while connections are made and modules imported."""
CLIENTS: Final = 64


@contextmanager
def sink(flow: Flow) -> Iterator[str]:
    """The address of a collector that lives as long as this."""
    port = free_port()
    process = spawn(
        [sys.executable, span_sink.__file__, str(port)],
        log=flow.system.directory / "span-sink.log",
        directory=flow.system.directory,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def restart(flow: Flow, settings: Mapping[str, str]) -> None:
    """Our services, with these settings for each besides those of the run."""
    system, before = flow.system, flow.system.overrides
    for service in SERVICES:
        system.stop(service)
    system.overrides = {
        one: before.get(one, {}) if one not in SERVICES else {**before.get(one, {}), **settings}
        for one in {*before, *SERVICES}
    }
    system.start(*SERVICES)
    system.overrides = before
    flow.pids = {**flow.pids, **{one: system.running[one].process.pid for one in SERVICES}}


def ours_ms(figures: Figures) -> float:
    """Milliseconds of CPU of our services per close."""
    spent = sum(seconds for name, seconds in figures.used.cpu_s.items() if is_ours(name))
    return 1000 * spent / figures.closes


def parsed() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.flow.traced", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--closes", type=int, default=2000, help="of one burst")
    parser.add_argument("--rounds", type=int, default=3, help="of which each has a burst without and one with tracing")
    parser.add_argument("--ratio", type=float, default=0.1, help="the share of the closes whose trace is sampled")
    return parser.parse_args()


def measure(flow: Flow, options: argparse.Namespace) -> dict[str, list[Figures]]:
    """The bursts' figures, without and with."""
    found: dict[str, list[Figures]] = {"off": [], "on": []}
    flow.burst(1, WARM_UP, clients=CLIENTS)
    at = WARM_UP
    with sink(flow) as address:
        on = {"OTLP_ENDPOINT": address, "OTLP_SAMPLE_RATIO": str(options.ratio)}
        for number in range(2 * options.rounds):
            which = ("off", "on", "on", "off")[number % 4]  # What changes with time is on both sides.
            restart(flow, on if which == "on" else {})
            flow.burst(at + 1, at + BEFORE_EACH, clients=CLIENTS)
            at += BEFORE_EACH
            figures = flow.burst(at + 1, at + options.closes, clients=CLIENTS)
            at += options.closes
            found[which].append(figures)
            print(
                f"tracing {which:3}: closed {options.closes / figures.closed_s:6.0f} closes/s,"
                f" our services {ours_ms(figures):.2f} ms of CPU per close",
                flush=True,
            )
    return found


def main() -> int:
    """Print the figures; the exit code is 1 below the aim."""
    options = parsed()
    stack = devstack.up("bench", lambda line: print(line, file=sys.stderr))
    positions = WARM_UP + 2 * options.rounds * (BEFORE_EACH + options.closes)
    with running(stack, positions=positions, broker="lean", call_s=0.0, limited=False) as flow:
        found = measure(flow, options)
    rate = {which: median(one.closes / one.closed_s for one in figures) for which, figures in found.items()}
    cpu = {which: median(map(ours_ms, figures)) for which, figures in found.items()}
    ratio = rate["on"] / rate["off"]
    print(f"closed/s, with tracing of {options.ratio:g} : without: {ratio:.3f} x (aim: at least {AIM:g} x)")
    print(f"CPU of our services, with : without: {cpu['on'] / cpu['off']:.3f} x")
    return 0 if ratio >= AIM else 1


if __name__ == "__main__":
    raise SystemExit(main())
