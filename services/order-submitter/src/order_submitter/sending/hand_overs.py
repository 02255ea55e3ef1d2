"""Which sends of a process were handed to the network: a file on its host that outlives it, for whoever takes over.

A claim says in the database that it begins; until its bytes go, a crash leaves it in doubt. The file says it in the
last moment, with one write(2), which no kill of the process takes back. So whoever finds a begun claim of a process
that has exited on this host, and no line about it in the file of that process, knows that no order left (ADR 0026).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from closeflow.clock import utc_now

log = structlog.get_logger(__name__)

HEAD: Final = "closeflow hand-overs 1"
SUFFIX: Final = ".handed-over"
KEPT_S: Final = 30 * 24 * 3600.0
LARGEST: Final = 64 * 1024 * 1024
"""Bytes; more than a year of orders. A file that would grow beyond it is removed: then nothing is known."""
Line = tuple[str, int]
"""Client order id, and number of the send."""


@dataclass(slots=True)
class HandOvers:
    """The file of this process. Without one, nothing is said, and a begun claim counts as sent."""

    path: Path
    _file: int | None = None
    _size: int = 0

    def open(self) -> None:
        """Make the file. Where that is impossible a warning says so, and everything else goes on."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
            self._write(HEAD)
            _remove_old(self.path.parent)
        except OSError as error:
            log.warning("hand_overs_not_kept", path=str(self.path), reason=str(error))
            self.close()

    def note(self, client_order_id: str, n: int) -> None:
        """To be called right before the bytes of a send go. A line that cannot be written takes the file away, because
        a send that it does not name would be taken for one that was not made; raises OSError if not even that can be.
        """
        if self._file is None:
            return
        try:
            self._write(f"{client_order_id} {n}")
        except OSError as error:
            log.warning("hand_overs_not_kept", path=str(self.path), reason=str(error))
            self.close()

    def close(self) -> None:
        """Nothing of this process is in doubt any more, or nothing can be said: the file goes. Raises OSError."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
            self.path.unlink(missing_ok=True)

    def _write(self, line: str) -> None:
        assert self._file is not None
        data = f"{line}\n".encode()
        self._size += len(data)
        if self._size > LARGEST or os.write(self._file, data) != len(data):
            raise OSError(f"no room for another line of {self.path}")


def _remove_old(folder: Path) -> None:
    """Files of processes that were killed so long ago that nothing of theirs is in doubt any more."""
    for file in folder.glob(f"*{SUFFIX}"):
        if file.stat().st_mtime < utc_now().timestamp() - KEPT_S:
            file.unlink(missing_ok=True)


def path_of(folder: Path, instance_id: str) -> Path:
    """Where the process with this id keeps its file."""
    return folder / f"{instance_id}{SUFFIX}"


def read_hand_overs(path: Path) -> frozenset[Line] | None:
    """What a process that has exited had handed over; None where its file is not there or is not whole."""
    try:
        text = path.read_text()
    except (OSError, ValueError):
        return None
    head, *lines = text.split("\n")
    if head != HEAD or lines.pop() != "":
        return None
    found = [line.rpartition(" ") for line in lines]
    return frozenset((name, int(n)) for name, _, n in found)
