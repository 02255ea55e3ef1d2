"""Runs the DBOS workflows under a burst of closes, on the stack's PostgreSQL."""

from __future__ import annotations

from typing import Final

import devstack
from bench.flow.alternative import Outcome, prepared
from bench.flow.side_venv import TOOLS, programs
from bench.flow.trade_updates import LISTENING
from demo.services import free_port

NAME: Final = "dbos"


def run(stack: devstack.Stack, *, closes: int, clients: int, call_s: float, warm_up: int) -> Outcome:
    """What `closes` took after `warm_up` that are not counted. Its database is its own, with DBOS's tables beside the
    positions, and gone afterwards."""
    python = str(programs(TOOLS) / "python")
    with prepared(stack, NAME, positions=warm_up + closes, call_s=call_s) as setting:
        port = free_port()
        environment = {
            "POSTGRES_DSN": setting.dsn,
            "TRADING_URL": setting.broker.url,
            "TRADING_STREAM_URL": setting.broker.stream_url,
            "PORT": str(port),
        }
        setting.serve("service", [python, "-m", "bench.flow.with_dbos.service"], environment, port)
        setting.await_line("service", LISTENING)
        setting.count_parts("postgres")
        return setting.warm_up_and_measure(port, closes=closes, clients=clients)
