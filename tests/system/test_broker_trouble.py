"""The broker's stream and answers fail in every way they can; the books come out the same."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from functools import partial
from typing import Final, Literal

import pytest

from broker_simulator.control import (
    AcceptLate,
    AcceptSilently,
    AcceptThenFail,
    Behaviour,
    FillAtOnce,
    FillInParts,
    RefuseRepeat,
    Reject,
    RunSteps,
    Step,
    StreamFaults,
)
from tests.system.desk import Desk, Held

PARTS: Final = FillInParts(parts=4, every_s=0.1)
FAULTS: Final = {
    "undisturbed": StreamFaults(),
    "three times each": StreamFaults(copies=3),
    "newest first": StreamFaults(reorder=True),
    "newest first, twice each": StreamFaults(reorder=True, copies=2),
    "late": StreamFaults(delay_s=1),
    "never": StreamFaults(lose=True),
}
ANSWERS: Final = (
    AcceptSilently(),
    AcceptThenFail(how="reset"),
    AcceptThenFail(how="server_error"),
    AcceptThenFail(how="html"),
    AcceptThenFail(how="truncated"),
    AcceptThenFail(how="redirect"),
    AcceptThenFail(how="foreign"),
)


def final_state(desk: Desk, held: Held) -> dict[str, object]:
    """Everything of a closed position that must not depend on how the news of it came."""
    (order,) = desk.orders(held)
    (request,) = desk.rows("SELECT * FROM close_requests WHERE position_id = %s", held.id)
    position = desk.position(held)
    fills = [(one["quantity"], one["price"], one["cum_qty"], one["side"]) for one in desk.executions(held)]
    return {
        "position": (position["status"], position["quantity"], position["closed_at"] is not None),
        "request": (request["status"], request["reason"], request["filled_qty"], request["attempt"]),
        "order": (order["status"], order["executed_qty"], order["stated_cum_qty"], order["avg_price"]),
        "fills": sorted(fills, key=lambda fill: fill[2]),
        "events": Counter(one["event_type"] for one in desk.events("execution-events", held)),
    }


def test_updates_in_any_number_and_order_give_the_same_final_state(desk: Desk) -> None:
    portfolio = dict(zip(FAULTS, desk.hold_all([(20, "stock")] * len(FAULTS)), strict=True))
    for fault, held in portfolio.items():
        desk.control.script(Behaviour(execution=PARTS, stream=FAULTS[fault]), symbol=held.symbol)
    for held in portfolio.values():
        desk.close(held)

    desk.until_status("closed", portfolio.values())
    desk.assert_closed_once(portfolio.values())
    desk.until(
        "every execution in Kafka",
        lambda: all(len(desk.events("execution-events", held)) == 4 for held in portfolio.values()),
    )
    undisturbed = final_state(desk, portfolio["undisturbed"])
    assert undisturbed["events"] == {"EXECUTION_RECORDED": 4}
    for fault, held in portfolio.items():
        assert final_state(desk, held) == undisturbed, fault


@pytest.mark.parametrize("activity_ids", ["same", "different"])
def test_fills_while_the_stream_is_down_are_backfilled_once(
    desk: Desk, activity_ids: Literal["same", "different"]
) -> None:
    desk.control.set_capabilities(activity_ids=activity_ids)
    held = desk.hold(20)
    two_fills, three_fills = (RunSteps(steps=(Step(do="fill", quantity=Decimal(4)),) * fills) for fills in (2, 3))
    desk.control.script(Behaviour(execution=two_fills), symbol=held.symbol)
    desk.close(held)
    desk.until("two fills heard on the stream", lambda: len(desk.executions(held)) == 2)

    assert desk.control.drop_stream(refuse_for_s=60) == 1
    desk.control.rescript(desk.orders(held)[0]["client_order_id"], Behaviour(execution=three_fills))
    desk.until("filled at the broker", lambda: desk.at_broker(held)[0].orders[0].status == "filled")
    desk.control.heal_stream()
    desk.until_status("closed", [held])

    desk.assert_closed_once([held])
    booked = desk.executions(held)
    assert [one["source"] for one in booked[2:]] == ["backfill"] * 3
    # The backfill lists the first two again, by another id in either mode: each is one execution with an alias.
    aliased = desk.rows(
        "SELECT exec_id FROM execution_aliases JOIN executions USING (broker, account_id, exec_id)"
        " WHERE position_id = %s ORDER BY occurred_at, cum_qty",
        held.id,
    )
    assert [one["exec_id"] for one in aliased] == [one["exec_id"] for one in booked[:2]]


def test_an_order_whose_answer_is_lost_is_at_the_broker_once_for_ever(desk: Desk) -> None:
    """Nothing is heard of them on the stream either: what became of them is known from look-ups alone."""
    portfolio = dict(zip(ANSWERS, desk.hold_all([(20, "stock")] * len(ANSWERS)), strict=True))
    for answer, held in portfolio.items():
        in_silence = Behaviour(answer=answer, execution=PARTS, stream=StreamFaults(lose=True))
        desk.control.script(in_silence, symbol=held.symbol)
    for held in portfolio.values():
        desk.close(held)

    desk.until_status("closed", portfolio.values())
    desk.assert_closed_once(portfolio.values(), posts=1)
    ids = [held.id for held in portfolio.values()]
    sends = "FROM order_sends JOIN orders USING (client_order_id) WHERE position_id = ANY(%s)"
    # A close may be over before the time-out is: the answer is written later.
    desk.until("answered", lambda: desk.count(f"SELECT count(*) {sends} AND answer IS NULL", ids) == 0)
    # `not_sent` never reached the wire: it was too late when its turn came.
    answers = desk.rows(f"SELECT DISTINCT answer {sends} AND answer <> 'not_sent'", ids)
    assert answers == [{"answer": "unknown"}]


def test_an_order_that_is_taken_after_we_gave_up_waiting_is_taken_once(desk: Desk) -> None:
    held = desk.hold(20)
    desk.control.script(Behaviour(answer=AcceptLate(hold_s=2)), symbol=held.symbol)

    desk.close(held)

    desk.until_status("closed", [held])
    desk.assert_closed_once([held], posts=None)


def test_a_repeat_that_is_refused_while_the_first_send_lives_proves_nothing(desk: Desk) -> None:
    """R3b: the first send holds the quantity, so the second of the same id is refused for want of it."""
    on_its_way, unseen = portfolio = desk.hold_all([(20, "stock")] * 2)
    no_quantity = "insufficient qty available for order (requested: 20, available: 0)"
    # One is taken only after its repeat was refused, the other was taken at once and is not found for a while.
    desk.control.script(Behaviour(answer=AcceptLate(hold_s=9)), symbol=on_its_way.symbol, count=1)
    desk.control.script(Behaviour(answer=Reject(message=no_quantity)), symbol=on_its_way.symbol)
    hidden = Behaviour(
        answer=AcceptSilently(),
        repeat=RefuseRepeat(message=no_quantity),
        execution=FillAtOnce(after_s=9),
        stream=StreamFaults(lose=True),
        visible_after_s=9,
    )
    desk.control.script(hidden, symbol=unseen.symbol)
    requests = [desk.close(held) for held in portfolio]

    refusals = (
        "SELECT FROM order_sends JOIN orders USING (client_order_id) WHERE position_id = %s AND answer = 'rejected'"
    )
    for held in portfolio:
        desk.until("the repeat refused", partial(desk.rows, refusals, held.id))
        assert [one["status"] for one in desk.orders(held)] == ["submit_unknown"]
    desk.until_status("closed", portfolio)

    desk.assert_closed_once(portfolio, posts=2)
    assert [desk.request(request)["retry_count"] for request in requests] == [0, 0]
