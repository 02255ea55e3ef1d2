"""Which servers the tests of the whole system run on: they break them, so each process that runs some has its own."""

from __future__ import annotations

import fcntl
from functools import cache
from typing import Final, TextIO

from devstack.places import REPOSITORY

INSTANCES: Final = ("system", "system-2")
_held: list[TextIO] = []
"""Open for as long as this process lives, because a lock ends with its file."""


@cache
def own_instance() -> str:
    """The first of them that no other process of this clone has."""
    (REPOSITORY / ".devstack").mkdir(exist_ok=True)
    for name in INSTANCES:
        file = (REPOSITORY / ".devstack" / f"{name}.tests").open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        _held.append(file)
        return name
    raise RuntimeError(f"other processes run tests on each of {', '.join(INSTANCES)}; wait for their end")
