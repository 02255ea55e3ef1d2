"""Clocks jump by an hour while sends are in flight (invariant 20): a close may fail early, nothing is sent twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import pytest

from broker_simulator.control import AcceptLate, AcceptSilently, Behaviour, FillInParts, StreamFaults
from tests.system.conftest import DATABASE
from tests.system.desk import Desk, Held
from tests.system.moved_clocks import module, moved_by_hand, run_closes, skewed

SUBMITTER: Final = "order-submitter"
SLOWLY: Final = FillInParts(parts=3, every_s=1)
BEHAVIOURS: Final = (
    Behaviour(answer=AcceptSilently(), execution=SLOWLY, stream=StreamFaults(lose=True)),
    Behaviour(answer=AcceptSilently(), execution=SLOWLY, visible_after_s=3),
    Behaviour(answer=AcceptLate(hold_s=2.5), execution=SLOWLY),
    Behaviour(execution=SLOWLY),
)
OVER: Final = ["denied", "lost", "filled", "canceled", "expired", "rejected"]
EARLY: Final = {
    # Given up as unknown for too long, or cancelled as working for too long; what is at the broker still counts.
    "submit_unknown",
    "order_not_found",
    "acknowledged_order_not_found",
    "order_outlives_request",
    # Told by every service whose host disagrees with the database.
    "clock_skew",
    # As far as one can tell these have lasted for an hour.
    "close_not_planned",
    "deferred_broker_unavailable",
    "deferred_no_fresh_quote",
    "gap",
    "orders_not_sent",
    "orders_not_answered",
    "cancel_outcome_missing",
    # An order that a look-up does not find yet can also not be cancelled.
    "cancel_refused",
    # Before one o'clock UTC an hour ago was yesterday, which is before the database's first day.
    "outbox_default_partition_used",
}


@contextmanager
def senders_clock(desk: Desk, shift: str) -> Iterator[None]:
    """The order-submitter crashes, comes back with a clock of its own, and at the end with the right one."""
    try:
        with desk.clock(f"ROLE closeflow_order_submitter IN DATABASE {DATABASE}", shift):
            desk.system.kill(SUBMITTER)
            desk.system.start(SUBMITTER)
            yield
    finally:
        desk.restart(SUBMITTER)


def closing(desk: Desk, each: int) -> list[Held]:
    """Closes at the market, which need no quote that is new by the database's clock, all of them under way."""
    portfolio = desk.hold_all([(9, "stock")] * (each * len(BEHAVIOURS)))
    for number, held in enumerate(portfolio):
        desk.control.script(BEHAVIOURS[number % len(BEHAVIOURS)], symbol=held.symbol)
    for held in portfolio:
        desk.close(held, body={"order_type": "market"})
    ids = [held.id for held in portfolio]
    sent = "SELECT count(DISTINCT position_id) FROM order_sends JOIN orders USING (client_order_id)"
    sent += " WHERE position_id = ANY(%s)"
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


def end(desk: Desk, portfolio: Sequence[Held]) -> None:
    """With the right clock again: what waits goes on, and what failed early is closed anew."""
    ids = [held.id for held in portfolio]
    busy = "SELECT count(*) FROM positions WHERE id = ANY(%s)"
    busy += " AND (status IN ('closing', 'close_retryable') OR exposure_unproven)"
    desk.until("each is closed or free", lambda: desk.count(busy, ids) == 0, within_s=60)
    for held in portfolio:
        if desk.position(held)["status"] != "closed":
            desk.close(held, "again")
    desk.until_status("closed", portfolio)


@pytest.mark.parametrize("shift", ["1 hour", "-1 hour"])
def test_the_clock_of_the_database_jumps(desk: Desk, shift: str) -> None:
    """An hour ahead every order has been unknown, or at work, for too long."""
    portfolio = closing(desk, 2)
    ids = [held.id for held in portfolio]
    at_work = "SELECT count(*) FROM orders WHERE position_id = ANY(%s) AND NOT status = ANY(%s)"
    with desk.clock("SYSTEM", shift):
        desk.until("every order is over", lambda: desk.count(at_work, ids, OVER) == 0, within_s=60)
    end(desk, portfolio)
    assert_sent_once(desk, portfolio)
    assert set(desk.incidents()) <= EARLY
    desk.expected_incidents = desk.incidents()


def test_a_sender_comes_back_an_hour_ahead_of_the_others(desk: Desk) -> None:
    """It was killed with sends in flight. Their leases are over by its clock when they are not: it waits for them by
    its own."""
    portfolio = closing(desk, 2)
    with senders_clock(desk, "1 hour"):
        # A claim that was killed before its POST is looked up twice, half a minute apart by that clock.
        desk.until_status("closed", portfolio, within_s=100)
    assert_sent_once(desk, portfolio)
    assert set(desk.incidents()) <= EARLY
    desk.expected_incidents = desk.incidents()


SHIFTS_S: Final = {
    "close-api": 300,
    SUBMITTER: 3600,
    "fill-processor": -300,
    "broker-gateway": -3600,
    "reconciler": -3600,
}


def test_the_clock_of_every_host_is_moved_while_closes_run(desk: Desk) -> None:
    """They end as they do without, because nothing that is compared or waited for is of a host's clock."""
    with moved_by_hand(desk.system) as clocks:

        def move() -> None:
            for service, seconds in SHIFTS_S.items():
                clocks.shift(module(service), seconds)

        outcome, _ = run_closes(desk, 2, move)
        assert outcome == {
            (True, "failed", "canceled_by_user", 4, 1, "open"): 2,
            (False, "completed", None, 9, 3, "closed"): 2,
            (False, "completed", None, 9, 1, "closed"): 2,
        }
        desk.until("every skew is told", lambda: skewed(desk) == set(SHIFTS_S))
    desk.until("they are right again", lambda: not skewed(desk))
    desk.expected_incidents = desk.incidents()
    assert set(desk.expected_incidents) == {"clock_skew"}
