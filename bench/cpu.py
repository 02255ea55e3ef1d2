"""CPU time of processes and of what they started, as the kernel counts it (proc_pid_stat(5))."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Final

TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
_PARENT, _OWN, _OWN_SYSTEM, _WAITED, _WAITED_SYSTEM = 1, 11, 12, 13, 14
"""Places behind the command's closing bracket."""


def cpu_seconds(roots: Mapping[str, int]) -> dict[str, float]:
    """By name, the seconds that the process with this id, its descendants, and those that it has waited for have
    used."""
    ticks: dict[int, int] = {}
    children: defaultdict[int, list[int]] = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # It has just ended.
        pid = int(entry.name)
        ticks[pid] = sum(int(fields[place]) for place in (_OWN, _OWN_SYSTEM, _WAITED, _WAITED_SYSTEM))
        children[int(fields[_PARENT])].append(pid)

    def whole(pid: int) -> int:
        return ticks.get(pid, 0) + sum(map(whole, children[pid]))

    return {name: whole(pid) * TICK_S for name, pid in roots.items()}
