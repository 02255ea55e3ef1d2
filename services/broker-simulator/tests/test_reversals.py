"""Busts and corrections: on the stream, in orders, positions and activities."""

from typing import Any, Literal

import pytest

from broker_simulator.control import Behaviour, Control, ControlRefused, FillAtOnce, FillInParts, FillThen
from broker_simulator.probe import RestProbe, StreamProbe


def filled(control: Control, broker: RestProbe, listener: StreamProbe, parts: int = 2) -> list[Any]:
    """The fills of an order of 10 that is filled in so many parts at 100."""
    control.pin_quote("AAPL", "100", "100.1")
    control.script(Behaviour(execution=FillInParts(parts=parts)))
    broker.post("cf-1")
    return [update for update in listener.until("fill") if "qty" in update]


def activities(broker: RestProbe) -> list[Any]:
    listed: list[Any] = broker.get("/v2/account/activities/FILL", direction="asc")
    return listed


def test_a_bust_leaves_the_order_over_with_less_filled(
    control: Control, broker: RestProbe, listener: StreamProbe
) -> None:
    _, second = filled(control, broker, listener)
    bust = control.bust(second["execution_id"])

    told = listener.until("trade_bust")[-1]
    assert (told["execution_id"], told["previous_execution_id"]) == (bust.execution_id, second["execution_id"])
    assert (told["qty"], told["price"], told["position_qty"]) == ("5", "100", "115")
    order = broker.find("cf-1")
    assert told["order"] == order
    assert (order["status"], order["filled_qty"], order["filled_avg_price"]) == ("canceled", "5", "100")
    assert order["updated_at"] > second["order"]["updated_at"]
    assert broker.get("/v2/positions/AAPL")["qty"] == "115"


def test_a_revived_order_rests_and_can_be_filled_again(
    control: Control, broker: RestProbe, listener: StreamProbe
) -> None:
    (only,) = filled(control, broker, listener, parts=1)
    control.bust(only["execution_id"], revive=True)
    order = broker.find("cf-1")
    assert (order["status"], order["filled_qty"], order["filled_avg_price"]) == ("new", "0", None)
    assert [one["id"] for one in broker.get("/v2/orders", status="open")] == [order["id"]]

    control.rescript("cf-1", Behaviour(execution=FillAtOnce()))
    assert broker.await_status("cf-1", "filled")["filled_qty"] == "10"
    assert broker.get("/v2/positions/AAPL")["qty"] == "110"


@pytest.mark.parametrize(("qty", "status", "position"), [("3", "canceled", "112"), ("7", "filled", "108")])
def test_a_correction_changes_quantity_and_price(
    control: Control, broker: RestProbe, listener: StreamProbe, qty: str, status: str, position: str
) -> None:
    """Down the order is short of its quantity, up it is overfilled."""
    _, second = filled(control, broker, listener)
    correction = control.correct(second["execution_id"], qty=qty, price="99")

    told = listener.until("trade_correct")[-1]
    assert (told["qty"], told["price"], told["previous_execution_id"]) == (qty, "99", second["execution_id"])
    order = broker.find("cf-1")
    assert (order["status"], order["filled_qty"]) == (status, str(5 + int(qty)))
    assert (str(correction.kind), correction.ref_id) == ("correct", second["execution_id"])
    assert correction.cum_qty == 5 + int(qty)
    assert broker.get("/v2/positions/AAPL")["qty"] == position


def test_an_open_order_stays_open_with_more_left(control: Control, broker: RestProbe, listener: StreamProbe) -> None:
    control.script(Behaviour(execution=FillThen(quantity="4", then="rest")))
    broker.post("cf-1")
    fill = listener.until("partial_fill")[-1]
    control.bust(fill["execution_id"])
    order = broker.find("cf-1")
    assert (order["status"], order["filled_qty"]) == ("new", "0")


def test_only_the_last_of_a_chain_can_be_reversed(control: Control, broker: RestProbe, listener: StreamProbe) -> None:
    first, _ = filled(control, broker, listener)
    correction = control.correct(first["execution_id"], qty="4", price="100")
    with pytest.raises(ControlRefused, match=f"replaced by the correct {correction.execution_id}"):
        control.bust(first["execution_id"])
    bust = control.bust(correction.execution_id)
    with pytest.raises(ControlRefused, match="is a bust itself"):
        control.bust(bust.execution_id)
    with pytest.raises(ControlRefused, match="no execution has the id nobody"):
        control.bust("nobody")
    assert broker.find("cf-1")["filled_qty"] == "5"


@pytest.mark.parametrize("ids", ["same", "different"])
def test_activities_name_what_they_replace(
    control: Control, broker: RestProbe, listener: StreamProbe, ids: Literal["same", "different"]
) -> None:
    control.set_capabilities(activity_ids=ids)
    first, _ = filled(control, broker, listener)
    correction = control.correct(first["execution_id"], qty="4", price="101")
    bust = control.bust(correction.execution_id)

    *_, corrected, busted = listed = activities(broker)
    assert [one["type"] for one in listed] == ["partial_fill", "fill", "trade_correct", "trade_bust"]
    assert (corrected["qty"], corrected["price"], corrected["cum_qty"]) == ("4", "101", "9")
    assert (corrected["id"], corrected["previous_id"]) == (correction.activity_id, listed[0]["id"])
    assert (busted["qty"], busted["cum_qty"], busted["order_status"]) == ("4", "5", "canceled")
    assert (busted["id"], busted["previous_id"]) == (bust.activity_id, corrected["id"])


def test_a_broker_that_does_not_list_reversals(control: Control, broker: RestProbe, listener: StreamProbe) -> None:
    control.set_capabilities(reversals="unlisted")
    first, _ = filled(control, broker, listener)
    control.bust(first["execution_id"])
    assert [one["type"] for one in activities(broker)] == ["partial_fill", "fill"]
    assert broker.find("cf-1")["filled_qty"] == "5"


def test_fills_that_nobody_names(control: Control, broker: RestProbe, listener: StreamProbe) -> None:
    control.script(Behaviour(execution=FillThen(quantity="4", then="cancel"), executions="unnamed"))
    broker.post("cf-1")
    told = listener.until("canceled")
    assert [update["event"] for update in told] == ["new", "canceled"]
    assert told[-1]["order"]["filled_qty"] == "4"
    assert activities(broker) == []

    control.name_executions("cf-1")
    assert [(one["qty"], one["cum_qty"]) for one in activities(broker)] == [("4", "4")]
