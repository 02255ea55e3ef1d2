"""The simulator as a child process, for tests: start, kill -9, start again on the same port and memory."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from .control import Control
from .settings import DEFAULT_KEY_ID, DEFAULT_SECRET_KEY, PREFIX

START_DEADLINE_S = 20.0
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class DidNotStart(RuntimeError):
    """Carries the end of the simulator's output."""


@dataclass
class SimulatorProcess:
    """`directory` holds the state file and the log. `settings` are the simulator's, in lower case: {"seed": "7"}.

    As a context manager it starts and stops; the stop is graceful. The port is chosen at the first start and kept.
    """

    directory: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    port: int = 0
    _process: subprocess.Popen[bytes] | None = None

    key_id = DEFAULT_KEY_ID
    secret_key = DEFAULT_SECRET_KEY

    @property
    def url(self) -> str:
        """The base address of REST and control; the same after a restart."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def stream_url(self) -> str:
        """The address of the trade updates."""
        return f"ws://127.0.0.1:{self.port}/stream"

    @property
    def headers(self) -> dict[str, str]:
        """The key that the simulator accepts."""
        return {"APCA-API-KEY-ID": self.key_id, "APCA-API-SECRET-KEY": self.secret_key}

    @property
    def log(self) -> Path:
        """Where its standard error goes."""
        return self.directory / "broker-simulator.log"

    def control(self) -> Control:
        """A new client of the control endpoint; the caller closes it."""
        return Control(self.url)

    def start(self) -> None:
        """Returns when it answers; raises DidNotStart."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port = self.port or _free_port()
        chosen = {"port": str(self.port), "state_path": str(self.directory / "broker-simulator.sqlite3")}
        environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        environment |= {PREFIX + name.upper(): value for name, value in {**chosen, **self.settings}.items()}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "broker_simulator"],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        self._await_health(self._process)

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> int | None:
        """Graceful; returns the exit code, None when it was not running."""
        return self._end(signal.SIGTERM)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _end(self, number: signal.Signals) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        process.send_signal(number)
        try:
            return process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def _await_health(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_DEADLINE_S
        with httpx.Client(base_url=self.url, timeout=1) as http:
            while time.monotonic() < deadline and process.poll() is None:
                try:
                    if http.get("/healthz").is_success:
                        return
                except httpx.TransportError:
                    time.sleep(0.02)
        self.kill()
        raise DidNotStart(self.log.read_text()[-2000:])


def _die_with_parent() -> None:
    """In the child, before exec: on Linux the kernel ends it when whoever started it is gone, even by kill -9."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
