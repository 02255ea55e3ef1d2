"""Alpaca's adapter, against the simulator, and the one in memory prove the same by the same answers."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Final, Protocol

import pytest

from broker_simulator.control import Behaviour, Control, FillAtOnce, NeverFill, Outage, Reject
from broker_simulator.control_models import PositionSpec
from broker_simulator.process import SimulatorProcess
from closeflow.broker import Broker, BrokerUnavailable, Positions
from closeflow.broker.alpaca import AlpacaBroker
from closeflow.broker.alpaca.parse import Account
from closeflow.broker.alpaca.stream import StreamTarget, trade_updates
from closeflow.broker.trade_updates import Message, StreamLost
from closeflow.contracts import BrokerFillV1
from closeflow.domain.ids import client_order_id
from closeflow.domain.market_data import Instrument
from closeflow.domain.model import (
    AssetType,
    BrokerStatus,
    BrokerUpdate,
    ExecType,
    OrderType,
    RejectClass,
    Side,
    TimeInForce,
)
from closeflow.domain.sending.broker_answers import (
    Acknowledged,
    CancelAccepted,
    CancelRefused,
    DuplicateId,
    NotAccepted,
    NotFound,
    NotSent,
    Refused,
    Unanswered,
)
from closeflow.domain.sending.ticket import Ticket

from .in_memory import InMemoryBroker
from .venue import Venue

UNTIL_S: Final = 10.0
Stream = AbstractAsyncContextManager[AsyncIterator[Message]]


class Desk(Protocol):
    """A broker whose account holds 500 AAPL, its stream, and what may go on there."""

    broker: Broker

    def stream(self) -> Stream: ...
    def fill_orders(self) -> None: ...
    def refuse_as_closed(self) -> None: ...
    def throttle(self) -> None: ...
    def act_without_an_answer(self) -> None: ...
    def go_away(self) -> None: ...


@dataclass
class Alpaca:
    """The adapter of Alpaca at the simulator."""

    simulator: SimulatorProcess
    control: Control
    broker: Broker = field(init=False)

    def __post_init__(self) -> None:
        self.control.reset()
        self.control.clear_script()
        self.control.clear_outages()
        self.control.set_positions([PositionSpec(symbol="AAPL", asset_type="stock", quantity=Decimal(500))])
        self.control.script(Behaviour(execution=NeverFill()))
        self.broker = self._at(self.simulator.url)

    def stream(self) -> Stream:
        of = Account(broker=self.broker.name, account_id=self.broker.account_id)
        key_id, secret_key = self.simulator.key_id, self.simulator.secret_key
        return trade_updates(StreamTarget(url=self.simulator.stream_url, key_id=key_id, secret_key=secret_key, of=of))

    def fill_orders(self) -> None:
        self.control.clear_script()
        self.control.script(Behaviour(execution=FillAtOnce()))

    def refuse_as_closed(self) -> None:
        self.control.clear_script()
        self.control.script(Behaviour(answer=Reject(status=403, code=40310000, message="market is closed")))

    def throttle(self) -> None:
        self.control.outage(Outage(kind="rate_limit", retry_after_s=3))

    def act_without_an_answer(self) -> None:
        self.control.outage(Outage(kind="reset", when="after"))

    def go_away(self) -> None:
        self.control.drop_stream()
        self.broker = self._at("http://127.0.0.1:9")

    def _at(self, url: str) -> AlpacaBroker:
        return AlpacaBroker(
            base_url=url,
            market_data_url=url,
            key_id=self.simulator.key_id,
            secret_key=self.simulator.secret_key,
            account_id="acc-1",
        )


@dataclass
class InMemory:
    """The adapter of the tests at a venue in memory."""

    venue: Venue = field(default_factory=Venue)

    def __post_init__(self) -> None:
        self.broker: Broker = InMemoryBroker(self.venue)

    def stream(self) -> Stream:
        return InMemoryBroker(self.venue).trade_updates()

    def fill_orders(self) -> None:
        self.venue.fills_at_once = True

    def refuse_as_closed(self) -> None:
        self.venue.is_closed = True

    def throttle(self) -> None:
        self.venue.throttled_s = 3

    def act_without_an_answer(self) -> None:
        self.venue.is_silent = True

    def go_away(self) -> None:
        self.venue.log_out()


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SimulatorProcess, Control]]:
    with SimulatorProcess(tmp_path_factory.mktemp("simulator")) as process, process.control() as control:
        yield process, control


@pytest.fixture(params=["alpaca", "in memory"])
async def desk(request: pytest.FixtureRequest) -> AsyncIterator[Desk]:
    made: Desk = Alpaca(*request.getfixturevalue("simulator")) if request.param == "alpaca" else InMemory()
    first = made.broker
    yield made
    await first.aclose()
    await made.broker.aclose()


def a_ticket(quantity: int = 5) -> Ticket:
    return Ticket(
        client_order_id=client_order_id(uuid.uuid4(), 1),
        account_id="acc-1",
        symbol="AAPL",
        side=Side.SELL,
        quantity=Decimal(quantity),
        order_type=OrderType.LIMIT,
        time_in_force=TimeInForce.DAY,
        limit_price=Decimal(100),
    )


async def submit(desk: Desk, ticket: Ticket) -> object:
    return await desk.broker.submit(ticket)


async def submit_twice(desk: Desk, ticket: Ticket) -> object:
    await desk.broker.submit(ticket)
    return await desk.broker.submit(ticket)


async def submit_an_unknown_symbol(desk: Desk, ticket: Ticket) -> object:
    return await desk.broker.submit(replace(ticket, symbol="NOSUCH"))


async def submit_too_late(desk: Desk, ticket: Ticket) -> object:
    await desk.broker.clock()  # There is a connection, so it is only the time that is over.
    return await desk.broker.submit(ticket, begin_within_s=0)


async def submit_what_may_not_begin(desk: Desk, ticket: Ticket) -> object:
    async def no() -> bool:
        return False

    return await desk.broker.submit(ticket, may_begin=no)


async def look_up(desk: Desk, ticket: Ticket) -> object:
    return await desk.broker.look_up(ticket.client_order_id)


async def look_up_what_was_sent(desk: Desk, ticket: Ticket) -> object:
    await desk.broker.submit(ticket)
    return await desk.broker.look_up(ticket.client_order_id)


async def cancel(desk: Desk, ticket: Ticket) -> object:
    return await desk.broker.cancel(ticket, broker_order_id=str(uuid.uuid4()))


async def cancel_what_was_sent(desk: Desk, ticket: Ticket) -> object:
    sent = await desk.broker.submit(ticket)
    assert isinstance(sent, Acknowledged)
    assert sent.update.broker_order_id is not None
    return await desk.broker.cancel(ticket, broker_order_id=sent.update.broker_order_id)


async def cancel_what_is_filled(desk: Desk, ticket: Ticket) -> object:
    desk.fill_orders()
    await desk.broker.submit(ticket)
    filled = await stated(desk.broker, ticket, BrokerStatus.FILLED)
    assert filled.broker_order_id is not None
    return await desk.broker.cancel(ticket, broker_order_id=filled.broker_order_id)


async def stated(broker: Broker, of: Ticket, status: BrokerStatus) -> BrokerUpdate:
    async with asyncio.timeout(UNTIL_S):
        while True:
            answer = await broker.look_up(of.client_order_id)
            if isinstance(answer, Acknowledged) and answer.update.order_status is status:
                return answer.update
            await asyncio.sleep(0.02)


Call = Callable[[Desk, Ticket], Awaitable[object]]
CLOSED: Final = ("market_closed", RejectClass.RETRYABLE, True)
UNKNOWN: Final = ("unknown_symbol", RejectClass.TERMINAL, True)
ANSWERS: Final[list[tuple[str, Call, tuple[object, ...]]]] = [
    ("", submit, (Acknowledged, BrokerStatus.NEW)),
    ("", submit_twice, (DuplicateId,)),
    ("", submit_an_unknown_symbol, (Refused, *UNKNOWN)),
    ("", submit_too_late, (NotSent, True)),
    ("", submit_what_may_not_begin, (NotSent, True)),
    ("refuse_as_closed", submit, (Refused, *CLOSED)),
    ("throttle", submit, (NotAccepted, 3.0, False, False)),
    ("act_without_an_answer", submit, (Unanswered,)),
    ("go_away", submit, (NotSent, False)),
    ("", look_up, (NotFound,)),
    ("", look_up_what_was_sent, (Acknowledged, BrokerStatus.NEW)),
    ("throttle", look_up, (NotAccepted, 3.0, False, False)),
    ("act_without_an_answer", look_up, (Unanswered,)),
    ("go_away", look_up, (NotSent, False)),
    ("", cancel, (NotFound,)),
    ("", cancel_what_was_sent, (CancelAccepted,)),
    ("", cancel_what_is_filled, (CancelRefused,)),
    ("throttle", cancel, (NotAccepted, 3.0, False, False)),
    ("act_without_an_answer", cancel, (Unanswered,)),
    ("go_away", cancel, (NotSent, False)),
]


def proven(answer: object) -> tuple[object, ...]:
    """An answer without its broker's own words and numbers."""
    match answer:
        case Acknowledged(update):
            return Acknowledged, update.order_status
        case Refused():
            return Refused, answer.code, answer.reject_class, answer.mapped
        case NotAccepted():
            return NotAccepted, answer.retry_after_s, answer.credentials, answer.account_wide
        case NotSent():
            return NotSent, answer.withheld
        case _:
            return (type(answer),)


