"""The database's primary killed (-9) under a load of closes and its standby promoted, behind one address.

`python -m tests.drills.failover [synchronous|asynchronous] [slot|no-slot]` runs the cases that its arguments choose.
In the asynchronous cases the link between the servers passes nothing on for the last seconds before the kill.
"""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import httpx
import psycopg

import devstack
from closeflow.domain.ids import parse_client_order_id
from demo.system import System
from tests.drills.harness import INSTANCE, Lines, main, percentile, verified
from tests.drills.outages import Watcher
from tests.failover.pair import Pair, primary_behind_an_address
from tests.system.desk import Desk, Held

DATABASE: Final = "closeflow_failover"
CLOSES: Final = 150
EVERY_S: Final = 0.15
BEFORE: Final = 60
"""So many closes are accepted before the kill."""
BEHIND_S: Final = 3.0
"""How far the asynchronous standby is behind when the primary dies."""
SETTLED_WITHIN_S: Final = 300.0
_UNPUBLISHED: Final = "SELECT count(*) FROM incidents WHERE kind = 'event_not_published' AND closed_at IS NULL"
_AGAIN: Final = "SELECT count(*) FROM outbox_events WHERE emission > 1"
_OPEN: Final = "SELECT kind, count(*) AS n FROM incidents WHERE closed_at IS NULL GROUP BY kind ORDER BY kind"


@dataclass(frozen=True, slots=True)
class Case:
    """How the standby follows, and whether the connector's slot is kept through the promotion."""

    synchronous: bool
    slot: bool

    def __str__(self) -> str:
        return f"{'synchronous' if self.synchronous else 'asynchronous'}, {'a' if self.slot else 'no'} failover slot"


class Asking(threading.Thread):
    """Asks for a close every so often, and repeats a call under its key until it is answered with a yes or a final no.
    `accepted` is by position: the close request's id, and when (monotonic)."""

    def __init__(self, system: System, portfolio: Sequence[Held]) -> None:
        super().__init__(daemon=True)
        self.accepted: dict[int, tuple[str, float]] = {}
        self.refused: dict[int, str] = {}
        self.ended = threading.Event()
        self._url, self._headers = system.url(), system.authorization()
        self._portfolio = portfolio

    def run(self) -> None:
        with httpx.Client(base_url=self._url, headers=self._headers, timeout=6.0) as http:
            for held in self._portfolio:
                self.ask(http, held)
                if self.ended.wait(EVERY_S):
                    return

    def ask(self, http: httpx.Client, held: Held) -> None:
        while not self.ended.is_set():
            try:
                answer = http.post(held.path, headers={"Idempotency-Key": f"close-{held.id}"}, json={})
            except httpx.TransportError:
                time.sleep(0.2)
                continue
            if answer.status_code in (httpx.codes.CREATED, httpx.codes.OK):
                self.accepted[held.id] = (answer.json()["close_request_id"], time.monotonic())
                return
            if answer.status_code < 500:
                self.refused[held.id] = answer.text
                return
            time.sleep(float(answer.headers.get("retry-after", "0.2")))


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
        accepted_before = dict(asking.accepted)
        killed = time.monotonic()
        promoted_s = pair.fail_over()
        led_over = time.monotonic()
        watcher.until(lambda: not asking.is_alive(), within_s=SETTLED_WITHIN_S)
        asking.ended.set()
        first = min((at for _, at in asking.accepted.values() if at > led_over), default=led_over) - killed
        print(f"  promoted in {promoted_s:.1f} s, first close accepted {first:.1f} s after the kill", flush=True)
        with Desk(system) as desk:
            _told(case, lines, desk, watcher, asking, accepted_before, portfolio, killed)


def _told(
    case: Case,
    lines: Lines,
    desk: Desk,
    watcher: Watcher,
    asking: Asking,
    before: dict[int, tuple[str, float]],
    portfolio: Sequence[Held],
    killed: float,
) -> None:
    there = {str(row["id"]) for row in desk.rows("SELECT id FROM close_requests")}
    lost = {held: one for held, (one, _) in asking.accepted.items() if one not in there}
    closed = "SELECT count(*) FROM positions WHERE id = ANY(%s) AND status = 'closed'"
    ids = [held.id for held in portfolio if held.id in asking.accepted and held.id not in lost]
    watcher.until(lambda: desk.count(closed, ids) == len(ids), within_s=SETTLED_WITHIN_S)
    took = time.monotonic() - killed
    watcher.until(lambda: desk.count(_UNPUBLISHED) == 0, within_s=120)
    published = time.monotonic() - killed
    done = desk.count(closed, ids)
    unknown = _unknown_orders(desk)
    again = desk.count(_AGAIN)
    kinds = sorted({row["kind"] for row in desk.rows("SELECT DISTINCT kind FROM incidents")})
    print(f"  emitted again: {again} events; every event published {published:.0f} s after the kill", flush=True)
    print(f"  restarted: {[line for line in watcher.told if ' ended with ' in line] or 'none'}", flush=True)
    print(f"  incidents: {kinds}; open: {[(row['kind'], row['n']) for row in desk.rows(_OPEN)]}", flush=True)
    promised = f"{case}: accepted closes lost (of {len(before)} before the kill)"
    lines.check(promised, not case.synchronous or not lost, len(lost))
    lines.check(f"{case}: closes that the database knows are closed", done == len(ids), f"{done} of {len(ids)}")
    print(f"        {took:.1f} s after the kill", flush=True)
    doubles = [one.client_order_id for one in desk.control.orders() if one.accepted > 1]
    oversold = {symbol: str(held) for symbol, held in desk.control.positions().items() if held < 0}
    lines.check(f"{case}: orders doubled, positions oversold", not doubles and not oversold, (doubles, oversold))
    lines.check(f"{case}: no order is unknown and untold", not unknown - _told_orders(desk), sorted(unknown)[:5])
    waits = sorted(at - killed for _, at in asking.accepted.values() if at > killed)
    if waits:
        print(f"        later closes: {len(waits)}, p50 {percentile(waits, 0.5):.1f} s after the kill", flush=True)
    if not lost and not unknown:
        lines.check(f"{case}: closectl verify", verified(desk), "holds")


def _unknown_orders(desk: Desk) -> set[str]:
    """Orders of ours that the broker took and the database does not have."""
    known = {row["client_order_id"] for row in desk.rows("SELECT client_order_id FROM orders")}
    theirs = {one.client_order_id for one in desk.control.orders() if one.accepted}
    return {one for one in theirs - known if parse_client_order_id(one)}


def _told_orders(desk: Desk) -> set[str]:
    return {row["subject"] for row in desk.rows("SELECT subject FROM incidents WHERE client_order_id IS NOT NULL")}


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
    cases = chosen(sys.argv[1:])
    try:
        for case in cases:
            one_case(case, lines)
    except psycopg.Error as error:
        lines.check("the database answers", False, error)
    finally:
        devstack.down(INSTANCE)


if __name__ == "__main__":
    main(drill)
