"""A broker that swallows requests and takes them later: no second order, and nothing else is held up by it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal

import pytest

from broker_simulator.control import Behaviour, FillThen, Outage
from demo.system import System
from tests.system.desk import Desk, Held

SUBMITTER = "order-submitter"
TOLD = {
    "gap",
    # After a minute a close that waits for the broker is told of, by what it asked for last. The broker is away for a
    # minute here, so one may be.
    "deferred_broker_unavailable",
    "deferred_no_market_clock",
    "orders_not_answered",
}


@pytest.fixture
def never_repeating(system: System) -> Iterator[None]:
    """The order-submitter with its default: what is not known to be refused for ever is never sent twice."""
    with _submitter(system, {"BROKER_DEDUPLICATION": "while_open"}):
        yield


@contextmanager
def _submitter(system: System, settings: dict[str, str]) -> Iterator[None]:
    before = system.overrides
    system.overrides = {**before, SUBMITTER: {**before[SUBMITTER], **settings}}
    try:
        assert system.stop(SUBMITTER) == 0
        system.start(SUBMITTER)
        yield
    finally:
        system.overrides = before
        assert system.stop(SUBMITTER) == 0
        system.start(SUBMITTER)


@pytest.mark.usefixtures("never_repeating")
def test_orders_are_swallowed_for_a_minute_and_taken_late(desk: Desk) -> None:
    """For 60 s every order on its way to the broker is stuck, and look-ups deny it; then all of them arrive. For a
    while the broker does not answer look-ups either. In the same minute another close has to wait for a fill that the
    broker states and does not name."""
    gap, *portfolio = (desk.hold(quantity) for quantity in (10, *[20] * 8))
    swallowed, later = portfolio[:5], portfolio[5:]
    unnamed = Behaviour(execution=FillThen(quantity=Decimal(4), then="cancel"), executions="unnamed")
    desk.control.script(unnamed, symbol=gap.symbol, count=1)
    request = desk.close(gap)
    desk.until("a gap", lambda: [one["stated_cum_qty"] for one in desk.orders(gap)] == [4])

    desk.control.outage(Outage(kind="black_hole", when="late", method="POST", path_prefix="/v2/orders", for_s=60))
    for held in swallowed:
        desk.close(held)
    desk.until("denied again and again", lambda: min(not_founds(desk, held) for held in swallowed) >= 3)
    desk.control.outage(Outage(kind="black_hole", for_s=6))
    for held in later:
        desk.close(held)

    # R4: the rest is not sent again while a fill has no name.
    desk.until("the gap's incident", lambda: "gap" in desk.incidents(), within_s=60)
    (order,) = desk.orders(gap)
    assert (order["status"], order["executed_qty"], desk.position(gap)["quantity"]) == ("canceled", 0, 10)
    assert desk.request(request)["status"] == "submitted"
    assert [desk.at_broker(held) for held in portfolio] == [[]] * len(portfolio), "the minute is not over"
    desk.control.name_executions(order["client_order_id"])

    desk.until_status("closed", [gap, *portfolio], within_s=90)
    desk.assert_closed_once(portfolio, posts=1)
    desk.assert_closed_once([gap], attempts=2)
    assert [one["quantity"] for one in desk.orders(gap)] == [10, 6]
    assert {answer for held in swallowed for answer in answers(desk, held)} - {"not_sent"} == {"unknown"}
    told_open = "SELECT count(*) FROM incidents WHERE closed_at IS NULL AND kind = ANY(%s)"
    desk.until("the incidents are closed", lambda: desk.rows(told_open, list(TOLD))[0]["count"] == 0)
    desk.expected_incidents = desk.incidents()
    assert desk.expected_incidents.count("gap") == 1
    assert set(desk.expected_incidents) <= TOLD


def not_founds(desk: Desk, held: Held) -> int:
    return sum(int(one["reconcile_not_found_count"]) for one in desk.orders(held))


def answers(desk: Desk, held: Held) -> list[str]:
    query = "SELECT answer FROM order_sends JOIN orders USING (client_order_id) WHERE position_id = %s"
    return [row["answer"] for row in desk.rows(query, held.id)]
