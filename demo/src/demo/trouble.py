"""What keeps a demo from going on: another one beside it, or something under it that ended."""

from __future__ import annotations

import fcntl
import os
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import devstack
from demo.system import System

HANDED_OVER_WITHIN_S: Final = 2.0
_POLL_S: Final = 0.1


class Stopped(Exception):
    """The demo could not go on; the text says what ended or did not answer. It says nothing about the invariants."""


@contextmanager
def alone(stack: devstack.Stack) -> Iterator[None]:
    """Hold the instance's services and database for this process; raises Stopped when another one has them."""
    deadline = time.monotonic() + HANDED_OVER_WITHIN_S
    with (stack.data_dir / "demo.lock").open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Stopped(
                        f"services already run on instance {stack.instance} (another `make demo` or `make run`): "
                        "end that one, or choose another instance with --instance"
                    ) from None
                time.sleep(_POLL_S)
        yield


def ended(system: System) -> list[str]:
    """One line for each service or server that should run and does not."""
    services = [
        f"{name} ended with {service.process.poll()}; see {service.log}"
        for name, service in system.running.items()
        if not service.running
    ]
    return [*services, *devstack.status(system.stack.instance).explanation]


def refuse_ended(system: System) -> None:
    """Raises Stopped when something ended."""
    if found := ended(system):
        raise Stopped("; ".join(found))


def explain(system: System, error: Exception) -> str:
    """What to say of an error that nobody expected: what ended, else the error itself. The rest is in a file."""
    trace: Path = system.directory / f"demo-error-{os.getpid()}.log"
    system.directory.mkdir(parents=True, exist_ok=True)
    trace.write_text("".join(traceback.format_exception(error)))
    what = "; ".join(ended(system)) or f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return f"{what} (details: {trace})"
