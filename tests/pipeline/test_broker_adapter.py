"""Our Alpaca adapter against the simulated broker; each was built from Alpaca's shape, not from the other."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from broker_simulator.control import (
    Behaviour,
    Control,
    FillAtOnce,
    FillThen,
    NeverFill,
    Pin,
    PositionSpec,
    RefuseRepeat,
    Reject,
)
from broker_simulator.process import SimulatorProcess
from closeflow.broker import BrokerUnavailable, FailureCause, Positions
from closeflow.broker.alpaca import AlpacaBroker
from closeflow.domain.ids import client_order_id
from closeflow.domain.market_data import Instrument
from closeflow.domain.model import AssetType, BrokerStatus, OrderType, RejectClass, Side, TimeInForce
from closeflow.domain.sending.broker_answers import (
    Acknowledged,
    CancelAccepted,
    CancelRefused,
    DuplicateId,
    NotFound,
    Refused,
)
from closeflow.domain.sending.ticket import Ticket

OPTION = "AAPL270115C00190000"


@pytest.fixture(scope="module")
async def simulator(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[AlpacaBroker, Control]]:
    directory: Path = tmp_path_factory.mktemp("simulator")
    with SimulatorProcess(directory) as process, process.control() as control:
        broker = AlpacaBroker(
            base_url=process.url,
            market_data_url=process.url,
            key_id=process.key_id,
            secret_key=process.secret_key,
            account_id="acc-1",
        )
        yield broker, control
        await broker.aclose()


@pytest.fixture
def broker(simulator: tuple[AlpacaBroker, Control]) -> AlpacaBroker:
    return simulator[0]


@pytest.fixture
def control(simulator: tuple[AlpacaBroker, Control]) -> Control:
    control = simulator[1]
    control.reset()
    control.clear_script()
    control.set_positions(
        [
            PositionSpec(symbol="AAPL", asset_type="stock", quantity=Decimal(500)),
            PositionSpec(symbol=OPTION, asset_type="option", quantity=Decimal(-3)),
            PositionSpec(symbol="BTC/USD", asset_type="crypto", quantity=Decimal("0.25")),
        ]
    )
    return control


def ticket(symbol: str = "AAPL", quantity: str = "5", side: Side = Side.SELL) -> Ticket:
    crypto = "/" in symbol
    return Ticket(
        client_order_id=client_order_id(uuid.uuid4(), 1),
        account_id="acc-1",
        symbol=symbol,
        side=side,
        quantity=Decimal(quantity),
        order_type=OrderType.LIMIT,
        time_in_force=TimeInForce.GTC if crypto else TimeInForce.DAY,
        limit_price=Decimal(100),
    )


async def stated(broker: AlpacaBroker, of: Ticket, status: BrokerStatus) -> Acknowledged:
    deadline = time.monotonic() + 10
    while True:
        answer = await broker.look_up(of.client_order_id)
        if isinstance(answer, Acknowledged) and answer.update.order_status is status:
            return answer
        assert time.monotonic() < deadline, f"not {status}: {answer}"
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("symbol", "quantity", "side"), [("AAPL", "5", Side.SELL), (OPTION, "3", Side.BUY), ("BTC/USD", "0.25", Side.SELL)]
)
async def test_an_order_of_each_asset_type_is_placed_filled_and_listed(
    broker: AlpacaBroker, control: Control, symbol: str, quantity: str, side: Side
) -> None:
    control.script(Behaviour(execution=FillAtOnce()))
    started = datetime.now(UTC) - timedelta(minutes=5)
    order = ticket(symbol, quantity, side)
    answer = await broker.submit(order)
    assert isinstance(answer, Acknowledged)
    filled = await stated(broker, order, BrokerStatus.FILLED)
    assert filled.update.cum_quantity == Decimal(quantity)
    assert filled.update.broker_seq is not None
    page = await broker.executions(after=started)
    assert [(fill.client_order_id, fill.symbol, fill.last_quantity, fill.cum_quantity) for fill in page.updates] == [
        (order.client_order_id, symbol, Decimal(quantity), Decimal(quantity))
    ]
    assert await broker.submit(order) == DuplicateId()


async def test_a_refusal_is_read_and_leaves_nothing_behind(broker: AlpacaBroker, control: Control) -> None:
    control.script(Behaviour(answer=Reject(status=403, code=40310000, message="market is closed")))
    order = ticket()
    answer = await broker.submit(order)
    assert answer == Refused("market_closed", RejectClass.RETRYABLE, "40310000: market is closed")
    assert await broker.look_up(order.client_order_id) == NotFound()


async def test_a_repeat_may_be_refused_with_other_words(broker: AlpacaBroker, control: Control) -> None:
    control.script(Behaviour(execution=NeverFill(), repeat=RefuseRepeat()))
    order = ticket()
    assert isinstance(await broker.submit(order), Acknowledged)
    assert isinstance(await broker.submit(order), Refused)
    seen = control.order(order.client_order_id)
    assert seen is not None
    assert seen.accepted == 1


async def test_an_open_order_is_listed_until_it_is_cancelled(broker: AlpacaBroker, control: Control) -> None:
    control.script(Behaviour(execution=FillThen(quantity=Decimal(2), then="rest")))
    order = ticket()
    await broker.submit(order)
    partly = await stated(broker, order, BrokerStatus.PARTIALLY_FILLED)
    assert partly.update.leaves_quantity == Decimal(3)
    assert [update.client_order_id for update in (await broker.open_orders()).updates] == [order.client_order_id]
    broker_order_id = partly.update.broker_order_id
    assert broker_order_id is not None
    assert await broker.cancel(order, broker_order_id=broker_order_id) == CancelAccepted()
    ended = await stated(broker, order, BrokerStatus.CANCELED)
    assert ended.update.cum_quantity == Decimal(2)
    assert ended.update.broker_seq is not None
    assert partly.update.broker_seq is not None
    assert ended.update.broker_seq > partly.update.broker_seq
    assert isinstance(await broker.cancel(order, broker_order_id=broker_order_id), CancelRefused)
    assert await broker.cancel(order, broker_order_id=str(uuid.uuid4())) == NotFound()
    assert (await broker.open_orders()).updates == ()


async def test_executions_are_paged_without_loss_or_repetition(broker: AlpacaBroker, control: Control) -> None:
    control.script(Behaviour(execution=FillAtOnce()))
    started = datetime.now(UTC) - timedelta(minutes=5)
    tickets = [ticket(quantity="1") for _ in range(130)]
    await asyncio.gather(*map(broker.submit, tickets))
    first = await broker.executions(after=started)
    assert first.next_page is not None
    second = await broker.executions(after=started, page=first.next_page)
    assert second.next_page is None
    listed = [update.client_order_id for update in (*first.updates, *second.updates)]
    assert len(listed) == 130
    assert set(listed) == {order.client_order_id for order in tickets}


async def test_positions_quotes_and_the_clock_are_read(broker: AlpacaBroker, control: Control) -> None:
    held = {"AAPL": Decimal(500), OPTION: Decimal(-3), "BTC/USD": Decimal("0.25")}
    assert await broker.positions() == Positions(held)
    assert await broker.position("BTC/USD") == Decimal("0.25")
    assert await broker.position("MSFT") == 0
    control.pin("AAPL", Pin(bid=Decimal("189.1"), ask=Decimal("189.3"), last=Decimal("189.2"), age_s=60))
    quotes = await broker.quotes(AssetType.STOCK, ["AAPL", "TSLA"])
    assert set(quotes) == {"AAPL", "TSLA"}
    assert (quotes["AAPL"].bid, quotes["AAPL"].ask) == (Decimal("189.1"), Decimal("189.3"))
    assert 58 < quotes["AAPL"].age_s < 90
    assert quotes["TSLA"].age_s < 5
    assert set(await broker.quotes(AssetType.OPTION, [OPTION])) == {OPTION}
    assert set(await broker.quotes(AssetType.CRYPTO, ["BTC/USD"])) == {"BTC/USD"}
    trades = await broker.last_trades(AssetType.STOCK, ["AAPL", "TSLA"])
    assert trades["AAPL"].price == Decimal("189.2")
    control.withhold_quote("AAPL")
    assert set(await broker.quotes(AssetType.STOCK, ["AAPL", "TSLA"])) == {"TSLA"}
    control.pin("AAPL", Pin(spoils="refuse", listed="unknown"))
    with pytest.raises(BrokerUnavailable) as failed:
        await broker.quotes(AssetType.STOCK, ["AAPL", "TSLA"])
    assert failed.value.about is FailureCause.QUESTION
    assert await broker.instrument(AssetType.STOCK, "AAPL") is Instrument.UNKNOWN
    assert await broker.instrument(AssetType.OPTION, OPTION) is Instrument.ACTIVE
    assert await broker.instrument(AssetType.CRYPTO, "BTC/USD") is Instrument.ACTIVE
    clock = await broker.clock()
    assert abs((clock.at - datetime.now(UTC)).total_seconds()) < 5
