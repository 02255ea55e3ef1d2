"""What the adapter asks the broker, and what it makes of the answers."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import pytest

from closeflow.broker import BrokerUnavailable, FailureCause, Positions
from closeflow.broker.asking import look_up_all
from closeflow.broker.budget import CallBudget
from closeflow.domain.market_data import Instrument, LastTrade
from closeflow.domain.model import AssetType, UpdateSource
from closeflow.domain.sending.broker_answers import Acknowledged, NotFound, Unanswered

from .serving import ORDER, TICKET, Step, answer, broker_at, serving


async def test_a_look_up_asks_by_our_id() -> None:
    async with serving(answer(200, ORDER)) as server, broker_at(server.url) as broker:
        assert isinstance(await broker.look_up(TICKET.client_order_id), Acknowledged)
    assert server.target() == f"/v2/orders:by_client_order_id?client_order_id={TICKET.client_order_id}"


async def test_an_open_order_of_somebody_else_that_cannot_be_read_is_passed_over() -> None:
    foreign = {**ORDER, "id": "order-2", "client_order_id": "theirs", "side": None}
    nameless = {**ORDER, "id": "order-3", "client_order_id": None}
    async with serving(answer(200, [foreign, ORDER, nameless])) as server, broker_at(server.url) as broker:
        found = await broker.open_orders()
    assert ([one.broker_order_id for one in found.updates], found.unreadable) == (["order-1"], ())


@pytest.mark.parametrize("changes", [{"side": None}, {"qty": "many"}, {"symbol": 7}])
async def test_an_open_order_of_ours_that_cannot_be_read_is_named_and_hides_no_other(changes: dict[str, Any]) -> None:
    odd = f"cf-{'0' * 31}7-1"
    listed = [{**ORDER, "id": "odd", "client_order_id": odd, **changes}, ORDER]
    async with serving(answer(200, listed)) as server, broker_at(server.url) as broker:
        found = await broker.open_orders()
    assert [one.broker_order_id for one in found.updates] == ["order-1"]
    assert found.unreadable == (odd,)


def activity(n: int, order_id: str = "order-1") -> dict[str, object]:
    return {
        "id": f"20260302150000{n:03}::x",
        "activity_type": "FILL",
        "type": "partial_fill",
        "transaction_time": "2026-03-02T15:00:00Z",
        "price": "190",
        "qty": "1",
        "cum_qty": str(n),
        "leaves_qty": "0",
        "side": "sell",
        "symbol": "AAPL",
        "order_id": order_id,
    }


async def test_executions_come_in_pages_with_each_order_named_once() -> None:
    pages = [activity(n) for n in range(1, 101)], [activity(101)]
    steps = answer(200, pages[0]), answer(200, ORDER), answer(200, pages[1])
    async with serving(*steps) as server, broker_at(server.url) as broker:
        after = datetime(2026, 3, 2, 14, 0, tzinfo=UTC)
        first = await broker.executions(after=after)
        assert first.next_page == pages[0][-1]["id"]
        second = await broker.executions(after=after, page=first.next_page)
    assert second.next_page is None
    updates = first.updates + second.updates
    assert [update.cum_quantity for update in updates] == [Decimal(n) for n in range(1, 102)]
    assert {(update.client_order_id, update.source) for update in updates} == {
        (TICKET.client_order_id, UpdateSource.BACKFILL)
    }
    assert server.target(1) == "/v2/orders/order-1"


async def test_an_execution_whose_order_cannot_be_named_is_not_passed_on() -> None:
    async with serving(answer(200, [activity(1)]), answer(500)) as server, broker_at(server.url) as broker:
        page = await broker.executions(after=datetime(2026, 3, 2, tzinfo=UTC))
    assert (page.updates, page.unnamed, page.is_whole) == ((), (str(activity(1)["id"]),), False)


async def test_a_broker_that_takes_no_questions_is_not_asked_for_the_names_of_a_page() -> None:
    limited = answer(429, {"message": "too many requests"}, "Retry-After: 7")
    async with serving(answer(200, [activity(1)]), limited) as server, broker_at(server.url) as broker:
        with pytest.raises(BrokerUnavailable, match="order-1") as refused:
            await broker.executions(after=datetime(2026, 3, 2, tzinfo=UTC))
    assert refused.value.retry_after_s == 7


NO_ORDER: Final = {"code": 40410000, "message": "order not found"}


@pytest.mark.parametrize(
    ("strange", "answers"),
    [
        pytest.param({**activity(1), "price": "abc"}, [answer(200, ORDER)], id="one that cannot be read"),
        pytest.param({**activity(1), "order_id": None}, [answer(200, ORDER)], id="one without an order"),
        pytest.param("?", [answer(200, ORDER)], id="one that is no object"),
        pytest.param(activity(1, "mute"), [answer(500), answer(200, ORDER)], id="one whose order has no answer"),
        pytest.param(
            activity(1, "gone"), [answer(404, NO_ORDER), answer(200, ORDER)], id="one whose order the broker denies"
        ),
    ],
)
async def test_a_strange_execution_does_not_hold_up_the_others(strange: object, answers: list[Any]) -> None:
    async with serving(answer(200, [strange, activity(2)]), *answers) as server, broker_at(server.url) as broker:
        page = await broker.executions(after=datetime(2026, 3, 2, tzinfo=UTC))
    assert [update.cum_quantity for update in page.updates] == [Decimal(2)]
    assert not page.is_whole, "what was left out may be the one that somebody looks for"


async def test_a_page_whose_last_execution_has_no_id_is_read_on_from_the_one_before() -> None:
    listed = [*(activity(n) for n in range(1, 100)), {**activity(100), "id": None}]
    async with serving(answer(200, listed), answer(200, ORDER)) as server, broker_at(server.url) as broker:
        page = await broker.executions(after=datetime(2026, 3, 2, tzinfo=UTC))
    assert page.next_page == listed[-2]["id"]


async def test_a_position_the_broker_does_not_hold_is_zero_but_a_wrong_path_is_not() -> None:
    none = {"code": 40410000, "message": "position does not exist"}
    wrong = {"code": 40410000, "message": "endpoint not found"}
    async with serving(answer(404, none), answer(404, wrong)) as server, broker_at(server.url) as broker:
        assert await broker.position("BTC/USD") == 0
        assert server.target() == "/v2/positions/BTCUSD"
        with pytest.raises(BrokerUnavailable):
            await broker.position("BTC/USD")


async def test_a_quote_is_as_old_as_the_market_data_says_whatever_our_clock_shows() -> None:
    quote = {"t": "2026-03-02T15:00:00Z", "bp": 189.1, "ap": 189.3}
    body = {"quotes": {"AAPL": quote, "MSFT": {**quote, "bp": 0}, "TSLA": {**quote, "bp": "many"}, "F": None}}
    dated = answer(200, body, "Date: Mon, 02 Mar 2026 15:00:03 GMT")
    async with serving(dated) as server, broker_at(server.url) as broker:
        quotes = await broker.quotes(AssetType.STOCK, ["AAPL", "MSFT", "TSLA", "F"])
        assert server.target() == "/v2/stocks/quotes/latest?symbols=AAPL%2CMSFT%2CTSLA%2CF"
    assert set(quotes) == {"AAPL", "MSFT"}, "one that cannot be read costs the others nothing"
    assert (quotes["AAPL"].bid, quotes["AAPL"].ask) == (Decimal("189.1"), Decimal("189.3"))
    assert (quotes["AAPL"].age_s, quotes["MSFT"].bid) == (3.0, None)


async def test_last_trades_are_read() -> None:
    body = {"trades": {"BTC/USD": {"t": "2026-03-02T15:00:00Z", "p": 64000.5}, "ETH/USD": {"p": 0}}}
    async with serving(answer(200, body)) as server, broker_at(server.url) as broker:
        trades = await broker.last_trades(AssetType.CRYPTO, ["BTC/USD", "ETH/USD"])
        assert server.target().startswith("/v1beta3/crypto/us/latest/trades?")
    assert trades == {"BTC/USD": LastTrade(Decimal("64000.5"), datetime(2026, 3, 2, 15, tzinfo=UTC))}


FAILURES = {
    "a refused question": (answer(400, {"message": "invalid symbol: X"}), FailureCause.QUESTION),
    "one that cannot be processed": (answer(422, {"message": "symbols"}), FailureCause.QUESTION),
    "a wrong key": (answer(401), FailureCause.CALLER),
    "a rate limit": (answer(429), FailureCause.CALLER),
    "a broken server": (answer(500), FailureCause.UNKNOWN),
    "not JSON": (answer(200, b"<html>"), FailureCause.UNKNOWN),
}


@pytest.mark.parametrize(("step", "about"), FAILURES.values(), ids=FAILURES)
async def test_a_failed_read_says_what_it_is_about(step: Step, about: FailureCause) -> None:
    async with serving(step) as server, broker_at(server.url) as broker:
        with pytest.raises(BrokerUnavailable) as failed:
            await broker.quotes(AssetType.STOCK, ["AAPL", "X"])
    assert failed.value.about is about


INSTRUMENTS = {
    "a stock": (AssetType.STOCK, "AAPL", answer(200, {"status": "active"}), "/v2/assets/AAPL", Instrument.ACTIVE),
    "a pair": (AssetType.CRYPTO, "X/USD", answer(200, {"status": "active"}), "/v2/assets/X%2FUSD", Instrument.ACTIVE),
    "an option": (
        AssetType.OPTION,
        "X260619C00001000",
        answer(200, {"status": "inactive"}),
        "/v2/options/contracts/X260619C00001000",
        Instrument.INACTIVE,
    ),
    "one that is not there": (
        AssetType.STOCK,
        "X",
        answer(404, {"code": 40410000, "message": "asset not found for X"}),
        "/v2/assets/X",
        Instrument.UNKNOWN,
    ),
}


@pytest.mark.parametrize(("asset_type", "symbol", "step", "path", "found"), INSTRUMENTS.values(), ids=INSTRUMENTS)
async def test_the_broker_says_whether_it_knows_a_symbol(
    asset_type: AssetType, symbol: str, step: Step, path: str, found: Instrument
) -> None:
    async with serving(step) as server, broker_at(server.url) as broker:
        assert await broker.instrument(asset_type, symbol) is found
        assert server.target() == path


@pytest.mark.parametrize(
    "step",
    [
        answer(404, {"code": 40410000, "message": "endpoint not found: /v2/assets/X"}),
        answer(404, {"detail": "Not Found"}),
        answer(404, b"<html>"),
        answer(500),
    ],
)
async def test_a_wrong_path_does_not_say_that_a_symbol_is_unknown(step: Step) -> None:
    async with serving(step) as server, broker_at(server.url) as broker:
        with pytest.raises(BrokerUnavailable):
            await broker.instrument(AssetType.STOCK, "X")


async def test_a_position_that_cannot_be_read_costs_the_others_nothing() -> None:
    listed = [{"symbol": "AAPL", "qty": "5"}, {"symbol": "ODD", "qty": "many"}, {"qty": "1"}, None]
    async with serving(answer(200, listed)) as server, broker_at(server.url) as broker:
        found = await broker.positions()
    assert (found.held, found.unreadable) == ({"AAPL": Decimal(5)}, frozenset({"ODD", ""}))
    assert found.tell_of("AAPL")
    assert not found.tell_of("ODD")
    assert not found.tell_of("MSFT"), "one without a symbol may be of any that is not listed"
    assert not Positions({}, frozenset({"ODD"})).tell_of("ODD")
    assert Positions({}, frozenset({"ODD"})).tell_of("MSFT")


async def test_the_market_clock_is_read() -> None:
    body = {
        "timestamp": "2026-03-02T10:00:00.5-05:00",
        "is_open": True,
        "next_open": "2026-03-03T09:30:00-05:00",
        "next_close": "2026-03-02T16:00:00-05:00",
    }
    async with serving(answer(200, body)) as server, broker_at(server.url) as broker:
        clock = await broker.clock()
    assert clock.is_open
    assert clock.next_open == datetime(2026, 3, 3, 14, 30, tzinfo=UTC)


def listed(*numbers: int) -> Step:
    return answer(200, [{**ORDER, "id": f"order-{n}", "client_order_id": f"ours-{n}"} for n in numbers])


async def test_many_orders_are_asked_about_with_one_list_and_what_is_not_in_it_alone() -> None:
    missing = answer(404, NO_ORDER)
    async with serving(listed(1, 2, 3, 9), missing) as server, broker_at(server.url) as broker:
        answers = await look_up_all(broker, [f"ours-{n}" for n in (1, 2, 3, 4)])
    assert {one: type(said) for one, said in answers.items()} == {
        **{f"ours-{n}": Acknowledged for n in (1, 2, 3)},
        "ours-4": NotFound,
    }
    assert server.target(0) == "/v2/orders?status=all&limit=500&direction=desc&nested=false"
    assert len(server.requests) == 2


async def test_a_list_that_cannot_be_had_or_read_costs_one_call() -> None:
    ordinary = answer(200, {**ORDER, "client_order_id": "ours-1"})
    for list_ in answer(500), answer(200, [{**ORDER, "side": None}, "?"]):
        async with serving(list_, ordinary, answer(500)) as server, broker_at(server.url) as broker:
            answers = await look_up_all(broker, ["ours-1", "ours-2", "ours-3"])
        assert [type(said) for said in answers.values()] == [Acknowledged, Unanswered], "and stopped at the trouble"
        assert len(server.requests) == 3


async def test_few_orders_are_asked_about_alone() -> None:
    async with serving(answer(404, NO_ORDER)) as server, broker_at(server.url) as broker:
        assert await look_up_all(broker, ["ours-1", "ours-2"]) == {"ours-1": NotFound(), "ours-2": NotFound()}
    assert len(server.requests) == 2


async def test_the_orders_of_a_page_of_executions_are_named_by_one_list() -> None:
    page = answer(200, [activity(n, f"order-{n}") for n in range(1, 6)])
    async with serving(page, listed(1, 2, 3, 4, 5)) as server, broker_at(server.url) as broker:
        found = await broker.executions(after=datetime(2026, 3, 2, tzinfo=UTC))
    assert [one.client_order_id for one in found.updates] == [f"ours-{n}" for n in range(1, 6)]
    assert len(server.requests) == 2


async def test_a_clock_is_kept_for_a_minute_while_calls_are_short() -> None:
    body = {"timestamp": "2026-03-02T15:00:00Z", "is_open": True, "next_open": "2026-03-03T14:30:00Z"}
    body["next_close"] = "2026-03-02T21:00:00Z"
    budget = CallBudget(100)
    async with serving(answer(200, body)) as server, broker_at(server.url, budget=budget) as broker:
        first = await broker.clock()
        assert (await broker.clock(), len(server.requests)) == (first, 2)
        budget.refused(None)
        assert (await broker.clock(), len(server.requests)) == (first, 2)