@pytest.mark.parametrize(
    ("trouble", "call", "answer"), [pytest.param(*one, id=f"{one[1].__name__} {one[0]}".strip()) for one in ANSWERS]
)
async def test_a_call_proves_the_same_at_each(desk: Desk, trouble: str, call: Call, answer: tuple[object, ...]) -> None:
    if trouble:
        getattr(desk, trouble)()
    assert proven(await call(desk, a_ticket())) == answer


async def test_what_was_taken_without_an_answer_is_found(desk: Desk) -> None:
    ticket = a_ticket()
    assert await look_up(desk, ticket) == NotFound()
    desk.act_without_an_answer()
    assert isinstance(await desk.broker.submit(ticket), Unanswered)
    if isinstance(desk, InMemory):
        desk.venue.is_silent = False
    elif isinstance(desk, Alpaca):
        desk.control.clear_outages()
    assert isinstance(await look_up(desk, ticket), Acknowledged)


@pytest.mark.parametrize("trouble", ["throttle", "act_without_an_answer", "go_away"])
async def test_a_read_without_an_answer_is_unavailable(desk: Desk, trouble: str) -> None:
    getattr(desk, trouble)()
    broker, after = desk.broker, datetime.now(UTC)
    reads: list[Callable[[], Awaitable[object]]] = [
        broker.open_orders,
        broker.positions,
        broker.clock,
        partial(broker.position, "AAPL"),
        partial(broker.executions, after=after),
        partial(broker.non_trades, after=after),
        partial(broker.instrument, AssetType.STOCK, "AAPL"),
        partial(broker.quotes, AssetType.STOCK, ["AAPL"]),
    ]
    for read in reads[:1] if trouble == "throttle" else reads:  # A refused call makes each later one wait for longer.
        with pytest.raises(BrokerUnavailable):
            await read()


