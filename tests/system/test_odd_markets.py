"""Markets that are hardly any: stub quotes, one tick, increments of their own. Nothing is sent that cannot fill."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Final

from broker_simulator.control import Behaviour, Reject
from order_submitter.settings import OrderSubmitterSettings
from tests.system.desk import Desk

TRIES = 4
"""As many as a close has of its own."""
QUOTE_REUSE_S: Final[float] = OrderSubmitterSettings.model_fields["quote_reuse_s"].default


def test_odd_markets(desk: Desk) -> None:
    stub, crossed, off, narrow, nickel = portfolio = desk.hold_all(
        [(-3, "stock"), (3, "stock"), (3, "stock"), (3, "option"), (3, "option")]
    )
    desk.control.pin_quote(stub.symbol, "0.01", "199999.99")
    desk.control.pin_quote(crossed.symbol, "100.05", "99.95")
    desk.control.pin_quote(off.symbol, "97", "103")
    desk.control.pin_quote(narrow.symbol, "0.05", "0.06")
    desk.control.pin_quote(nickel.symbol, "2.43", "2.47", tick="0.05")
    requests = {held: desk.close(held) for held in portfolio}

    def reasons() -> list[str | None]:
        return [desk.request(requests[held])["reason"] for held in (stub, crossed, off)]

    desk.until("it is told why", lambda: reasons() == ["wide_quote", "crossed_quote", "touch_beyond_slippage"])
    told_at = time.monotonic()
    desk.until_status("closed", [narrow, nickel])
    assert [one["limit_price"] for one in desk.orders(narrow)] == [Decimal("0.05")]
    assert [one["limit_price"] for one in desk.orders(nickel)] == [Decimal("2.43"), Decimal("2.40")]
    assert desk.request(requests[nickel])["retry_count"] == 0
    assert [desk.at_broker(held) for held in (stub, crossed, off)] == [[], [], []]
    assert desk.request(requests[off])["status"] == "failed"
    assert desk.position(off)["status"] == "open"

    for held in (stub, crossed, off):
        desk.control.pin_quote(held.symbol, "99.95", "100.05")
    desk.until("the quote from before is not used again", lambda: time.monotonic() - told_at > QUOTE_REUSE_S)
    desk.close(off, "again")
    desk.until_status("closed", portfolio)
    desk.assert_closed_once([stub, crossed, off, narrow])


def test_a_halt_that_outlasts_the_retries_is_waited_for(desk: Desk) -> None:
    (halted,) = desk.hold_all([(3, "stock")])
    refusal = Reject(status=403, code=40310000, message="trading in this symbol is halted")
    desk.control.script(Behaviour(answer=refusal), symbol=halted.symbol, count=TRIES)
    request = desk.close(halted)
    desk.until_status("closed", [halted], within_s=60)
    row = desk.request(request)
    assert (row["status"], row["retry_count"], row["attempt"]) == ("completed", 0, TRIES + 1)
    assert {one["reject_code"] for one in desk.orders(halted)} == {"symbol_halted", None}
    desk.assert_closed_once([halted], attempts=TRIES + 1)
