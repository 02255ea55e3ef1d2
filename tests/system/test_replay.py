"""What was said of a position is published once more: who knows it ends as before, who lost it has it again."""

from __future__ import annotations

import json
from typing import Any

from broker_simulator.control import Behaviour, FillInParts
from tests.closectl.running import answer, closectl, process
from tests.system.desk import Desk, Held

TOPICS = ("position-events", "execution-events")


def risk(events: list[dict[str, Any]]) -> tuple[int, str, str]:
    """Version, quantity and status after applying only higher versions, in the order of the topic."""
    known = (0, "", "")
    for one in events:
        if one["position_version"] > known[0]:
            known = (one["position_version"], one["quantity"], one["position_status"])
    return known


def accounting(events: list[dict[str, Any]]) -> dict[str, str]:
    """The cash of each event, each id once."""
    booked: dict[str, str] = {}
    for one in events:
        booked.setdefault(one["event_id"], one["cash_amount"])
    return booked


def told(desk: Desk, held: Held) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    of_risk, of_accounting = (desk.events(topic, held) for topic in TOPICS)
    return of_risk, of_accounting


def test_a_replay_reaches_consumers_that_end_equal(desk: Desk) -> None:
    held = desk.hold(10)
    desk.control.script(Behaviour(execution=FillInParts(parts=2)), symbol=held.symbol, count=1)
    desk.close(held)
    desk.until_status("closed", [held])
    rows = "SELECT count(*) FROM outbox_events WHERE position_id = %s AND topic = ANY(%s)"
    said = desk.count(rows, held.id, list(TOPICS))
    desk.until("all is published", lambda: sum(map(len, told(desk, held))) == said)
    before = told(desk, held)

    done = closectl("topics", "replay", str(held.id), "--reason", "risk lost it", "--yes", **desk.operator)
    assert done.exit_code == 0, done.stderr
    desk.until("all is published again", lambda: sum(map(len, told(desk, held))) == 2 * said)

    after = told(desk, held)
    again = tuple(events[len(first) :] for events, first in zip(after, before, strict=True))
    assert {one["emission"] for events in again for one in events} == {2}
    assert (risk(after[0]), accounting(after[1])) == (risk(before[0]), accounting(before[1]))
    assert (risk(again[0]), accounting(again[1])) == (risk(before[0]), accounting(before[1]))
    actions = answer("actions", "list", "--subject", str(held.id), **desk.operator)
    assert [(one["action"], one["reason"]) for one in actions] == [("replay_events", "risk lost it")]


def test_the_three_sources_are_compared_as_a_machine_asks(desk: Desk) -> None:
    held = desk.hold(7, "option")
    desk.close(held)
    desk.until_status("closed", [held])
    # As a process: it warns of foreign orders, and what it prints is JSON all the same.
    done = process("reconcile", "ledger", "--symbol", held.symbol, "--json", **desk.operator)
    assert done.exit_code == 0, done
    found = json.loads(done.stdout)
    (day,) = found["days"]
    assert found["agrees"]
    assert day["events"] == day["executions"] == day["broker"]
    assert day["broker"] == {"quantity": "-7", "cash": "69965"}
