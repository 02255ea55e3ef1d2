"""The broker takes back or corrects what had closed a position: positions, accounting and the broker agree again."""

from __future__ import annotations

from collections import Counter
from typing import Literal

import pytest

from broker_simulator.control import Behaviour, ExecutionSeen, FillAtOnce, FillInParts, StreamFaults
from tests.system.desk import Desk, Held


def closed(desk: Desk, count: int) -> list[Held]:
    """Positions of 10, each closed by one order in two fills of 5."""
    portfolio = desk.hold_all([(10, "stock")] * count)
    for held in portfolio:
        desk.control.script(Behaviour(execution=FillInParts(parts=2)), symbol=held.symbol, count=1)
        desk.close(held)
    desk.until_status("closed", portfolio)
    return portfolio


def last_fill(desk: Desk, held: Held) -> ExecutionSeen:
    return desk.at_broker(held)[0].orders[0].executions[-1]


def ledger(desk: Desk, held: Held) -> list[tuple[str, str, str]]:
    """What accounting was told of the position, in order."""
    booked = len(desk.rows("SELECT FROM outbox_events WHERE position_id = %s AND topic = 'execution-events'", held.id))
    desk.until("executions in Kafka", lambda: len(desk.events("execution-events", held)) == booked)
    return [(one["event_type"], one["quantity"], one["price"]) for one in desk.events("execution-events", held)]


def risk(desk: Desk, held: Held) -> list[tuple[str, str]]:
    """What risk was told of the position, in order of version."""
    version = desk.position(held)["version"]
    desk.until(
        "the last version in Kafka", lambda: desk.events("position-events", held)[-1]["position_version"] == version
    )
    return [(one["event_type"], one["quantity"]) for one in desk.events("position-events", held)]


def listen_again(desk: Desk) -> None:
    """Make the gateway connect anew and read the broker's list, which tells again what the stream told."""
    desk.control.drop_stream()
    desk.until("the gateway listens", lambda: desk.control.listeners() == 1)


@pytest.mark.parametrize("activity_ids", ["same", "different"])
def test_a_bust_or_correction_after_the_close(desk: Desk, activity_ids: Literal["same", "different"]) -> None:
    desk.control.set_capabilities(activity_ids=activity_ids)
    revived, over, less, price = portfolio = closed(desk, 4)

    desk.control.bust(last_fill(desk, revived).execution_id, revive=True)
    desk.control.bust(last_fill(desk, over).execution_id)
    desk.control.correct(last_fill(desk, less).execution_id, qty="3", price="100.01")
    desk.control.correct(last_fill(desk, price).execution_id, qty="5", price="100.01")

    # P11: with an order that lives the close goes on by itself, else it waits for a person.
    desk.until_status("closing", [revived])
    desk.until_status("close_retryable", [over, less])
    desk.until("the other price booked", lambda: len(desk.executions(price)) == 3)
    assert desk.position(price)["status"] == "closed"
    assert [desk.position(held)["quantity"] for held in portfolio] == [5, 5, 2, 0]
    requests = {one["position_id"]: one for one in desk.rows("SELECT * FROM close_requests")}
    assert [requests[held.id]["status"] for held in portfolio] == ["submitted", "retryable", "retryable", "completed"]
    assert not any(requests[held.id]["auto_retry"] for held in portfolio[:3])
    assert {held.symbol: desk.control.positions().get(held.symbol, 0) for held in portfolio} == {
        held.symbol: desk.position(held)["quantity"] for held in portfolio
    }

    # The list tells everything again by other names; it stays one row each.
    aliases = "SELECT FROM execution_aliases JOIN executions USING (broker, account_id, exec_id) WHERE position_id = %s"
    listen_again(desk)
    desk.until("every row told twice", lambda: all(len(desk.rows(aliases, held.id)) == 3 for held in portfolio))
    for held in portfolio:
        desk.assert_booked_once(held, desk.at_broker(held))

    name = desk.at_broker(revived)[0].client_order_id
    desk.control.rescript(name, Behaviour(execution=FillAtOnce()))
    for held in (over, less):
        desk.retry(str(requests[held.id]["id"]))
    desk.until_status("closed", portfolio)
    desk.assert_closed_once([revived, price])
    desk.assert_closed_once([over, less], attempts=2)

    told = [one for one in risk(desk, over) if one != ("POSITION_REDUCED", "5")]
    assert told == [
        ("POSITION_CLOSING", "10"),
        ("POSITION_CLOSED", "0"),
        ("POSITION_REOPENED", "5"),
        ("POSITION_CLOSING", "5"),
        ("POSITION_CLOSED", "0"),
    ]
    recorded = ("EXECUTION_RECORDED", "5", "99.95")
    assert ledger(desk, over) == [recorded, recorded, ("EXECUTION_REVERSED", "5", "99.95"), recorded]
    assert ledger(desk, price) == [
        recorded,
        recorded,
        ("EXECUTION_REVERSED", "5", "99.95"),
        ("EXECUTION_CORRECTED", "5", "100.01"),
    ]
    assert Counter(desk.incidents()) == {
        "execution_busted": 2,
        "execution_corrected": 2,
        "position_reopened": 3,
    }
    desk.expected_incidents = desk.incidents()
    compared = desk.reconcile()
    assert compared.differences == [], compared.differences
    assert {
        one.of.symbol: one.agrees for one in compared.days if one.of.symbol in {held.symbol for held in portfolio}
    } == {held.symbol: True for held in portfolio}


