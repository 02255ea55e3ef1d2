"""Where the kernel cannot tie the parts to their supervisor (macOS): a process that ends them when it is gone.

It reads a pipe that only the supervisor holds open for writing, so the end of the file is the supervisor's end, of
any kind.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

from devstack import state
from devstack.processes import end


def watch(directory: Path) -> None:
    """Start the guard of this process, unless the kernel does its work."""
    if sys.platform != "linux":
        start(directory)


def start(directory: Path) -> "subprocess.Popen[bytes]":
    """A guard whose pipe's other end is open until this process ends."""
    reading, _writing = os.pipe()
    argv = [sys.executable, "-m", "devstack.guard", str(directory)]
    guard = subprocess.Popen(argv, stdin=reading, stdout=subprocess.DEVNULL, start_new_session=True)
    os.close(reading)
    return guard


def main(directory: Path) -> None:
    """End the recorded parts when standard input ends, which it does when the supervisor is gone, however it went."""
    while sys.stdin.buffer.read(1):
        pass
    end_recorded_parts(directory)


def end_recorded_parts(directory: Path) -> None:
    """End every process of a part that the supervisor's last report names and that still is that process."""
    report = state.read_report(directory)
    for part in report.parts.values() if report else ():
        if part.pid is not None and part.birth is not None:
            number = signal.SIGQUIT if part.name == "postgres" else signal.SIGKILL  # see parts.Plan.signal_on_death
            if not end(part.pid, part.birth, number, within_seconds=5):
                end(part.pid, part.birth, signal.SIGKILL, within_seconds=5)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
