"""An operator ends, repeats and corrects closes by hand while the services run; the books and the broker agree."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal

from broker_simulator.control import Behaviour, NeverFill, PositionSpec, RunSteps, Step
from broker_simulator.settings import DEFAULT_KEY_ID, DEFAULT_SECRET_KEY
from demo.system import ACCOUNT, SIMULATOR
from tests.closectl.running import ROLE, Done, closectl
from tests.system.desk import Desk, Held

CANCELED_AT_ONCE = Behaviour(execution=RunSteps(steps=(Step(do="cancel"),)))


def act(desk: Desk, *arguments: str) -> Done:
    said = ("--reason", "asked by the desk", "--by", "ann")
    return closectl(
        *arguments,
        *said,
        postgres_dsn=desk.system.dsn(ROLE),
        broker_url=desk.system.url(SIMULATOR),
        broker_key_id=DEFAULT_KEY_ID,
        broker_secret_key=DEFAULT_SECRET_KEY,
        broker_account_id=ACCOUNT,
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
        desk.control.script(CANCELED_AT_ONCE, symbol=held.symbol, count=1)
    with without(desk, "reconciler"):
        requests = [desk.close(held) for held in (retried, abandoned)]
        desk.until_status("close_retryable", [retried, abandoned])

        done(desk, "requests", "retry", requests[0])
        done(desk, "requests", "abandon", requests[1])

        desk.until_status("closed", [retried])
        assert desk.position(abandoned)["status"] == "open"
        assert desk.request(requests[1])["reason"] == "abandoned"
        again = desk.close(abandoned, key="again")
        desk.until_status("closed", [abandoned])
    assert desk.request(again)["status"] == "completed"
    desk.assert_closed_once([retried, abandoned], attempts=2)
    assert {one["reason"] for one in desk.rows("SELECT reason FROM operator_actions")} == {"asked by the desk"}


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
