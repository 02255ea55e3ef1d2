"""The database's primary killed (-9) under a load of closes and its standby promoted, behind one address.

`python -m tests.drills.failover [synchronous|asynchronous] [slot|no-slot]` runs the cases that its arguments choose.
In the asynchronous cases the link between the servers passes nothing on for the last seconds before the kill.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import psycopg

import devstack
from demo.system import System
from tests.drills.harness import INSTANCE, Lines, main
from tests.drills.outages import Watcher
from tests.failover.load import SETTLED_WITHIN_S, Asking, Run, told
from tests.failover.pair import Pair, primary_behind_an_address
from tests.system.desk import Desk

DATABASE: Final = "closeflow_failover"
CLOSES: Final = 150
BEFORE: Final = 60
"""So many closes are accepted before the kill."""
BEHIND_S: Final = 3.0
"""How far the asynchronous standby is behind when the primary dies."""


@dataclass(frozen=True, slots=True)
class Case:
    """How the standby follows, and whether the connector's slot is kept through the promotion."""

    synchronous: bool
    slot: bool

    def __str__(self) -> str:
        return f"{'synchronous' if self.synchronous else 'asynchronous'}, {'a' if self.slot else 'no'} failover slot"


@contextmanager
def system_on_a_pair(case: Case) -> Iterator[tuple[System, Pair]]:
    """Every service with its default settings on a new primary that a standby follows."""
    stack = devstack.up(INSTANCE)
    with primary_behind_an_address(stack, stack.data_dir / "failover") as pair:
        system = System(pair.stack, DATABASE, stack.data_dir / "failover" / "services", failover_slot=case.slot)
        system.directory.mkdir(parents=True, exist_ok=True)
        for log in system.directory.glob("*.log"):
            log.unlink()
        system.wipe()
        system.prepare()
        pair.add_standby(DATABASE, slots=case.slot, waits=case.slot, synchronous=case.synchronous)
        try:
            if case.slot:
                pair.await_slot(system.outbox.slot)
            system.start_all()
            yield system, pair
        finally:
            system.close()
            system.wipe()


def one_case(case: Case, lines: Lines) -> None:
    print(case, flush=True)
    with system_on_a_pair(case) as (system, pair):
        with Desk(system) as desk:
            portfolio = desk.hold_all([(9, "stock")] * CLOSES)
        watcher = Watcher(system)
        asking = Asking(system, portfolio)
        asking.start()
        watcher.until(lambda: len(asking.accepted) >= BEFORE, within_s=120)
        if not case.synchronous:
            pair.link.hold()
            watcher.for_s(BEHIND_S)
        before = len(asking.accepted)
        killed = time.monotonic()
        promoted_s = pair.fail_over()
        led_over = time.monotonic()
        watcher.until(lambda: not asking.is_alive(), within_s=SETTLED_WITHIN_S)
        asking.ended.set()
        first = min((at for _, at in asking.accepted.values() if at > led_over), default=led_over) - killed
        print(f"  promoted in {promoted_s:.1f} s, first close accepted {first:.1f} s after the kill", flush=True)
        with Desk(system) as desk:
            told(Run(str(case), case.synchronous, asking, before, portfolio, killed), lines, desk, watcher)


def chosen(arguments: Sequence[str]) -> list[Case]:
    known = {"synchronous", "asynchronous", "slot", "no-slot"}
    if unknown := set(arguments) - known:
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; choose among {', '.join(sorted(known))}")
    named = set(arguments)
    every = [Case(synchronous, slot) for synchronous, slot in itertools.product((True, False), (True, False))]

    def wanted(case: Case) -> bool:
        follows = {"synchronous" if case.synchronous else "asynchronous"}
        keeps = {"slot" if case.slot else "no-slot"}
        of_way, of_slot = named & {"synchronous", "asynchronous"}, named & {"slot", "no-slot"}
        return (not of_way or bool(of_way & follows)) and (not of_slot or bool(of_slot & keeps))

    return [case for case in every if wanted(case)]


def drill(lines: Lines) -> None:
    cases, was_up = chosen(sys.argv[1:]), devstack.find(INSTANCE) is not None
    try:
        for case in cases:
            one_case(case, lines)
    except psycopg.Error as error:
        lines.check("the database answers", False, error)
    finally:
        if not was_up:
            devstack.down(INSTANCE)


if __name__ == "__main__":
    main(drill)