async def test_an_order_is_stated_listed_and_held_alike_through_its_life(desk: Desk) -> None:
    started, broker, ticket = datetime.now(UTC) - timedelta(minutes=5), desk.broker, a_ticket()
    await broker.submit(ticket)
    first, again = [await stated(broker, ticket, BrokerStatus.NEW) for _ in range(2)]
    assert first.event_id == again.event_id, "what is stated twice is one update"
    assert first.side is Side.SELL
    assert (first.order_quantity, first.cum_quantity, first.leaves_quantity) == (Decimal(5), Decimal(0), Decimal(5))
    assert [one.client_order_id for one in (await broker.open_orders()).updates] == [ticket.client_order_id]
    assert first.broker_order_id is not None
    await broker.cancel(ticket, broker_order_id=first.broker_order_id)
    canceled = await stated(broker, ticket, BrokerStatus.CANCELED)
    assert (canceled.broker_seq or 0) > (first.broker_seq or 0)
    assert (await broker.open_orders()).updates == ()

    desk.fill_orders()
    other = a_ticket()
    await broker.submit(other)
    filled = await stated(broker, other, BrokerStatus.FILLED)
    page = await broker.executions(after=started)
    [trade] = page.updates
    assert (trade.exec_type, trade.client_order_id, trade.symbol) == (ExecType.TRADE, other.client_order_id, "AAPL")
    assert (trade.last_quantity, trade.cum_quantity) == (Decimal(5), Decimal(5))
    assert (page.next_page, page.is_whole, page.through) == (None, True, trade.transact_time)
    assert await broker.positions() == Positions({"AAPL": Decimal(495)})
    assert [await broker.position(symbol) for symbol in ("AAPL", "MSFT")] == [495, 0]
    assert await broker.submitted_at(other.client_order_id) is not None
    for update in (first, canceled, filled, trade):
        BrokerFillV1.from_domain(update)  # Raises where no reader would accept it.


