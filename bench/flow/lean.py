"""Starts the lean broker as a process: with the symbols that it holds, on two ports, ended by who started it."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from bench.flow import lean_broker
from devstack.processes import spawn

LEAN: Final = "lean-broker"
START_WITHIN_S: Final = 10.0


def symbol(number: int) -> str:
    """Four letters, a different one for every number below 26³."""
    return "B" + "".join(chr(65 + number // 26**place % 26) for place in (2, 1, 0))


@dataclass(frozen=True, slots=True)
class LeanBroker:
    """A running lean broker. It cannot outlive the process that started it."""

    process: subprocess.Popen[bytes]
    url: str
    stream_url: str

    def sent(self) -> tuple[int, int]:
        """How many orders came, and how many came again under an id that was taken."""
        told = httpx.get(f"{self.url}/sent").raise_for_status().json()
        return told["orders"], told["repeated"]

    def kill(self) -> None:
        """End it; it has nothing to lose."""
        self.process.kill()
        self.process.wait()


def start_lean(directory: Path, *, port: int, stream_port: int, positions: int, call_s: float) -> LeanBroker:
    """The lean broker that holds `symbol(1)` to `symbol(positions)`, once it answers; an order takes it `call_s`. Its
    log is in `directory`. Exits where it does not answer in time."""
    process = spawn(
        [sys.executable, lean_broker.__file__, str(port), str(stream_port), str(call_s)],
        log=directory / f"{LEAN}.log",
        directory=directory,
        stdin=" ".join(symbol(number) for number in range(1, positions + 1)),
    )
    broker = LeanBroker(process, f"http://127.0.0.1:{port}", f"ws://127.0.0.1:{stream_port}/stream")
    deadline = time.monotonic() + START_WITHIN_S
    while time.monotonic() < deadline:
        try:
            broker.sent()
        except httpx.HTTPError:
            time.sleep(0.05)
        else:
            return broker
    broker.kill()
    raise SystemExit(f"the lean broker did not start; see {directory}/{LEAN}.log")
