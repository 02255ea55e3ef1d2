"""What somebody else does on the account may be unreadable: it is passed over, and keeps nobody from what is ours."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import pytest

from closeflow.broker.alpaca import parse
from closeflow.broker.alpaca.stream import read_frame
from closeflow.broker.trade_updates import Message, Unreadable

from .serving import ORDER, answer, broker_at, serving
from .test_questions import activity

PARENT: Final = {**ORDER, "id": "mleg", "client_order_id": "their-spread", "symbol": None, "side": None}
OF_PARENT: Final = {**activity(1, "mleg"), "symbol": None, "side": None, "transaction_time": "2026-03-02T16:00:00Z"}
AFTER: Final = datetime(2026, 3, 2, tzinfo=UTC)


async def test_a_fill_of_a_foreign_multi_leg_order_is_passed_over_and_its_order_asked_about_once() -> None:
    page = answer(200, [OF_PARENT, activity(2)])
    names = answer(200, PARENT), answer(200, ORDER)
    async with serving(page, *names, page) as server, broker_at(server.url) as broker:
        pages = [await broker.executions(after=AFTER) for _ in range(2)]
    assert [[one.cum_quantity for one in page.updates] for page in pages] == [[Decimal(2)]] * 2
    assert [page.left_out for page in pages] == [(), ()]
    assert pages[0].through == datetime(2026, 3, 2, 16, 0, tzinfo=UTC), "the cursor may go beyond it"
    assert len(server.requests) == 4


@pytest.mark.parametrize(
    "changes", [{"qty": "abc"}, {"side": None}, {"type": "novation"}, {"price": "NaN"}, {"id": None}]
)
async def test_a_fill_that_cannot_be_read_is_passed_over_when_its_order_is_foreign(changes: dict[str, Any]) -> None:
    foreign = answer(200, {**ORDER, "client_order_id": "theirs"})
    async with serving(answer(200, [{**activity(1), **changes}]), foreign) as server, broker_at(server.url) as broker:
        page = await broker.executions(after=AFTER)
    assert (page.updates, page.left_out, page.is_whole) == ((), (), True)


@pytest.mark.parametrize(
    ("listed", "order", "told"),
    [
        pytest.param(activity(1), answer(500), {"AAPL": False, "MSFT": True}, id="no answer about its order"),
        pytest.param(activity(1), answer(200, {**PARENT, "client_order_id": None}), {"AAPL": False}, id="nameless"),
        pytest.param({**activity(1), "qty": "x"}, answer(200, ORDER), {"AAPL": False, "MSFT": True}, id="ours"),
        pytest.param({**activity(1), "symbol": "BTCUSD"}, answer(500), {"BTC/USD": False, "AAPL": True}, id="a pair"),
        pytest.param({**activity(1), "symbol": None}, answer(500), {"AAPL": False, "MSFT": False}, id="no symbol"),
    ],
)
async def test_what_is_left_out_speaks_only_against_its_own_symbol(
    listed: dict[str, Any], order: Any, told: dict[str, bool]
) -> None:
    async with serving(answer(200, [listed]), order) as server, broker_at(server.url) as broker:
        page = await broker.executions(after=AFTER)
    assert not page.is_whole
    assert {symbol: page.tell_of(symbol) for symbol in told} == told


async def test_an_item_that_is_no_order_does_not_hide_the_open_orders() -> None:
    async with serving(answer(200, ["?", PARENT, ORDER, None])) as server, broker_at(server.url) as broker:
        assert [one.broker_order_id for one in (await broker.open_orders()).updates] == ["order-1"]


def test_a_foreign_update_that_cannot_be_read_asks_for_no_backfill_and_one_of_ours_does() -> None:
    def heard(order: dict[str, object]) -> list[Message]:
        data = {"event": "fill", "execution_id": "e", "qty": "1", "price": "1", "order": order}
        frame = json.dumps({"stream": "trade_updates", "data": data}).encode()
        return read_frame(frame, of=parse.Account(broker="alpaca", account_id="acc-1"), received_at=AFTER)

    assert heard(PARENT) == []
    for ours in ({**ORDER, "side": None}, {**PARENT, "client_order_id": ""}):
        assert [type(one) for one in heard(ours)] == [Unreadable]