async def test_executions_are_paged_without_loss_or_repetition(desk: Desk) -> None:
    started, broker = datetime.now(UTC) - timedelta(minutes=5), desk.broker
    desk.fill_orders()
    tickets = [a_ticket(1) for _ in range(3 if isinstance(desk, InMemory) else 101)]
    for ticket in tickets:
        await broker.submit(ticket)
    await stated(broker, tickets[-1], BrokerStatus.FILLED)
    first = await broker.executions(after=started)
    second = await broker.executions(after=started, page=first.next_page)
    assert (first.next_page is None, second.next_page) == (False, None)
    listed = [one.client_order_id for one in (first + second).updates]
    assert sorted(listed) == sorted(ticket.client_order_id for ticket in tickets)


async def test_the_stream_tells_of_a_fill_by_the_name_that_the_list_has_and_its_end_is_an_error(desk: Desk) -> None:
    started, ticket = datetime.now(UTC) - timedelta(minutes=5), a_ticket()
    desk.fill_orders()
    told: list[BrokerUpdate] = []
    async with asyncio.timeout(UNTIL_S), desk.stream() as messages:
        await desk.broker.submit(ticket)
        while not told or told[-1].exec_type is not ExecType.TRADE:
            message = await anext(messages)
            assert isinstance(message, BrokerUpdate)
            told.append(message)
        [listed] = (await desk.broker.executions(after=started)).updates
        assert told[-1].exec_id is not None
        assert listed.exec_id is not None
        assert listed.exec_id.rpartition("::")[2] == told[-1].exec_id, "or another time before it (rule R3a)"
        assert told[-1].cum_quantity == listed.cum_quantity == Decimal(5)
        desk.go_away()
        with pytest.raises(StreamLost):
            told += [one async for one in messages if isinstance(one, BrokerUpdate)]


async def test_what_is_asked_of_the_market_is_answered_alike(desk: Desk) -> None:
    broker = desk.broker
    assert await broker.instrument(AssetType.STOCK, "AAPL") is Instrument.ACTIVE
    assert await broker.instrument(AssetType.STOCK, "NOSUCH") is Instrument.UNKNOWN
    assert await broker.quotes(AssetType.STOCK, ["NOSUCH"]) == {}
    assert abs(datetime.now(UTC) - (await broker.clock()).at) < timedelta(seconds=5)
