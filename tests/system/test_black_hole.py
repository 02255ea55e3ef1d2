"""A broker that swallows requests and takes them later: no second order, and nothing else is held up by it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal

import pytest

from broker_simulator.control import AcceptLate, Behaviour, FillThen, Outage
from demo.system import System
from tests.system.desk import Desk

SUBMITTER = "order-submitter"


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
def test_an_order_is_taken_a_minute_late_while_others_go_on(desk: Desk) -> None:
    """One order is on its way for 60 s, and every look-up denies it meanwhile. In the same minute the whole broker is
    silent for a while, and another close has to wait for a fill that the broker states and does not name."""
    late, gap, *dark = (desk.hold(quantity) for quantity in (20, *[10] * 6))
    desk.control.script(Behaviour(answer=AcceptLate(hold_s=60)), symbol=late.symbol)
    unnamed = Behaviour(execution=FillThen(quantity=Decimal(4), then="cancel"), executions="unnamed")
    desk.control.script(unnamed, symbol=gap.symbol, count=1)
    desk.close(late)
    request = desk.close(gap)
    desk.until("a send of the late order", lambda: desk.at_broker(late))
    desk.until("a gap", lambda: [one["stated_cum_qty"] for one in desk.orders(gap)] == [4])

    desk.control.outage(Outage(kind="black_hole", when="late", for_s=6))
    for held in dark:
        desk.close(held)
    desk.until_status("closed", dark)
    desk.assert_closed_once(dark, posts=1)

    # R4: the rest is not sent again while a fill has no name.
    desk.until("the gap's incident", lambda: "gap" in desk.incidents(), within_s=60)
    (order,) = desk.orders(gap)
    assert (order["status"], order["executed_qty"], desk.position(gap)["quantity"]) == ("canceled", 0, 10)
    assert desk.request(request)["status"] == "submitted"
    desk.control.name_executions(order["client_order_id"])
    desk.until_status("closed", [gap])
    desk.assert_closed_once([gap], attempts=2)
    assert [one["quantity"] for one in desk.orders(gap)] == [10, 6]
    desk.until(
        "the gap's incident closed",
        lambda: not desk.rows("SELECT FROM incidents WHERE closed_at IS NULL AND kind = 'gap'"),
    )

    (seen,) = desk.at_broker(late)
    assert (seen.posts_received, seen.accepted, [one.outcome for one in seen.posts]) == (1, 0, ["held"])
    desk.until_status("closed", [late], within_s=75)
    desk.assert_closed_once([late], posts=1)
    assert desk.rows("SELECT answer FROM order_sends WHERE client_order_id = %s", seen.client_order_id) == [
        {"answer": "unknown"}
    ]
    desk.expected_incidents = ["gap"]