@pytest.mark.parametrize("activity_ids", ["same", "different"])
def test_order_snapshots_ahead_of_their_fills_book_each_fill_once(
    desk: Desk, activity_ids: Literal["same", "different"]
) -> None:
    """Parts of 4, 3 and 3, each with an order on which all 10 are filled, then the list in its own names."""
    desk.control.set_capabilities(activity_ids=activity_ids)
    portfolio = desk.hold_all([(10, "stock")] * 2)
    desk.control.script(Behaviour(execution=FillInParts(parts=3), stream=StreamFaults(ahead=True)))
    for held in portfolio:
        desk.close(held)
    desk.until_status("closed", portfolio)
    aliases = "SELECT FROM execution_aliases JOIN executions USING (broker, account_id, exec_id) WHERE position_id = %s"
    listen_again(desk)
    desk.until("every fill told twice", lambda: all(len(desk.rows(aliases, held.id)) == 3 for held in portfolio))
    desk.assert_closed_once(portfolio, orders_ahead=True)
    assert desk.incidents() == []


def test_a_bust_that_no_stream_told_is_found_in_the_list(desk: Desk) -> None:
    """Nothing of it is on the stream, and the order had been done, so that nobody asks about it."""
    revived, over = portfolio = closed(desk, 2)
    desk.control.drop_stream(refuse_for_s=60)
    desk.control.bust(last_fill(desk, revived).execution_id, revive=True)
    desk.control.bust(last_fill(desk, over).execution_id)
    desk.control.heal_stream()

    desk.until_status("closing", [revived])
    desk.until_status("close_retryable", [over])
    desk.control.rescript(desk.at_broker(revived)[0].client_order_id, Behaviour(execution=FillAtOnce()))
    (request,) = desk.rows("SELECT id FROM close_requests WHERE position_id = %s", over.id)
    desk.retry(str(request["id"]))
    desk.until_status("closed", portfolio)
    desk.assert_closed_once([revived])
    desk.assert_closed_once([over], attempts=2)
    assert {one["source"] for held in portfolio for one in desk.executions(held) if one["kind"] == "bust"} == {
        "backfill"
    }
    found = Counter(desk.incidents())
    assert found == {"execution_busted": 2, "position_reopened": 2, "retry_by_hand": 1}
    desk.expected_incidents = desk.incidents()
