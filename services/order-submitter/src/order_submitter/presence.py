"""Who sends: this instance's row in `senders`, and whether another instance is known to be gone."""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from closeflow.storage.order_sends import UnansweredSend
from closeflow.storage.senders import Sender

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_STARTED: Final = 22
"""Which field of /proc/<pid>/stat, counted from 1, is the start time (proc_pid_stat(5))."""


@dataclass(frozen=True, slots=True)
class Presence:
    """`instance_id` names one life of one process: a restarted process is another sender."""

    instance_id: str
    host: str
    pid: int
    runs_in: str | None = None
    """The boot and the namespaces in which its `pid` and its start time mean something; None where the kernel does not
    tell."""
    process_started: int | None = None

    def as_sender(self, *, says_it_closes: bool) -> Sender:
        return Sender(
            instance_id=self.instance_id,
            host=self.host,
            pid=self.pid,
            runs_in=self.runs_in,
            process_started=self.process_started,
            says_it_closes=says_it_closes,
        )

    def has_exited(self, send: UnansweredSend) -> bool:
        """Whether its sender is seen to be gone, and nobody has recorded that yet: it ran in this boot and these
        namespaces, and there is no process with its id, or one that began at another time. This is evidence (rule R6);
        of a sender that runs elsewhere nothing is inferred."""
        if send.sender == self.instance_id or send.exited_at is not None:
            return False
        if send.runs_in is None or send.runs_in != self.runs_in or send.pid is None or send.process_started is None:
            return False
        if not _runs(send.pid):
            return True
        began = _began(send.pid)
        return began is not None and began != send.process_started

    def is_gone(self, send: UnansweredSend) -> bool:
        """Whether its sender has said that it exited, or was a process of this host that is no more.

        Good enough to look an order up early, because finding it is proof whoever lives; never evidence of absence.
        """
        if send.sender == self.instance_id:
            return False
        if send.exited_at is not None:
            return True
        return send.host == self.host and send.pid is not None and (send.pid == self.pid or not _runs(send.pid))


def this_process() -> Presence:
    host, pid = socket.gethostname(), os.getpid()
    return Presence(f"{host}-{pid}-{secrets.token_hex(4)}", host, pid, _runs_in(pid), _began(pid))


def _runs_in(pid: int) -> str | None:
    """None where /proc is that of other processes, or lacks what is needed."""
    try:
        if os.readlink("/proc/self") != str(pid):
            return None
        spaces = [os.readlink(f"/proc/self/ns/{kind}") for kind in ("pid", "time")]
        return " ".join([_BOOT_ID.read_text().strip(), *spaces])
    except OSError:
        return None


def _began(pid: int) -> int | None:
    """When the process began, in the kernel's ticks since boot; None where that cannot be read."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        return int(stat.rpartition(")")[2].split()[_STARTED - 3])  # What is in brackets may have any name.
    except (OSError, ValueError, IndexError):
        return None


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
