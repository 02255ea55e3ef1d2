"""The whole system on servers of its own, a desk to work it with, and lines that hold or do not."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import devstack
from demo.system import System
from tests.system.desk import Desk

INSTANCE: Final = "drill"
DATABASE: Final = "closeflow_drill"
Overrides = Mapping[str, Mapping[str, str]]


@contextmanager
def whole_system(overrides: Overrides | None = None, *, keep_servers: bool = False) -> Iterator[System]:
    """Every service as a process with its default settings, but for `overrides` (by service, in environment form).
    What an earlier drill left is removed first; the servers are stopped at the end, unless they are to be kept."""
    stack = devstack.up(INSTANCE)
    made = System(stack, DATABASE, stack.data_dir / "drill", overrides=overrides or {})
    made.directory.mkdir(parents=True, exist_ok=True)
    for log in made.directory.glob("*.log"):
        log.unlink()
    made.wipe()
    made.prepare()
    try:
        made.start_all()
        yield made
    finally:
        made.close()
        made.wipe()
        if not keep_servers:
            devstack.down(INSTANCE)


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which (or at which) `share` of the values lie, by nearest rank; `share` in 0 … 1."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


class Lines:
    """What has to hold: each line is printed with the figure seen, and counts when it does not."""

    def __init__(self) -> None:
        self.failed: list[str] = []

    def check(self, line: str, held: bool, seen: object) -> None:
        print(f"{'held  ' if held else 'FAILED'}  {line}: {seen}", flush=True)
        if not held:
            self.failed.append(line)


def verified(desk: Desk) -> bool:
    """Whether `closectl verify` finds every invariant to hold; prints what it finds otherwise."""
    try:
        desk.verify()
    except AssertionError as error:
        print(f"verify: {error}", flush=True)
        return False
    return True


def main(drill: Callable[[Lines], None]) -> None:
    """Run the drill; exit with 0 when every line of it held."""
    lines = Lines()
    drill(lines)
    sys.exit(1 if lines.failed else 0)
