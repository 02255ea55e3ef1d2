"""Each scripted behaviour of an order, once."""

import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any, Literal

import httpx
import pytest

from broker_simulator.answers import Spoil
from broker_simulator.control import (
    AcceptCancel,
    AcceptLate,
    AcceptSilently,
    AcceptThenFail,
    Behaviour,
    Control,
    ControlRefused,
    FillAtOnce,
    FillInParts,
    FillThen,
    MatchQuote,
    NeverFill,
    RefuseCancel,
    RefuseRepeat,
    Reject,
    Rule,
    RunSteps,
    Step,
    StreamFaults,
)
from broker_simulator.probe import RestProbe, StreamProbe, await_condition
from broker_simulator.process import SimulatorProcess


def events(updates: list[Any]) -> list[str]:
    return [update["event"] for update in updates]


def test_filled_at_once_whatever_the_limit(control: Control, broker: RestProbe, listener: StreamProbe) -> None:
    control.script(Behaviour(execution=FillAtOnce()))
    broker.post("cf-1", type="limit", limit_price="9999")
    fill = listener.until("fill")[-1]
    assert (fill["price"], fill["qty"], fill["position_qty"]) == ("9999", "10", "110")


def test_parts_come_one_after_the_other(control: Control, broker: RestProbe, listener: StreamProbe) -> None:
    control.script(Behaviour(execution=FillInParts(parts=4, every_s=0.05)))
    began = time.monotonic()
    broker.post("cf-1")
    updates = listener.until("fill")
    assert time.monotonic() - began >= 0.2
    assert [update.get("qty") for update in updates] == [None, "3", "3", "2", "2"]
    stated = [update["order"]["updated_at"] for update in updates]
    assert stated == sorted(set(stated)), "broker_seq rises strictly"


def test_a_fraction_in_parts_adds_up(control: Control, broker: RestProbe, listener: StreamProbe) -> None:
    control.script(Behaviour(execution=FillInParts(parts=3)))
    broker.post("cf-1", symbol="NVDA", qty="2.5")
    listener.until("fill")
    assert broker.find("cf-1")["filled_qty"] == "2.5"


@pytest.mark.parametrize(("then", "status"), [("cancel", "canceled"), ("expire", "expired"), ("suspend", "suspended")])
def test_partly_filled_then_ended(
    control: Control,
    broker: RestProbe,
    listener: StreamProbe,
    then: Literal["cancel", "expire", "suspend"],
    status: str,
) -> None:
    control.script(Behaviour(execution=FillThen(quantity="4", then=then, after_s=0.02)))
    broker.post("cf-1")
    assert events(listener.until(status)) == ["new", "partial_fill", status]
    order = broker.find("cf-1")
    assert (order["status"], order["filled_qty"]) == (status, "4")


def test_rejected_only_once(control: Control, broker: RestProbe) -> None:
    control.script(Behaviour(answer=Reject(status=403, code=40310000, message="market is closed")), count=1)
    refused = broker.post("cf-1")
    assert (refused.status_code, refused.json()) == (403, {"code": 40310000, "message": "market is closed"})
    assert broker.find("cf-1") is None
    assert broker.post("cf-1").status_code == 200


def test_rejected_after_it_was_accepted(control: Control, broker: RestProbe, listener: StreamProbe) -> None:
    control.script(Behaviour(execution=RunSteps(steps=(Step(do="reject", after_s=0.02),))))
    assert broker.post("cf-1").status_code == 200
    assert listener.until("rejected")[-1]["order"]["failed_at"] is not None


def test_a_repeated_send_is_refused_with_other_words(control: Control, broker: RestProbe) -> None:
    control.script(Behaviour(repeat=RefuseRepeat(status=403, code=40310000, message="insufficient qty")))
    assert broker.post("cf-1").status_code == 200
    assert broker.post("cf-1").json() == {"code": 40310000, "message": "insufficient qty"}
    seen = control.order("cf-1")
    assert (seen.posts_received, seen.accepted, len(set(seen.bodies))) == (2, 1, 1)


def test_accepted_but_never_answered(control: Control, broker: RestProbe, listener: StreamProbe) -> None:
    control.script(Behaviour(answer=AcceptSilently()))
    with pytest.raises(httpx.ReadTimeout):
        broker.post("cf-1", timeout_s=0.5)
    listener.until("fill")
    assert broker.find("cf-1")["status"] == "filled"


