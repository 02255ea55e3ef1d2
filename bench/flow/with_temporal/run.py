"""Runs the Temporal workflows under a burst of closes: its server with a file database, the stack's PostgreSQL for the
positions."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Final

import devstack
from bench.flow.alternative import START_WITHIN_S, Outcome, Setting, prepared
from bench.flow.side_venv import TOOLS, programs
from bench.flow.trade_updates import LISTENING
from demo.services import free_port

NAME: Final = "temporal"
UNLIMITED: Final = tuple(
    f"{name}=1000000"
    for name in (
        "frontend.rps",
        "frontend.namespaceRPS",
        "frontend.persistenceMaxQPS",
        "history.rps",
        "history.persistenceMaxQPS",
        "matching.rps",
        "matching.persistenceMaxQPS",
    )
)
"""Limits of calls that would hold it back, as ours has none in this bench either."""


def run(stack: devstack.Stack, *, closes: int, clients: int, call_s: float, warm_up: int) -> Outcome:
    """What `closes` took after `warm_up` that are not counted. Its databases are its own, and gone afterwards."""
    place = programs(TOOLS)
    with prepared(stack, NAME, positions=warm_up + closes, call_s=call_s) as setting:
        port = free_port()
        environment = {
            "POSTGRES_DSN": setting.dsn,
            "TRADING_URL": setting.broker.url,
            "TRADING_STREAM_URL": setting.broker.stream_url,
            "TEMPORAL_ADDRESS": _start_server(setting, place / "temporal"),
            "PORT": str(port),
        }
        for name in ("worker", "gateway"):
            setting.start(name, [str(place / "python"), "-m", f"bench.flow.with_temporal.{name}"], environment)
        setting.serve("api", [str(place / "python"), "-m", "bench.flow.with_temporal.api"], environment, port)
        setting.await_line("gateway", LISTENING)
        setting.count_parts("postgres")
        return setting.warm_up_and_measure(port, closes=closes, clients=clients)


def _start_server(setting: Setting, program: Path) -> str:
    """Its address, once it serves the namespace `default`."""
    address = f"127.0.0.1:{free_port()}"
    command = [str(program), "server", "start-dev", "--ip", "127.0.0.1", "--port", address.rpartition(":")[2]]
    command += ["--headless", "--log-level", "error", "--db-filename", str(setting.directory / "temporal.sqlite")]
    for limit in UNLIMITED:
        command += ["--dynamic-config-value", limit]
    setting.start("temporal", command, {})
    deadline = time.monotonic() + START_WITHIN_S
    asking = [str(program), "operator", "namespace", "describe", "default", "--address", address]
    while subprocess.run(asking, capture_output=True).returncode:
        if time.monotonic() > deadline:
            raise SystemExit(f"Temporal's server did not start; see {setting.directory}/temporal.log")
        time.sleep(0.2)
    return address
