"""Which sends of a process were handed to the network: a file on its host that outlives it, for whoever takes over.

A claim says in the database that it begins; until its bytes go, a crash leaves it in doubt. The file says it in the
last moment, with one write(2), which no kill of the process takes back. So whoever finds a begun claim of a process
that has exited on this host, and no line about it in the file of that process, knows that no order left (ADR 0026).
"""

from __future__ import annotations

import os
import re
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
_LINE: Final = re.compile(r"([!-~]+) ([0-9]{1,9})")
_OTHERS_MAY_WRITE: Final = 0o022
Line = tuple[str, int]
"""Client order id, and number of the send."""


@dataclass(slots=True)
class HandOvers:
    """The file of this process. Without one, nothing is said, and a begun claim counts as sent."""

    path: Path
    trouble: str | None = None
    """Set once the file can neither be written nor taken away: nothing may be handed over any more."""
    _file: int | None = None
    _size: int = 0

    def open(self) -> None:
        """Make the file. Where that is impossible a warning says so, and everything else goes on."""
        folder = self.path.parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not _is_ours(folder):
                raise PermissionError(f"{folder} is another user's, or may be written by one")
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
            self._write(HEAD)
        except OSError as error:
            log.warning("hand_overs_not_kept", path=str(self.path), reason=str(error))
            self.close()
        else:
            _remove_old(folder)

    def note(self, client_order_id: str, n: int) -> None:
        """To be called right before the bytes of a send go; raises OSError when they must not. A line that cannot be
        written takes the file away, because a send that it does not name would be taken for one that was not made. If
        not even that can be, nothing is handed over any more."""
        if self.trouble is not None:
            raise OSError(self.trouble)
        if self._file is None:
            return
        try:
            self._write(f"{client_order_id} {n}")
        except OSError as error:
            log.warning("hand_overs_not_kept", path=str(self.path), reason=str(error))
            self.close()

    def close(self) -> None:
        """Nothing of this process is in doubt any more, or nothing can be said: the file goes, or is emptied at least.
        Raises OSError where neither can be."""
        if self._file is None:
            return
        try:
            try:
                self.path.unlink(missing_ok=True)
            except OSError:
                os.ftruncate(self._file, 0)
        except OSError as error:
            self.trouble = f"{self.path} can be neither written nor removed: {error}; remove it and start again"
            log.critical("hand_overs_stuck", path=str(self.path), reason=str(error))
            raise
        os.close(self._file)
        self._file = None

    def _write(self, line: str) -> None:
        assert self._file is not None
        data = f"{line}\n".encode()
        self._size += len(data)
        if self._size > LARGEST or os.write(self._file, data) != len(data):
            raise OSError(f"no room for another line of {self.path}")


def path_of(folder: Path, instance_id: str) -> Path:
    """Where the process with this id keeps its file."""
    return folder / f"{instance_id}{SUFFIX}"


def read_hand_overs(path: Path) -> frozenset[Line] | None:
    """What a process that has exited had handed over; None where its file is not there, is not whole, or may have been
    written by another user."""
    try:
        if not (_is_ours(path.parent) and _is_ours(path)):
            return None
        text = path.read_text("ascii")
    except (OSError, ValueError):
        return None
    head, *lines = text.split("\n")
    if head != HEAD or lines.pop() != "":
        return None
    found = [_LINE.fullmatch(line) for line in lines]
    named = [(one[1], int(one[2])) for one in found if one is not None]
    return frozenset(named) if len(named) == len(lines) else None


def _is_ours(path: Path) -> bool:
    found = path.stat()
    return found.st_uid == os.geteuid() and not found.st_mode & _OTHERS_MAY_WRITE


def _remove_old(folder: Path) -> None:
    """Files of processes that were killed so long ago that nothing of theirs is in doubt any more."""
    for file in folder.glob(f"*{SUFFIX}"):
        try:
            if file.stat().st_mtime < utc_now().timestamp() - KEPT_S:
                file.unlink(missing_ok=True)
        except OSError as error:
            log.debug("old_hand_overs_kept", path=str(file), reason=str(error))