def test_accepted_and_answered_slowly(control: Control, broker: RestProbe) -> None:
    control.script(Behaviour(answer=AcceptSilently(answer_after_s=0.1)))
    assert broker.post("cf-1").elapsed.total_seconds() >= 0.1


def test_accepted_late_although_the_client_is_gone(control: Control, broker: RestProbe) -> None:
    control.script(Behaviour(answer=AcceptLate(hold_s=4)))
    with pytest.raises(httpx.ReadTimeout):
        broker.post("cf-1", timeout_s=0.5)
    assert broker.find("cf-1") is None
    assert control.order("cf-1").posts[0].outcome == "held"
    broker.await_status("cf-1", "filled")
    assert control.order("cf-1").posts[0].outcome == "accepted"


def test_of_a_late_one_and_its_repeat_only_one_is_accepted(control: Control, broker: RestProbe) -> None:
    control.script(Behaviour(answer=AcceptLate(hold_s=3)), count=1)
    with pytest.raises(httpx.ReadTimeout):
        broker.post("cf-1", timeout_s=0.5)
    assert broker.post("cf-1").status_code == 200

    def outcomes() -> list[str]:
        return [post.outcome for post in control.order("cf-1").posts]

    await_condition(lambda: "held" not in outcomes(), lambda: f"still held: {outcomes()}")
    assert outcomes() == ["refused 422 40010001: client_order_id must be unique", "accepted"]


def test_a_reset_forgets_what_is_held(control: Control, broker: RestProbe) -> None:
    control.script(Behaviour(answer=AcceptLate(hold_s=2)))
    with ThreadPoolExecutor() as pool:
        held = pool.submit(broker.post, "cf-1")
        await_condition(lambda: control.order("cf-1").posts_received == 1, lambda: "nothing arrived")
        control.reset()
        assert held.result(timeout=5).status_code == 503
    assert control.orders() == []


@pytest.mark.parametrize("how", ["reset", "server_error", "html", "truncated", "redirect", "foreign"])
def test_accepted_but_the_answer_is_spoiled(control: Control, broker: RestProbe, how: Spoil) -> None:
    control.script(Behaviour(answer=AcceptThenFail(how=how)))
    match how:
        case "reset":
            with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
                broker.post("cf-1")
        case "truncated":
            with pytest.raises(httpx.RemoteProtocolError):
                broker.post("cf-1")
        case "html":
            assert broker.post("cf-1").headers["content-type"].startswith("text/html")
        case "server_error":
            assert broker.post("cf-1").status_code == 500
        case "redirect":
            assert broker.post("cf-1").status_code == 307
        case "foreign":
            assert broker.post("cf-1").json()["client_order_id"] == "somebody-else"
    broker.await_status("cf-1", "filled")


def test_never_filled_until_the_script_changes(control: Control, broker: RestProbe) -> None:
    control.script(Behaviour(execution=NeverFill()))
    broker.post("cf-1")
    assert broker.await_status("cf-1", "new")["filled_qty"] == "0"
    control.rescript("cf-1", Behaviour(execution=MatchQuote()))
    broker.await_status("cf-1", "filled")


def test_updates_are_duplicated_and_reordered(control: Control, broker: RestProbe, listener: StreamProbe) -> None:
    faults = StreamFaults(copies=2, reorder=True)
    control.script(Behaviour(execution=FillInParts(parts=2, every_s=0.01), stream=faults))
    broker.post("cf-1")
    updates = listener.until("new", count=2)
    assert events(updates) == ["fill", "fill", "partial_fill", "partial_fill", "new", "new"]
    assert updates[0]["execution_id"] == updates[1]["execution_id"]


def test_reordered_updates_of_a_resting_order_are_not_kept_for_ever(
    control: Control, broker: RestProbe, listener: StreamProbe
) -> None:
    control.script(
        Behaviour(execution=FillThen(quantity="1", then="rest"), stream=StreamFaults(reorder=True, hold_s=0.05))
    )
    broker.post("cf-1")
    assert events(listener.until("new")) == ["partial_fill", "new"]


def test_updates_are_late_or_lost(control: Control, broker: RestProbe, listener: StreamProbe) -> None:
    control.script(Behaviour(stream=StreamFaults(lose=True)), client_order_id="cf-lost")
    control.script(Behaviour(stream=StreamFaults(delay_s=1)), client_order_id="cf-late")
    for name in ("cf-lost", "cf-late", "cf-plain"):
        broker.post(name)
    assert [update["order"]["client_order_id"] for update in listener.until("fill", count=2)] == [
        "cf-plain",
        "cf-plain",
        "cf-late",
        "cf-late",
    ]
    assert broker.find("cf-lost")["status"] == "filled"


