"""Options that expire and are assigned at the broker: their positions end, once nothing of them is under way."""

from __future__ import annotations

from broker_simulator.control import Behaviour, NeverFill, NonTrade
from tests.system.desk import Desk, Held


def told(desk: Desk, held: Held) -> tuple[str, str, str]:
    """The last that risk was told of the position."""
    version = desk.position(held)["version"]
    desk.until(
        "the last version in Kafka", lambda: desk.events("position-events", held)[-1]["position_version"] == version
    )
    last = desk.events("position-events", held)[-1]
    return last["event_type"], last["quantity"], last["reason"]


def test_what_expired_or_was_assigned_ends_for_that_reason(desk: Desk) -> None:
    expired, assigned = desk.hold_all([(3, "option"), (-2, "option")])
    desk.control.script(Behaviour(execution=NeverFill()), symbol=assigned.symbol)
    request_id = desk.close(assigned)
    desk.until("its order works", lambda: [one["status"] for one in desk.orders(assigned)] == ["new"])

    for held, kind in ((expired, "OPEXP"), (assigned, "OPASN")):
        desk.control.book_non_trade(NonTrade(activity_type=kind, symbol=held.symbol, quantity=-held.quantity))
    desk.until_status("closed", [expired])
    desk.expected_incidents = ["non_trade_activity_waits"]
    desk.until("the other waits and says so", lambda: desk.incidents() == desk.expected_incidents)
    assert desk.position(assigned)["quantity"] == assigned.quantity

    desk.cancel(request_id)
    desk.until_status("closed", [assigned])
    assert desk.request(request_id)["reason"] == "canceled_by_user"
    assert told(desk, expired) == ("POSITION_CLOSED", "0", "expired")
    assert told(desk, assigned) == ("POSITION_CLOSED", "0", "assigned")
    waiting = "SELECT count(*) FROM incidents WHERE closed_at IS NULL AND kind = 'non_trade_activity_waits'"
    desk.until("the incident is closed", lambda: desk.count(waiting) == 0)
