"""Closes of every kind while the clocks of hosts are moved: what they come to, and how long that takes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, Final

from broker_simulator.control import Behaviour, FillInParts, Outage, Reject, RunSteps, Step
from demo.system import SERVICES, System
from tests.host_clocks import HostClocks
from tests.system.desk import Desk, Held

IN_PARTS: Final = Behaviour(execution=FillInParts(parts=3, every_s=0.3))
REFUSED: Final = Behaviour(answer=Reject(message="price is outside of the price band"))
ENDLESS: Final = Behaviour(execution=RunSteps(steps=(Step(do="fill", quantity=Decimal(4)),)))
RATE_LIMIT: Final = Outage(kind="rate_limit", method="POST", path_prefix="/v2/orders", requests=1)
ENDED: Final = {"completed", "failed"}
Outcome = Counter[tuple[Any, ...]]
"""Of each close: whether it was to be cancelled, its status and reason, what was filled in how many executions, the
position's status."""


@contextmanager
def moved_by_hand(system: System) -> Iterator[HostClocks]:
    """The services started anew, with clocks that can be moved; all of them right again at the end."""
    clocks = HostClocks(system.directory / "clocks")
    for service in SERVICES:
        clocks.shift(module(service), 0)  # One that was killed in the middle left its shifts behind.
        assert system.stop(service) == 0
    with clocks.inherited():
        system.start(*SERVICES)
    try:
        yield clocks
    finally:
        for service in SERVICES:
            clocks.shift(module(service), 0)


def module(service: str) -> str:
    return service.replace("-", "_")


def run_closes(desk: Desk, each: int, move: Callable[[], None]) -> tuple[Outcome, float]:
    """Three times `each` closes: filled in parts, refused once, and cancelled by their user after a part; one send is
    answered 429. Half are asked for before the clocks move, half after. Returns also the seconds that it took."""
    portfolio = desk.hold_all([(9, "stock")] * (3 * each))
    endless = portfolio[::3]
    for number, held in enumerate(portfolio):
        behaviour = (ENDLESS, IN_PARTS, REFUSED)[number % 3]
        desk.control.script(behaviour, symbol=held.symbol, count=1)
    desk.control.outage(RATE_LIMIT)
    began = time.monotonic()
    requests: dict[int, str] = {}
    for number, held in enumerate(portfolio):
        if number == len(portfolio) // 2:
            move()
        requests[held.id] = desk.close(held)
    ids = [held.id for held in endless]
    parts = "SELECT count(DISTINCT position_id) FROM executions WHERE position_id = ANY(%s)"
    desk.until("a part of each is filled", lambda: desk.count(parts, ids) == len(ids), within_s=120)
    for held in endless:
        desk.cancel(requests[held.id])
    asked = list(requests.values())
    unfinished = "SELECT count(*) FROM close_requests WHERE id = ANY(%s::uuid[]) AND status <> ALL(%s)"
    desk.until("all have ended", lambda: desk.count(unfinished, asked, list(ENDED)) == 0, within_s=180)
    took_s = time.monotonic() - began
    return outcome_of(desk, portfolio, requests, endless), took_s


def outcome_of(desk: Desk, portfolio: Sequence[Held], requests: dict[int, str], endless: Sequence[Held]) -> Outcome:
    found: Outcome = Counter()
    for held in portfolio:
        row, position = desk.request(requests[held.id]), desk.position(held)
        executions = desk.executions(held)
        desk.assert_booked_once(held, desk.at_broker(held))
        told = (row["status"], row["reason"], row["filled_qty"], len(executions), position["status"])
        found[(held in endless, *told)] += 1
    return found


def skewed(desk: Desk) -> set[str]:
    """The services of which an incident says that the clock of their host is wrong."""
    rows = desk.rows("SELECT subject FROM incidents WHERE kind = 'clock_skew' AND closed_at IS NULL")
    return {row["subject"].partition("@")[0] for row in rows}
