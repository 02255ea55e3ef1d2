"""The simulator satisfies the real alpaca-py client, unchanged: REST, market data and the trade stream."""

import threading
from collections.abc import Iterator
from queue import Queue
from typing import Any
from uuid import uuid4

import pytest
from alpaca.common.exceptions import APIError
from alpaca.data.historical.crypto import CryptoHistoricalDataClient
from alpaca.data.historical.option import OptionHistoricalDataClient
from alpaca.data.historical.stock import StockHistoricalDataClient
from alpaca.data.requests import CryptoLatestQuoteRequest, OptionLatestQuoteRequest, StockLatestQuoteRequest
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import OrderSide, OrderStatus, PositionSide, QueryOrderStatus, TimeInForce
from alpaca.trading.models import TradeActivity
from alpaca.trading.requests import GetOrdersRequest, LimitOrderRequest, MarketOrderRequest
from alpaca.trading.stream import TradingStream

from broker_simulator.control import Behaviour, Control, FillInParts, NeverFill
from broker_simulator.probe import await_condition
from broker_simulator.process import SimulatorProcess

OPTION = "AAPL261218C00200000"


@pytest.fixture
def trading(simulator: SimulatorProcess) -> Any:
    return TradingClient(simulator.key_id, simulator.secret_key, url_override=simulator.url)


@pytest.fixture
def updates(simulator: SimulatorProcess, control: Control) -> Iterator["Queue[Any]"]:
    """Trade updates as alpaca-py's own stream delivers them, from a thread of its own."""
    received: Queue[Any] = Queue()
    stream = TradingStream(simulator.key_id, simulator.secret_key, url_override=simulator.stream_url)

    async def keep(update: Any) -> None:
        received.put(update)

    stream.subscribe_trade_updates(keep)
    thread = threading.Thread(target=stream.run)
    thread.start()
    await_condition(lambda: control.listeners() == 1, lambda: "alpaca-py's stream does not listen")
    yield received
    stream.stop()
    # Its recv would wait for up to five seconds more.
    control.drop_stream()
    thread.join(timeout=10)
    assert not thread.is_alive()


def market_order(client_order_id: str, symbol: str = "AAPL", qty: float = 10) -> MarketOrderRequest:
    return MarketOrderRequest(
        symbol=symbol,
        qty=qty,
        side=OrderSide.SELL,
        time_in_force=TimeInForce.GTC if "/" in symbol else TimeInForce.DAY,
        client_order_id=client_order_id,
    )


def test_an_order_is_placed_filled_and_reported(trading: Any, updates: "Queue[Any]") -> None:
    placed = trading.submit_order(market_order("cf-1"))
    assert (placed.client_order_id, placed.status) == ("cf-1", OrderStatus.PENDING_NEW)
    new, fill = updates.get(timeout=5), updates.get(timeout=5)
    assert (new.event, fill.event) == ("new", "fill")
    assert new.order.id == fill.order.id == placed.id
    assert placed.updated_at < new.order.updated_at < fill.order.updated_at
    assert (fill.qty, fill.position_qty) == (10, 110)
    found = trading.get_order_by_client_id("cf-1")
    assert found.status == OrderStatus.FILLED
    assert found.updated_at == fill.order.updated_at
    assert found == trading.get_order_by_id(placed.id)


def test_parts_arrive_with_their_cumulative_quantities(trading: Any, updates: "Queue[Any]", control: Control) -> None:
    control.script(Behaviour(execution=FillInParts(parts=3)))
    trading.submit_order(market_order("cf-1"))
    events = [updates.get(timeout=5) for _ in range(4)]
    assert [event.event for event in events] == ["new", "partial_fill", "partial_fill", "fill"]
    assert [str(event.order.filled_qty) for event in events] == ["0", "4", "7", "10"]
    assert len({event.execution_id for event in events}) == 4


def test_a_limit_order_rests_is_listed_and_cancelled(trading: Any, updates: "Queue[Any]") -> None:
    request = LimitOrderRequest(
        symbol=OPTION,
        qty=3,
        side=OrderSide.SELL,
        time_in_force=TimeInForce.DAY,
        limit_price=9999,
        client_order_id="cf-1",
    )
    placed = trading.submit_order(request)
    assert updates.get(timeout=5).event == "new"
    open_orders = trading.get_orders(GetOrdersRequest(status=QueryOrderStatus.OPEN, nested=True))
    assert [order.client_order_id for order in open_orders] == ["cf-1"]
    trading.cancel_order_by_id(placed.id)
    assert [updates.get(timeout=5).event for _ in range(2)] == ["pending_cancel", "canceled"]
    assert trading.get_orders(GetOrdersRequest(status=QueryOrderStatus.OPEN)) == []
    closed = trading.get_orders(
        GetOrdersRequest(status=QueryOrderStatus.CLOSED, after=placed.submitted_at.replace(microsecond=0))
    )
    assert [order.status for order in closed] == [OrderStatus.CANCELED]


