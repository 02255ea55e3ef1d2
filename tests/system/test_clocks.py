"""Clocks jump by an hour while sends are in flight (invariant 20): a close may fail early, nothing is sent twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import httpx
import psycopg
import pytest

from broker_simulator.control import AcceptLate, AcceptSilently, Behaviour, FillInParts, StreamFaults
from tests.system.conftest import DATABASE
from tests.system.desk import Desk, Held

SUBMITTER: Final = "order-submitter"
SLOWLY: Final = FillInParts(parts=3, every_s=1)
BEHAVIOURS: Final = (
    Behaviour(answer=AcceptSilently(), execution=SLOWLY, stream=StreamFaults(lose=True)),
    Behaviour(answer=AcceptSilently(), execution=SLOWLY, visible_after_s=3),
    Behaviour(answer=AcceptLate(hold_s=2.5), execution=SLOWLY),
    Behaviour(execution=SLOWLY),
)
EARLY: Final = {
    # Given up as unknown for too long, or cancelled as working for too long; what is at the broker still counts.
    "submit_unknown",
    "order_not_found",
    "acknowledged_order_not_found",
    # As far as one can tell these have lasted for an hour.
    "gap",
    "cancel_outcome_missing",
}


@contextmanager
def clock(desk: Desk, whose: str, shift: str) -> Iterator[None]:
    """`ALTER <whose>` moves the clock of the database's sessions, and back at the end. A change of SYSTEM is seen by
    open sessions at once, that of a ROLE by new ones only."""
    with psycopg.connect(desk.system.admin_dsn, autocommit=True) as database:
        database.execute(f"ALTER {whose} SET closeflow.clock_shift = '{shift}'")
        database.execute("SELECT pg_reload_conf()")
        try:
            yield
        finally:
            database.execute(f"ALTER {whose} RESET closeflow.clock_shift")
            database.execute("SELECT pg_reload_conf()")


@contextmanager
def senders_clock(desk: Desk, shift: str) -> Iterator[None]:
    """The order-submitter crashes, comes back with a clock of its own, and at the end with the right one."""
    try:
        with clock(desk, f"ROLE closeflow_order_submitter IN DATABASE {DATABASE}", shift):
            desk.system.kill(SUBMITTER)
            desk.system.start(SUBMITTER)
            yield
    finally:
        assert desk.system.stop(SUBMITTER) == 0
        desk.system.start(SUBMITTER)


def closing(desk: Desk, each: int) -> list[Held]:
    """Closes at the market, which need no quote that is new by the database's clock, all of them under way."""
    portfolio = desk.hold_all([(9, "stock")] * (each * len(BEHAVIOURS)))
    for number, held in enumerate(portfolio):
        desk.control.script(BEHAVIOURS[number % len(BEHAVIOURS)], symbol=held.symbol)
    for held in portfolio:
        assert desk.post(held, "k", body={"order_type": "market"}).status_code == httpx.codes.CREATED
    ids = [held.id for held in portfolio]
    sent = "SELECT count(*) FROM order_sends JOIN orders USING (client_order_id) WHERE position_id = ANY(%s)"
    desk.until("all claimed", lambda: desk.count(sent, ids) >= len(ids))
    desk.until("a send without an answer", lambda: desk.count(f"{sent} AND answered_at IS NULL", ids))
    return portfolio


def assert_sent_once(desk: Desk, portfolio: Sequence[Held]) -> None:
    """However many attempts there were: every id is ours, was taken at most once, and together they closed once."""
    for held in portfolio:
        seen = desk.at_broker(held)
        assert {one.client_order_id for one in seen} <= {one["client_order_id"] for one in desk.orders(held)}
        assert all(one.accepted <= 1 for one in seen), seen
        assert sum(order.filled_qty for one in seen for order in one.orders) == held.quantity
        desk.assert_booked_once(held, seen)


@pytest.mark.parametrize("shift", ["1 hour", "-1 hour"])
def test_the_clock_of_the_database_jumps(desk: Desk, shift: str) -> None:
    portfolio = closing(desk, 2)
    with clock(desk, "SYSTEM", shift):
        desk.until_status("closed", portfolio, within_s=60)
    assert_sent_once(desk, portfolio)
    assert set(desk.incidents()) <= EARLY
    desk.expected_incidents = desk.incidents()


def test_a_sender_comes_back_an_hour_ahead_of_the_others(desk: Desk) -> None:
    """It was killed with sends in flight. Their leases are over by its clock when they are not: it waits for them by
    its own."""
    portfolio = closing(desk, 2)
    with senders_clock(desk, "1 hour"):
        desk.until_status("closed", portfolio, within_s=60)
    assert_sent_once(desk, portfolio)
    assert set(desk.incidents()) <= EARLY
    desk.expected_incidents = desk.incidents()
