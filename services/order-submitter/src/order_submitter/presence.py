"""Who sends: this instance's row in `senders`, and whether another instance is known to be gone."""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass

from closeflow.storage.submitting import UnansweredSend


@dataclass(frozen=True, slots=True)
class Presence:
    """`instance_id` names one life of one process: a restarted process is another sender."""

    instance_id: str
    host: str
    pid: int

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
    return Presence(f"{host}-{pid}-{secrets.token_hex(4)}", host, pid)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