def test_cancel_orders_takes_all_that_are_open(trading: Any, control: Control) -> None:
    control.script(Behaviour(execution=NeverFill()))
    for name in ("cf-1", "cf-2"):
        trading.submit_order(market_order(name))
    assert [answer.status for answer in trading.cancel_orders()] == [200, 200]


def test_errors_arrive_with_code_and_message(trading: Any) -> None:
    trading.submit_order(market_order("cf-1"))
    with pytest.raises(APIError, match="client_order_id must be unique") as duplicate:
        trading.submit_order(market_order("cf-1"))
    assert (duplicate.value.code, duplicate.value.status_code) == (40010001, 422)
    with pytest.raises(APIError, match="insufficient qty available") as oversold:
        trading.submit_order(market_order("cf-2", qty=1000))
    assert (oversold.value.code, oversold.value.status_code) == (40310000, 403)
    with pytest.raises(APIError, match="order not found") as absent:
        trading.get_order_by_id(uuid4())
    assert (absent.value.code, absent.value.status_code) == (40410000, 404)


def test_positions_come_from_the_csv_and_follow_the_fills(trading: Any, updates: "Queue[Any]") -> None:
    held = {position.symbol: position for position in trading.get_all_positions()}
    assert held["AAPL"].qty == "120"
    assert (held["TSLA"].qty, held["TSLA"].side) == ("-50", PositionSide.SHORT)
    trading.submit_order(market_order("cf-1", "BTC/USD", 0.75))
    updates.get(timeout=5)
    updates.get(timeout=5)
    with pytest.raises(APIError, match="position does not exist"):
        trading.get_open_position("BTC/USD")
    assert trading.get_open_position("NVDA").qty_available == "2.5"


def test_account_clock_and_assets(trading: Any) -> None:
    assert trading.get_account().account_number == "SIMULATOR"
    clock = trading.get_clock()
    assert clock.is_open
    assert clock.timestamp < clock.next_close < clock.next_open
    assert trading.get_asset("AAPL").fractionable


def test_fill_activities_parse_as_its_trade_activity(trading: Any, updates: "Queue[Any]") -> None:
    placed = trading.submit_order(market_order("cf-1"))
    updates.get(timeout=5)
    fill = updates.get(timeout=5)
    (raw,) = trading.get("/account/activities/FILL", {"direction": "asc"})
    activity = TradeActivity(**raw)
    assert (activity.order_id, activity.cum_qty, activity.leaves_qty) == (placed.id, 10, 0)
    assert activity.id.endswith(f"::{fill.execution_id}")


def test_a_bust_parses_as_its_trade_update(trading: Any, updates: "Queue[Any]", control: Control) -> None:
    placed = trading.submit_order(market_order("cf-1"))
    updates.get(timeout=5)
    fill = updates.get(timeout=5)
    control.bust(str(fill.execution_id))
    bust = updates.get(timeout=5)
    assert (bust.event, bust.qty, bust.order.status) == ("trade_bust", 10, OrderStatus.CANCELED)
    assert bust.execution_id != fill.execution_id
    assert trading.get_order_by_id(placed.id).filled_qty == "0"


def test_latest_quotes_for_every_asset_class(simulator: SimulatorProcess) -> None:
    key = (simulator.key_id, simulator.secret_key)
    stocks = StockHistoricalDataClient(*key, url_override=simulator.url).get_stock_latest_quote(
        StockLatestQuoteRequest(symbol_or_symbols=["AAPL", "TSLA"])
    )
    options = OptionHistoricalDataClient(*key, url_override=simulator.url).get_option_latest_quote(
        OptionLatestQuoteRequest(symbol_or_symbols=OPTION)
    )
    crypto = CryptoHistoricalDataClient(*key, url_override=simulator.url).get_crypto_latest_quote(
        CryptoLatestQuoteRequest(symbol_or_symbols="BTC/USD")
    )
    quotes = {**stocks, **options, **crypto}
    assert set(quotes) == {"AAPL", "TSLA", OPTION, "BTC/USD"}
    assert all(0 < quote.bid_price < quote.ask_price for quote in quotes.values())
