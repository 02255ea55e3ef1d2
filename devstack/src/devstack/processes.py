"""Processes that cannot outlive the one that started them, and whether a recorded process still is that process."""

import ctypes
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

PR_SET_PDEATHSIG: Final = 1
_libc: Final = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def spawn(
    argv: Iterable[str],
    *,
    log: Path,
    directory: Path,
    stdin: str = "",
    user: pwd.struct_passwd | None = None,
    signal_on_death: signal.Signals = signal.SIGKILL,
    environment: Mapping[str, str] | None = None,
) -> "subprocess.Popen[bytes]":
    """Start a child in its own session, so that Ctrl-C in a terminal does not reach it, with its output added to `log`.

    On Linux the kernel sends it `signal_on_death` when the calling thread ends, however that ends.
    """
    with log.open("ab") as output:
        child = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env=None if environment is None else {**os.environ, **environment},
            start_new_session=True,
            umask=0o022,
            user=user.pw_uid if user else None,
            group=user.pw_gid if user else None,
            extra_groups=[] if user else None,
            preexec_fn=die_with_parent(signal_on_death),
        )
    if child.stdin is not None:
        try:
            child.stdin.write(stdin.encode())
            child.stdin.close()
        except BrokenPipeError:
            pass  # It ended at once; its exit status tells.
    return child


def die_with_parent(signal_on_death: signal.Signals) -> Callable[[], None] | None:
    """What a child runs before exec: subprocess calls it after changing the user, a change which clears the setting."""
    libc = _libc
    if libc is None:
        return None
    parent = os.getpid()

    def ask_the_kernel() -> None:
        libc.prctl(PR_SET_PDEATHSIG, int(signal_on_death))
        if os.getppid() != parent:  # The parent ended before the request.
            os.kill(os.getpid(), signal.SIGKILL)

    return ask_the_kernel


def born(pid: int) -> str | None:
    """When the process started, in an opaque form that differs between two users of one pid; None if there is none."""
    if sys.platform == "linux":
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return None if fields[0] == "Z" else f"{boot}/{fields[19]}"
    asked = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return asked.stdout.strip() or None


def is_alive(pid: int | None, birth: str | None) -> bool:
    """Whether the process of this id is still the one that was born then: ids are given again."""
    return pid is not None and birth is not None and born(pid) == birth


def end(pid: int, birth: str, number: signal.Signals, within_seconds: float) -> bool:
    """Send the signal, if the process still is the recorded one, and wait; whether it is gone."""
    deadline = time.monotonic() + within_seconds
    if is_alive(pid, birth):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return True
    while is_alive(pid, birth):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