def test_updates_show_the_order_as_it_is_after_all_its_fills(
    control: Control, broker: RestProbe, listener: StreamProbe
) -> None:
    control.script(Behaviour(execution=FillInParts(parts=2), stream=StreamFaults(ahead=True)))
    broker.post("cf-1", qty="10")
    fills = [one for one in listener.until("fill") if "qty" in one]
    assert [(one["qty"], one["order"]["filled_qty"]) for one in fills] == [("5", "10"), ("5", "10")]


def test_a_split_multiplies_what_rests_and_what_is_held(control: Control, broker: RestProbe) -> None:
    held = control.positions()["AAPL"]
    steps = (Step(do="split", quantity=Decimal(4)), Step(do="fill"))
    control.script(Behaviour(execution=RunSteps(steps=steps)))
    broker.post("cf-1", qty="10", side="sell")
    assert broker.await_status("cf-1", "filled")["qty"] == "40"
    assert control.positions()["AAPL"] == 4 * held - 40


def test_an_order_that_was_replaced_by_hand_is_over(control: Control, broker: RestProbe) -> None:
    control.script(Behaviour(execution=RunSteps(steps=(Step(do="replace"),))))
    broker.post("cf-1")
    broker.await_status("cf-1", "replaced")


def test_a_cancel_is_refused_then_taken(control: Control, broker: RestProbe) -> None:
    behaviour = Behaviour(execution=NeverFill(), cancel=RefuseCancel(message="not now", times=1))
    control.script(behaviour)
    order = broker.post("cf-1").json()
    assert broker.http.delete(f"/v2/orders/{order['id']}").json() == {"code": 42210000, "message": "not now"}
    assert broker.http.delete(f"/v2/orders/{order['id']}").status_code == 204
    broker.await_status("cf-1", "canceled")
    assert broker.http.delete(f"/v2/orders/{order['id']}").status_code == 422


def test_fills_go_on_while_a_cancel_is_pending(control: Control, broker: RestProbe, listener: StreamProbe) -> None:
    steps = (Step(do="fill", after_s=0.8, quantity="3"),)
    control.script(Behaviour(execution=RunSteps(steps=steps), cancel=AcceptCancel(after_s=1)))
    order = broker.post("cf-1").json()
    broker.http.delete(f"/v2/orders/{order['id']}")
    assert events(listener.until("canceled")) == ["new", "pending_cancel", "partial_fill", "canceled"]
    assert listener.updates[2]["order"]["status"] == "pending_cancel"


def test_an_order_is_invisible_to_look_ups_for_a_while(control: Control, broker: RestProbe) -> None:
    control.script(Behaviour(visible_after_s=1.5))
    order = broker.post("cf-1").json()
    assert broker.http.get(f"/v2/orders/{order['id']}").status_code == 404
    assert broker.find("cf-1") is None
    broker.await_status("cf-1", "filled")


def test_the_most_specific_rule_wins_and_counts_run_out(control: Control, broker: RestProbe) -> None:
    def rejecting(message: str) -> Behaviour:
        return Behaviour(answer=Reject(message=message))

    control.script(rejecting("default"), count=1)
    control.script(rejecting("symbol"), symbol="AAPL", count=1)
    control.script(rejecting("prefix"), client_order_id_prefix="cf-", count=1)
    control.script(rejecting("exact"), client_order_id="cf-1", count=1)
    answers = [broker.post("cf-1").json().get("message", "accepted") for _ in range(5)]
    assert answers == ["exact", "prefix", "symbol", "default", "accepted"]
    assert [state.remaining for state in control.rules()] == [0, 0, 0, 0]


def test_a_whole_script_is_replaced_at_once(control: Control, broker: RestProbe) -> None:
    control.replace_script([Rule(behaviour=Behaviour(answer=Reject(message="one")))])
    control.replace_script([Rule(behaviour=Behaviour(answer=Reject(message="two")))])
    assert broker.post("cf-1").json()["message"] == "two"
    control.clear_script()
    assert broker.post("cf-1").status_code == 200


def test_the_control_endpoint_names_an_unknown_field(control: Control, simulator: SimulatorProcess) -> None:
    answer = httpx.post(f"{simulator.url}/control/rules", json={"behaviour": {"answr": {"kind": "accept"}}})
    assert answer.status_code == 422
    assert "answr" in answer.text
    with pytest.raises(ControlRefused, match="no open order"):
        control.rescript("cf-unknown", Behaviour())
