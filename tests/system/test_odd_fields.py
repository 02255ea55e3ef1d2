"""A broker whose messages are odd where it does not matter, on an account on which somebody else trades."""

from __future__ import annotations

from decimal import Decimal
from functools import partial
from typing import Final

from broker_simulator.control import MULTI_LEG, Behaviour, FillAtOnce, FillInParts, Shown
from tests.system.desk import Desk

NO_TIME: Final = "0001-01-01T00:00:00Z"
LONG: Final = Shown(
    order={"filled_avg_price": "100." + "123456789" * 5},
    update={"timestamp": NO_TIME, "position_qty": "n/a"},
    activity={"transaction_time": NO_TIME},
)


def test_odd_fields_and_foreign_orders_keep_no_close_from_its_end(desk: Desk) -> None:
    odd, free = desk.hold_all([(20, "stock"), (3, "option")])
    desk.control.script(Behaviour(execution=FillInParts(parts=4, every_s=0.1), shown=LONG), symbol=odd.symbol)
    desk.control.script(Behaviour(execution=FillAtOnce(price=Decimal(0))), symbol=free.symbol)
    theirs = Behaviour(execution=FillAtOnce(), shown=MULTI_LEG)
    desk.control.script(theirs, client_order_id_prefix="their-spread")
    spread = {"symbol": "SPY", "qty": "2", "type": "market", "time_in_force": "day"}
    for side, is_held in (("buy", True), ("sell", False)):
        body = spread | {"side": side, "client_order_id": f"their-spread-{side}"}
        desk.at_broker_directly(body).raise_for_status()
        desk.until(f"their {side}", partial(_holds_theirs, desk, is_held))

    for held in (odd, free):
        desk.close(held)
    desk.until_status("closed", (odd, free))
    desk.assert_closed_once((odd, free))
    assert [one["price"] for one in desk.executions(free)] == [Decimal(0)]
    (paid,) = desk.events("execution-events", free)
    assert (paid["price"], paid["cash_amount"]) == ("0", "0")


def _holds_theirs(desk: Desk, expected: bool) -> bool:
    return ("SPY" in desk.control.positions()) is expected
