"""The files through which a supervisor and its callers talk: it writes `status.json`, they write `wanted.json`.

The supervisor holds the lock on `supervisor.lock` as long as it lives, so nobody has to guess that from a pid.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from devstack.places import is_locked, write_atomically

PART_NAMES: Final = ("postgres", "kafka", "connect")  # In the order of starting; stopping goes the other way.


class PartState(StrEnum):
    """Where a part is in its life."""

    STOPPED = "stopped"
    WAITING = "waiting"  # for another part to be ready
    PREPARING = "preparing"  # making its data directory
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    FAILED = "failed"  # it ended by itself, or did not become ready in time


class Phase(StrEnum):
    """Whether the supervisor works, or has ended all parts and itself."""

    RUNNING = "running"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class PartStatus:
    """One part. `pid` and `birth` name its process; `since` is UTC; `seconds` is how long the last start took."""

    name: str
    state: PartState
    log: str
    since: str
    pid: int | None = None
    birth: str | None = None
    seconds: float | None = None
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What a supervisor says about itself and its parts; `generation` is the last wish it has read."""

    directory: str
    phase: Phase
    supervisor_pid: int
    generation: int
    parts: Mapping[str, PartStatus] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which parts should run. A new generation also restarts those of them that failed."""

    generation: int
    parts: tuple[str, ...]


def write_report(directory: Path, report: Report) -> None:
    """Replace `status.json` as a whole."""
    write_atomically(directory / "status.json", json.dumps(asdict(report), indent=1))


def read_report(directory: Path) -> Report | None:
    """The last report of this directory's supervisor; one that was copied here with the directory is not its own."""
    try:
        found = json.loads((directory / "status.json").read_text())
    except FileNotFoundError:
        return None
    if found["directory"] != str(directory):
        return None
    parts = {name: PartStatus(**{**part, "state": PartState(part["state"])}) for name, part in found["parts"].items()}
    return Report(**{**found, "phase": Phase(found["phase"]), "parts": parts})


def want(directory: Path, parts: Iterable[str]) -> Wanted:
    """Record which parts should run. The caller holds the instance's lock and then wakes the supervisor."""
    known = read_wanted(directory)
    wanted = Wanted(generation=known.generation + 1, parts=tuple(name for name in PART_NAMES if name in set(parts)))
    write_atomically(directory / "wanted.json", json.dumps(asdict(wanted)))
    return wanted


def read_wanted(directory: Path) -> Wanted:
    """What callers asked for last; nothing, in generation 0, where nobody did."""
    try:
        found = json.loads((directory / "wanted.json").read_text())
    except FileNotFoundError:
        return Wanted(generation=0, parts=())
    return Wanted(generation=found["generation"], parts=tuple(found["parts"]))


def supervisor_lives(directory: Path) -> bool:
    """Whether a process holds the supervisor's lock, which the kernel releases with it."""
    return is_locked(directory / "supervisor.lock")
