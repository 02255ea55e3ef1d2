"""The services as processes: started with their settings, awaited until ready, stopped, or killed."""

from __future__ import annotations

import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from devstack.processes import spawn

START_DEADLINE_S: Final = 30.0
STOP_DEADLINE_S: Final = 20.0
LOG_TAIL: Final = 2000


class DidNotStart(Exception):
    """A service ended or was not ready in time; carries the end of its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """Which Python runs a service and, if not this clone's, from which sources: directories as in PYTHONPATH.

    `knows` are the settings of such a version, which refuses to start with others: these are not given to it.
    """

    python: str = sys.executable
    sources: str = ""
    knows: frozenset[str] = frozenset()

    def environment(self, settings: Mapping[str, str]) -> dict[str, str]:
        """What a process of this version is given."""
        if not self.sources:
            return dict(settings)
        known = {name: value for name, value in settings.items() if name.removesuffix("_FILE") in self.knows}
        return known | {"PYTHONPATH": self.sources}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSpec:
    """How to run one process. `ready_url` answers 200 when it is ready."""

    name: str
    module: str
    environment: Mapping[str, str]
    ready_url: str
    program: Program = Program()


class Service:
    """One running process of a service. It cannot outlive the process that started it."""

    def __init__(self, spec: ServiceSpec, *, directory: Path, verify: ssl.SSLContext | bool = True) -> None:
        self.spec = spec
        self.verify = verify
        self.log = directory / f"{spec.name}.log"
        self.asked_to_stop = False
        self.process = spawn(
            [spec.program.python, "-m", spec.module],
            log=self.log,
            directory=directory,
            signal_on_death=signal.SIGTERM,
            environment=spec.program.environment(spec.environment),
        )

    @property
    def running(self) -> bool:
        """Whether the process is there; it may not be ready yet."""
        return self.process.poll() is None

    def await_ready(self) -> None:
        """Returns when it is ready; raises DidNotStart."""
        deadline = time.monotonic() + START_DEADLINE_S
        with httpx.Client(timeout=2.0, verify=self.verify) as http:
            while time.monotonic() < deadline and self.running:
                try:
                    if http.get(self.spec.ready_url).status_code == httpx.codes.OK:
                        return
                except httpx.TransportError:
                    pass
                time.sleep(0.05)
        state = "was not ready in time" if self.running else f"ended with {self.process.returncode}"
        self.kill()
        raise DidNotStart(f"{self.spec.name} {state}; the end of {self.log}:\n{self.log.read_text()[-LOG_TAIL:]}")

    def ask_to_stop(self) -> None:
        """SIGTERM, once: a second one would cut short what the service still has to finish."""
        if self.running and not self.asked_to_stop:
            self.asked_to_stop = True
            self.process.terminate()

    def stop(self) -> int:
        """SIGTERM, and SIGKILL if that is not enough; returns the exit code."""
        self.ask_to_stop()
        try:
            return self.process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """kill -9."""
        if self.running:
            self.process.kill()
        return self.process.wait()


def free_port() -> int:
    """A port of this machine that nothing listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
