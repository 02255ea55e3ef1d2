"""A load of closes over a failover or a restore, and what has become of every one of them."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import httpx

from closeflow.domain.ids import parse_client_order_id
from demo.system import System
from tests.drills.harness import Lines, percentile, verified
from tests.drills.outages import Watcher
from tests.system.desk import Desk, Held

EVERY_S: Final = 0.15
SETTLED_WITHIN_S: Final = 300.0
_UNPUBLISHED: Final = "SELECT count(*) FROM incidents WHERE kind = 'event_not_published' AND closed_at IS NULL"
_AGAIN: Final = "SELECT count(*) FROM outbox_events WHERE emission > 1"
_OPEN: Final = "SELECT kind, count(*) AS n FROM incidents WHERE closed_at IS NULL GROUP BY kind ORDER BY kind"


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


@dataclass(frozen=True, slots=True)
class Run:
    """What was asked for: `before` are the closes accepted until the server was `killed` (monotonic)."""

    name: str
    lossless: bool
    asking: Asking
    before: int
    portfolio: Sequence[Held]
    killed: float


def told(run: Run, lines: Lines, desk: Desk, watcher: Watcher) -> None:
    """Wait until everything has settled, and check every line of it."""
    asking, portfolio, killed = run.asking, run.portfolio, run.killed
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
    promised = f"{run.name}: accepted closes lost (of {run.before} before the kill)"
    lines.check(promised, not run.lossless or not lost, len(lost))
    lines.check(f"{run.name}: closes that the database knows are closed", done == len(ids), f"{done} of {len(ids)}")
    print(f"        {took:.1f} s after the kill", flush=True)
    doubles = [one.client_order_id for one in desk.control.orders() if one.accepted > 1]
    oversold = {symbol: str(held) for symbol, held in desk.control.positions().items() if held < 0}
    lines.check(f"{run.name}: orders doubled, positions oversold", not doubles and not oversold, (doubles, oversold))
    lines.check(f"{run.name}: no order is unknown and untold", not unknown - _told_orders(desk), sorted(unknown)[:5])
    waits = sorted(at - killed for _, at in asking.accepted.values() if at > killed)
    if waits:
        print(f"        later closes: {len(waits)}, p50 {percentile(waits, 0.5):.1f} s after the kill", flush=True)
    left = (
        "SELECT count(*) FROM incidents i JOIN orders o USING (client_order_id)"
        " WHERE i.kind = 'unknown_order' AND i.closed_at IS NULL"
    )
    watcher.until(lambda: desk.count(left) == 0, within_s=60)
    lines.check(f"{run.name}: no order that is known again is told to be unknown", not desk.count(left), "yes")
    if lost:
        _asked_again(run, lines, desk, watcher, [held for held in portfolio if held.id in lost], unknown)
    if not lost and not unknown:
        lines.check(f"{run.name}: closectl verify", verified(desk), "holds")


def _asked_again(
    run: Run, lines: Lines, desk: Desk, watcher: Watcher, portfolio: Sequence[Held], unknown: set[str]
) -> None:
    """The positions whose accepted close is lost are closed under a new key: those that the broker has an order of are
    refused, the others are closed."""
    answers = {held.id: desk.post(held, "again") for held in portfolio}
    accepted = [held for held in portfolio if answers[held.id].status_code == httpx.codes.CREATED]
    refused = Counter(answer.json().get("code", answer.text) for answer in answers.values() if answer.is_error)
    closed = "SELECT count(*) FROM positions WHERE id = ANY(%s) AND status = 'closed'"
    ids = [held.id for held in accepted]
    watcher.until(lambda: desk.count(closed, ids) == len(ids), within_s=SETTLED_WITHIN_S)
    seen = f"{desk.count(closed, ids)} of {len(ids)} accepted are closed, refused: {dict(refused)}"
    lines.check(f"{run.name}: lost closes asked for again", desk.count(closed, ids) == len(ids), seen)
    oversold = {symbol: str(held) for symbol, held in desk.control.positions().items() if held < 0}
    held_back = len(portfolio) - len(accepted)
    lines.check(f"{run.name}: none is sold twice", not oversold and held_back == len(unknown), (oversold, held_back))


def _unknown_orders(desk: Desk) -> set[str]:
    """Orders of ours that the broker took and the database does not have."""
    known = {row["client_order_id"] for row in desk.rows("SELECT client_order_id FROM orders")}
    theirs = {one.client_order_id for one in desk.control.orders() if one.accepted}
    return {one for one in theirs - known if parse_client_order_id(one)}


def _told_orders(desk: Desk) -> set[str]:
    return {row["subject"] for row in desk.rows("SELECT subject FROM incidents WHERE client_order_id IS NOT NULL")}
