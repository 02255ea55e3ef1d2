"""An operator ends, repeats and corrects closes by hand while the services run; the books and the broker agree."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from uuid import UUID

import httpx

from broker_simulator.control import Behaviour, NeverFill, Outage, PositionSpec, RunSteps, Step
from tests.closectl.running import Done, closectl
from tests.system.desk import Desk, Held

CANCELED_AT_ONCE = Behaviour(execution=RunSteps(steps=(Step(do="cancel"),)))


def act(desk: Desk, *arguments: str) -> Done:
    said = ("--reason", "asked by the desk", "--by", "ann")
    return closectl(
        *arguments,
        *said,
        **desk.operator,
        broker_visibility_lag_s="0",
        absence_window_s="1",
    )


def done(desk: Desk, *arguments: str) -> None:
    told = act(desk, *arguments)
    assert told.exit_code == 0, told.stderr
    assert not told.stdout.startswith("nothing to do"), told.stdout


@contextmanager
def without(desk: Desk, service: str) -> Iterator[None]:
    desk.system.stop(service)
    try:
        yield
    finally:
        desk.system.start(service)


def order_status(desk: Desk, held: Held) -> str:
    return str(desk.orders(held)[-1]["status"]) if desk.orders(held) else "none"


def test_a_working_close_is_cancelled_and_what_filled_stays(desk: Desk) -> None:
    held = desk.hold(20)
    part = RunSteps(steps=(Step(do="fill", quantity=Decimal(5)),))
    desk.control.script(Behaviour(execution=part), symbol=held.symbol)
    request = desk.close(held)
    desk.until("partly filled", lambda: order_status(desk, held) == "partially_filled")

    done(desk, "requests", "cancel", request)

    desk.until_status("open", [held])
    row = desk.request(request)
    assert (row["status"], row["reason"], row["filled_qty"]) == ("failed", "canceled_by_user", 5)
    (at_broker,) = desk.at_broker(held)
    assert [(one.status, one.filled_qty) for one in at_broker.orders] == [("canceled", Decimal(5))]
    desk.assert_booked_once(held, [at_broker])


def test_a_close_is_retried_or_abandoned_by_hand_while_nothing_retries_by_itself(desk: Desk) -> None:
    retried, abandoned = desk.hold_all([(7, "stock"), (8, "stock")])
    for held in (retried, abandoned):
        desk.control.script(Behaviour(execution=NeverFill()), symbol=held.symbol, count=1)
    requests = [desk.close(held) for held in (retried, abandoned)]
    desk.until("both work", lambda: [order_status(desk, held) for held in (retried, abandoned)] == ["new"] * 2)
    with without(desk, "reconciler"):
        for held in (retried, abandoned):
            desk.control.rescript(desk.orders(held)[0]["client_order_id"], CANCELED_AT_ONCE)
        desk.until_status("close_retryable", [retried, abandoned])

        done(desk, "requests", "retry", requests[0])
        done(desk, "requests", "abandon", requests[1])

        assert desk.position(abandoned)["status"] == "open"
        assert desk.request(requests[1])["reason"] == "abandoned"
    again = desk.close(abandoned, key="again")
    desk.until_status("closed", [retried, abandoned])
    assert desk.request(again)["status"] == "completed"
    desk.assert_closed_once([retried, abandoned], attempts=2)
    said = "SELECT reason FROM operator_actions WHERE subject = ANY(%s)"
    assert [one["reason"] for one in desk.rows(said, requests)] == ["asked by the desk"] * 2


def test_a_position_that_shrank_outside_is_closed_for_what_is_left(desk: Desk) -> None:
    held = desk.hold(20)
    desk.control.script(Behaviour(execution=NeverFill()), symbol=held.symbol, count=1)
    request = desk.close(held)
    desk.until("working", lambda: order_status(desk, held) == "new")
    kinds = {row["symbol"]: row["asset_type"] for row in desk.rows("SELECT symbol, asset_type FROM positions")}
    at_broker = {**desk.control.positions(), held.symbol: Decimal(12)}
    desk.control.set_positions(
        [PositionSpec(symbol=one, asset_type=kinds[one], quantity=quantity) for one, quantity in at_broker.items()]
    )

    done(desk, "positions", "adjust", str(held.id), "--delta", "-8", "--if-quantity", "20", "--yes")

    desk.until_status("closed", [held])
    assert [(one["status"], one["quantity"], one["executed_qty"]) for one in desk.orders(held)] == [
        ("canceled", 20, 0),
        ("filled", 12, 12),
    ]
    assert desk.request(request)["filled_qty"] == 12
    assert held.symbol not in desk.control.positions()
    desk.expected_incidents = ["exposure_above_owed", "position_changed_outside"]


def test_an_order_that_was_declared_lost_is_found_again_late(desk: Desk) -> None:
    """The request of a sender that died is under way for longer than anybody waits, and reaches the broker then."""
    held = desk.hold(6)
    desk.control.script(Behaviour(execution=NeverFill()), symbol=held.symbol)
    desk.control.outage(Outage(kind="black_hole", method="POST", path_prefix="/v2/orders", requests=1))
    request = desk.close(held)
    ids = f"cf-{UUID(request).hex}-"
    desk.until("sent", lambda: desk.control.orders(prefix=ids))
    desk.system.kill("order-submitter")
    name = desk.orders(held)[0]["client_order_id"]
    (send,) = desk.rows("SELECT sender FROM order_sends WHERE client_order_id = %s AND answered_at IS NULL", name)
    # Elsewhere, so that nobody but a person can see that it is gone.
    desk.rows("UPDATE senders SET runs_in = 'elsewhere' WHERE instance_id = %s RETURNING 1", send["sender"])
    done(desk, "requests", "cancel", request)  # Before somebody sends it again, which is not done once it is canceled.
    desk.system.start("order-submitter")

    def not_found() -> bool:
        # It is asked for ever more rarely; here as often as somebody looks.
        desk.rows("UPDATE orders SET next_send_at = now() WHERE client_order_id = %s RETURNING 1", name)
        return int(desk.orders(held)[0]["reconcile_not_found_count"]) >= 5

    desk.until("five not-founds", not_found, within_s=60)  # A lease has to be over by two clocks before the first.
    early = act(desk, "orders", "lost", name, "--yes")
    assert (early.exit_code, f"`closectl senders exited {send['sender']}`" in early.stderr) == (1, True)
    desk.until("its sender is silent", lambda: act(desk, "senders", "exited", send["sender"]).exit_code == 0)
    desk.until("the window is over", lambda: act(desk, "orders", "lost", name).exit_code == 0)
    done(desk, "orders", "lost", name, "--yes")
    assert (order_status(desk, held), desk.request(request)["status"]) == ("lost", "failed")
    assert desk.position(held)["status"] == "open"

    (swallowed,) = desk.at_broker(held)
    arrived = desk.at_broker_directly(swallowed.bodies[0])
    assert arrived.status_code == httpx.codes.OK, arrived.text
    desk.until("found and cancelled", lambda: order_status(desk, held) == "canceled")
    (seen,) = desk.at_broker(held)
    assert (seen.client_order_id, seen.accepted, [one.status for one in seen.orders]) == (name, 1, ["canceled"])
    position = desk.position(held)
    assert (position["status"], position["quantity"], position["exposure_unproven"]) == ("open", 6, False)
    assert desk.request(request)["frozen_reason"] == "record_was_wrong"
    open_ones = "SELECT id, kind FROM incidents WHERE client_order_id = %s AND closed_at IS NULL ORDER BY kind"
    # That it lived although its close was over may have been told meanwhile; that is over with it.
    desk.until(
        "one incident is left", lambda: [one["kind"] for one in desk.rows(open_ones, name)] == ["record_was_wrong"]
    )
    done(desk, "incidents", "close", str(desk.rows(open_ones, name)[0]["id"]))
    assert desk.request(request)["frozen_reason"] is None
    desk.expected_incidents = desk.incidents()
    # On a slow machine it takes longer than the minute after which an order without an answer is told.
    may_be_told = {"order_outlives_request", "orders_not_answered"}
    assert {"record_was_wrong"} <= set(desk.expected_incidents) <= {"record_was_wrong"} | may_be_told
