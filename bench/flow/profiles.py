"""py-spy profiles of processes while something runs: one speedscope file for each (https://www.speedscope.app)."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.flow.side_venv import TOOLS, programs
from devstack.processes import spawn

RATE: Final = 100
"""Samples per second; each stops the process for as long as it takes to read its stacks."""
WITHIN_S: Final = 30.0


@contextmanager
def profiled(pids: Mapping[str, int], directory: Path) -> Iterator[None]:
    """Profile these processes, by name, until the block is left; then say where the files are: `<name>.speedscope.json`
    in `directory`. Exits where py-spy may not read them, as without the right to trace."""
    directory.mkdir(parents=True, exist_ok=True)
    running: dict[str, subprocess.Popen[bytes]] = {}
    program = str(programs(TOOLS) / "py-spy")
    try:
        for name, pid in pids.items():
            log = directory / f"{name}.log"
            log.unlink(missing_ok=True)
            target = ["--pid", str(pid), "--output", str(_file(directory, name)), "--format", "speedscope"]
            running[name] = spawn([program, "record", *target, "--rate", str(RATE)], log=log, directory=directory)
        for name, process in running.items():
            _await_sampling(process, directory / f"{name}.log")
        yield
        for process in running.values():
            process.send_signal(signal.SIGINT)  # As Ctrl-C: it writes its file and ends.
        for name, process in running.items():
            process.wait(WITHIN_S)
            print(f"  profile of {name}: {_file(directory, name)}")
    finally:
        for process in running.values():
            if process.poll() is None:
                process.kill()
                process.wait()


def _file(directory: Path, name: str) -> Path:
    return directory / f"{name}.speedscope.json"


def _await_sampling(process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + WITHIN_S
    while "Sampling process" not in log.read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"py-spy does not sample; see {log}")
        time.sleep(0.05)
