"""Kafka, PostgreSQL, Connect and the broker, each away for 5, 30 and 120 s, killed and frozen, under 30 closes.

`python -m tests.drills.outages [server] [killed|frozen] [seconds]` runs the cases that its arguments choose.
"""

from __future__ import annotations

import itertools
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import httpx

import devstack
from demo.restarts import Restarts
from demo.system import SERVICES, SIMULATOR, System
from tests.drills.harness import INSTANCE, Lines, main, verified, whole_system
from tests.system.desk import Desk, Held

SERVERS: Final = ("kafka", "postgres", "connect", "broker")
HOW: Final = ("killed", "frozen")
SECONDS: Final = (5, 30, 120)
CLOSES: Final = 30
BEFORE: Final = 8
"""So many closes are asked for before the server goes away; the others while it is away."""
AFTERWARDS_S: Final = 240.0
LOOK_S: Final = 0.25
TOLD_AFTER_S: Final = 60


@dataclass(frozen=True, slots=True)
class Case:
    """A server that is taken away, how, and for how long."""

    server: str
    how: str
    seconds: int

    def __str__(self) -> str:
        return f"{self.server} {self.how} for {self.seconds} s"


class Portfolio(threading.Thread):
    """Asks for every close, and repeats a call that got no answer or is to come later."""

    def __init__(self, system: System, portfolio: Sequence[Held], every_s: float) -> None:
        super().__init__()
        self.asked = threading.Semaphore(0)
        self.refused: list[str] = []
        self._url, self._headers = system.url(), system.authorization()
        self._portfolio = portfolio
        self._every_s = every_s

    def run(self) -> None:
        with httpx.Client(base_url=self._url, headers=self._headers, timeout=6.0) as http:
            for number, held in enumerate(self._portfolio):
                if number >= BEFORE:
                    time.sleep(self._every_s)
                self._ask(http, held)
                self.asked.release()

    def _ask(self, http: httpx.Client, held: Held) -> None:
        deadline, answer = time.monotonic() + AFTERWARDS_S, None
        while time.monotonic() < deadline:
            try:
                answer = http.post(held.path, headers={"Idempotency-Key": f"close-{held.id}"}, json={})
            except httpx.TransportError:
                time.sleep(0.2)
                continue
            if answer.status_code in (httpx.codes.CREATED, httpx.codes.OK):
                return
            time.sleep(float(answer.headers.get("retry-after", "0.2")))
        self.refused.append(f"{held.symbol}: {answer.text if answer else 'no answer'}")


class Watcher:
    """Looks after the services as `make run` does, in the thread that started them, and notes what it has to do."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.told: list[str] = []
        self._restarts = Restarts(system.launch, self.told.append)

    def until(self, condition: Callable[[], bool], *, within_s: float) -> float | None:
        """How long it took; None when it did not come true."""
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > within_s:
                return None
            running = {name: one for name, one in self.system.running.items() if name != SIMULATOR}
            self._restarts.look(running)
            time.sleep(LOOK_S)
        return time.monotonic() - began

    def for_s(self, seconds: float) -> None:
        self.until(lambda: False, within_s=seconds)

    def unready(self) -> list[str]:
        found = []
        for name in SERVICES:
            try:
                answer = httpx.get(f"{self.system.url(name)}/readyz", timeout=4.0)
            except httpx.TransportError as error:
                found.append(f"{name}: {type(error).__name__}")
                continue
            if answer.status_code != httpx.codes.OK:
                found.append(f"{name}: {answer.text}")
        return found


@contextmanager
def away(system: System, case: Case) -> Iterator[None]:
    broker = case.server == "broker"
    if case.how == "frozen":
        frozen = system.running[SIMULATOR].process if broker else None
        frozen.send_signal(signal.SIGSTOP) if frozen else devstack.freeze_part(INSTANCE, case.server)
        try:
            yield
        finally:
            frozen.send_signal(signal.SIGCONT) if frozen else devstack.thaw_part(INSTANCE, case.server)
    elif broker:
        system.kill(SIMULATOR)
        yield
        system.start(SIMULATOR)
    else:
        devstack.kill_part(INSTANCE, case.server)
        yield
        devstack.up(INSTANCE)


def one_case(system: System, case: Case, lines: Lines) -> None:
    watcher = Watcher(system)
    if watcher.until(lambda: not watcher.unready(), within_s=60) is None:
        for name in SERVICES:  # The case before has failed; this one begins with services that work.
            system.kill(name)
        system.start(*SERVICES)
    with Desk(system) as desk:
        portfolio = desk.hold_all([(9, "stock")] * CLOSES)
        ids = [held.id for held in portfolio]
        closed = "SELECT count(*) FROM positions WHERE id = ANY(%s) AND status = 'closed'"
        asking = Portfolio(system, portfolio, every_s=case.seconds / (CLOSES - BEFORE))
        asking.start()
        for _ in range(BEFORE):
            asking.asked.acquire()
        with away(system, case):
            watcher.for_s(case.seconds)
        back = time.monotonic()
    # A connection of the desk's that PostgreSQL ended is of no use any more.
    with Desk(system) as desk:
        watcher.until(lambda: not asking.is_alive(), within_s=AFTERWARDS_S)
        watcher.until(lambda: desk.count(closed, ids) == CLOSES, within_s=AFTERWARDS_S)
        took = time.monotonic() - back
        ready = watcher.until(lambda: not watcher.unready(), within_s=60)
        restarts = [line.partition(" and is")[0] for line in watcher.told if " ended with " in line]
        kinds = sorted(
            {
                row["kind"]
                for row in desk.rows(
                    "SELECT kind FROM incidents WHERE last_seen_at > now() - make_interval(secs => %s)",
                    took + case.seconds + (ready or 60),
                )
            }
        )
        done = desk.count(closed, ids)
        lines.check(f"{case}: closed {took:.1f} s after it was back", done == CLOSES, f"{done} of {CLOSES}")
        lines.check(f"{case}: every call was accepted", not asking.refused, asking.refused[:3] or "yes")
        lines.check(f"{case}: every service is ready", ready is not None, watcher.unready() or "yes")
        if case.seconds > TOLD_AFTER_S:
            lines.check(f"{case}: it was told", bool(kinds), kinds)
        print(f"        restarted: {restarts or 'none'}; incidents: {kinds}", flush=True)


def chosen(arguments: Sequence[str]) -> list[Case]:
    known = {*SERVERS, *HOW, *map(str, SECONDS)}
    if unknown := set(arguments) - known:
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; choose among {', '.join(sorted(known))}")
    every = [Case(*one) for one in itertools.product(SERVERS, HOW, SECONDS)]

    def wanted(value: object, of: Sequence[object]) -> bool:
        named = [one for one in of if str(one) in arguments]
        return not named or value in named

    return [
        case
        for case in every
        if wanted(case.server, SERVERS) and wanted(case.how, HOW) and wanted(case.seconds, SECONDS)
    ]


def drill(lines: Lines) -> None:
    cases = chosen(sys.argv[1:])
    with whole_system() as system:
        for case in cases:
            one_case(system, case, lines)
        with Desk(system) as desk:
            lines.check("every invariant holds", verified(desk), "see above")


if __name__ == "__main__":
    main(drill)
