"""The adapter over real sockets, against a server that answers as scripted."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import pytest

from closeflow.broker import BrokerUnavailable
from closeflow.broker.alpaca import AlpacaBroker
from closeflow.broker.alpaca.wire import LONGEST_DELAY_S, decimal_text, order_body, retry_after
from closeflow.domain.answers import Acknowledged, NotAccepted, NotSent, Ticket, Unanswered
from closeflow.domain.model import AssetType, OrderType, Side, TimeInForce, UpdateSource

TICKET = Ticket(
    client_order_id="cf-0190a1b2c3d47e5f8091a2b3c4d5e6f7-1",
    account_id="acc-1",
    symbol="AAPL",
    side=Side.SELL,
    quantity=Decimal("10.50"),
    order_type=OrderType.LIMIT,
    time_in_force=TimeInForce.DAY,
    limit_price=Decimal("1.9E+2"),
)
ORDER: dict[str, object] = {
    "id": "order-1",
    "client_order_id": TICKET.client_order_id,
    "symbol": "AAPL",
    "side": "sell",
    "qty": "10.5",
    "filled_qty": "0",
    "status": "new",
    "submitted_at": "2026-03-02T15:00:00Z",
    "updated_at": "2026-03-02T15:00:00Z",
}


@dataclass
class Server:
    """What it was asked, oldest first: the head of the request, then its body."""

    url: str
    requests: list[tuple[str, bytes]] = field(default_factory=list)

    def target(self, n: int = -1) -> str:
        return self.requests[n][0].split(" ")[1]


Step = Callable[[asyncio.StreamWriter], Awaitable[None]]


def answer(status: int, body: object = b"", *headers: str) -> Step:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = [f"HTTP/1.1 {status} x", f"Content-Length: {len(raw)}", *headers, "", ""]

    async def write(writer: asyncio.StreamWriter) -> None:
        writer.write("\r\n".join(head).encode() + raw)
        await writer.drain()

    return write


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def stay_silent(_: asyncio.StreamWriter) -> None:
    await asyncio.get_running_loop().create_future()


async def break_off(writer: asyncio.StreamWriter) -> None:
    writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"id": "order-1"')
    await writer.drain()
    writer.close()


async def trickle(writer: asyncio.StreamWriter) -> None:
    """A byte now and then: no single read ever times out."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")
    while not writer.is_closing():
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


@asynccontextmanager
async def serving(*steps: Step) -> AsyncIterator[Server]:
    """Answers the n-th request by the n-th step, later ones by the last."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not writer.is_closing():
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                sizes = [int(line.split(":")[1]) for line in head.lower().split("\r\n") if "content-length" in line]
                body = await reader.readexactly(sizes[0]) if sizes else b""
                state.requests.append((head, body))
                await steps[min(len(state.requests), len(steps)) - 1](writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(serve(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    state = Server(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    try:
        yield state
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)


@asynccontextmanager
async def broker_at(url: str, *, deadline_s: float = 5.0, connections: int = 4) -> AsyncIterator[AlpacaBroker]:
    broker = AlpacaBroker(
        base_url=url,
        market_data_url=url,
        key_id="key",
        secret_key="secret",
        account_id="acc-1",
        deadline_s=deadline_s,
        connections=connections,
    )
    try:
        yield broker
    finally:
        await broker.aclose()


def test_every_send_of_a_ticket_has_the_same_bytes_whatever_scale_its_numbers_have() -> None:
    expected = (
        b'{"symbol":"AAPL","qty":"10.5","side":"sell","type":"limit","time_in_force":"day",'
        b'"client_order_id":"cf-0190a1b2c3d47e5f8091a2b3c4d5e6f7-1","limit_price":"190"}'
    )
    assert order_body(TICKET) == expected
    assert order_body(replace(TICKET, quantity=Decimal("10.5"), limit_price=Decimal("190.00"))) == expected


@pytest.mark.parametrize(
    ("number", "text"),
    [("1E+3", "1000"), ("100", "100"), ("0.000000001", "0.000000001"), ("1.10", "1.1"), ("5.00", "5")],
)
def test_a_decimal_is_written_without_exponent_or_trailing_zeros(number: str, text: str) -> None:
    assert decimal_text(Decimal(number)) == text


@pytest.mark.parametrize(("side", "intent"), [(Side.SELL, "sell_to_close"), (Side.BUY, "buy_to_close")])
def test_an_option_order_says_that_it_closes(side: Side, intent: str) -> None:
    ticket = replace(TICKET, symbol="AAPL260320C00190000", side=side, quantity=Decimal(2))
    assert json.loads(order_body(ticket))["position_intent"] == intent
    assert "position_intent" not in json.loads(order_body(TICKET))


def test_a_market_order_has_no_limit_price() -> None:
    ticket = replace(TICKET, order_type=OrderType.MARKET, limit_price=None)
    assert "limit_price" not in json.loads(order_body(ticket))


async def test_an_order_is_posted_once_with_the_key_and_acknowledged() -> None:
    async with serving(answer(200, ORDER)) as server, broker_at(server.url) as broker:
        assert isinstance(await broker.submit(TICKET), Acknowledged)
        assert isinstance(await broker.submit(TICKET), Acknowledged)
    head, body = server.requests[0]
    assert head.startswith("POST /v2/orders HTTP/1.1")
    assert "APCA-API-KEY-ID: key\r\nAPCA-API-SECRET-KEY: secret" in head
    assert server.requests == [(head, body), (head, body)]


@pytest.mark.parametrize("step", [hang_up, break_off, answer(302, b"", "Location: /v2/orders"), answer(503, b"busy")])
async def test_a_post_that_may_have_arrived_is_unanswered_and_never_repeated(step: Step) -> None:
    async with serving(step, answer(200, ORDER)) as server, broker_at(server.url) as broker:
        assert isinstance(await broker.submit(TICKET), Unanswered)
    assert len(server.requests) == 1


async def test_an_order_that_cannot_begin_in_time_is_not_sent_at_all() -> None:
    """The time-out of the whole call would let it go, seconds after the check that allowed it."""
    async with serving(stay_silent) as server, broker_at(server.url, deadline_s=2, connections=1) as broker:
        busy = asyncio.create_task(broker.look_up(TICKET.client_order_id))
        while not server.requests:  # noqa: ASYNC110 - the server tells by what it has read
            await asyncio.sleep(0.01)
        started = time.monotonic()
        assert isinstance(await broker.submit(TICKET, begin_within_s=0.1), NotSent)
        assert time.monotonic() - started < 1
        await busy
    assert len(server.requests) == 1


@pytest.mark.parametrize("warm", [True, False])
async def test_an_order_whose_time_is_over_is_not_written_to_any_connection(warm: bool) -> None:
    async with serving(answer(200, ORDER)) as server, broker_at(server.url) as broker:
        if warm:
            assert isinstance(await broker.submit(TICKET, begin_within_s=1), Acknowledged)
        assert isinstance(await broker.submit(TICKET, begin_within_s=0), NotSent)
        assert len(server.requests) == warm
        assert isinstance(await broker.submit(TICKET, begin_within_s=1), Acknowledged)


@pytest.mark.parametrize("step", [stay_silent, trickle])
async def test_the_deadline_covers_the_whole_call(step: Step) -> None:
    async with serving(step) as server, broker_at(server.url, deadline_s=0.3) as broker:
        started = time.monotonic()
        assert isinstance(await broker.submit(TICKET), Unanswered)
        assert time.monotonic() - started < 2


async def test_a_refused_connection_was_not_a_send() -> None:
    async with serving(answer(200, ORDER)) as server:
        url = server.url
    async with broker_at(url) as broker:
        assert isinstance(await broker.submit(TICKET), NotSent)


async def test_waiting_for_a_connection_until_the_deadline_was_not_a_send() -> None:
    async with serving(stay_silent) as server, broker_at(server.url, deadline_s=0.4, connections=1) as broker:
        # One holds the only connection as long as the others may wait. At the common end the next in the queue may just
        # begin to write, which is a send; the last in it is never reached.
        answers = await asyncio.gather(*(broker.submit(TICKET) for _ in range(20)))
    assert isinstance(answers[0], Unanswered)
    assert isinstance(answers[-1], NotSent)
    assert len(server.requests) <= sum(isinstance(answer, Unanswered) for answer in answers)


async def test_a_rate_limit_carries_its_delay() -> None:
    async with serving(answer(429, b"", "Retry-After: 3")) as server, broker_at(server.url) as broker:
        assert await broker.submit(TICKET) == NotAccepted("rate limited", 3.0)


def test_the_delay_may_be_a_date_or_a_reset_time() -> None:
    now = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
    assert retry_after({"retry-after": "Mon, 02 Mar 2026 15:00:07 GMT"}, now) == 7.0
    assert retry_after({"x-ratelimit-reset": str(int(now.timestamp()) + 9)}, now) == 9.0
    assert retry_after({"retry-after": "soon"}, now) is None
    assert retry_after({}, now) is None


@pytest.mark.parametrize(
    ("headers", "delay"),
    [
        ({"retry-after": "31536000"}, LONGEST_DELAY_S),
        ({"retry-after": "9" * 400}, LONGEST_DELAY_S),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, LONGEST_DELAY_S),
        ({"retry-after": "Mon, 02 Mar 2026 14:00:00 GMT"}, 0.0),
        ({"retry-after": "Fri, 99 Jan 99999999999999 00:00:00 GMT"}, None),
        ({"x-ratelimit-reset": "9" * 400}, None),
        ({"x-ratelimit-reset": "9" * 5000}, None),
    ],
)
def test_no_delay_stops_us_for_long(headers: dict[str, str], delay: float | None) -> None:
    assert retry_after(headers, datetime(2026, 3, 2, 15, 0, tzinfo=UTC)) == delay


async def test_a_look_up_asks_by_our_id() -> None:
    async with serving(answer(200, ORDER)) as server, broker_at(server.url) as broker:
        assert isinstance(await broker.look_up(TICKET.client_order_id), Acknowledged)
    assert server.target() == f"/v2/orders:by_client_order_id?client_order_id={TICKET.client_order_id}"


async def test_an_open_order_of_somebody_else_that_cannot_be_read_is_passed_over() -> None:
    foreign = {**ORDER, "id": "order-2", "client_order_id": "theirs", "side": None}
    nameless = {**ORDER, "id": "order-3", "client_order_id": None}
    async with serving(answer(200, [foreign, ORDER, nameless])) as server, broker_at(server.url) as broker:
        assert [one.broker_order_id for one in await broker.open_orders()] == ["order-1"]


async def test_an_open_order_of_ours_that_cannot_be_read_is_not_passed_over() -> None:
    async with serving(answer(200, [{**ORDER, "side": None}])) as server, broker_at(server.url) as broker:
        with pytest.raises(BrokerUnavailable, match="an order cannot be read"):
            await broker.open_orders()


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


async def test_quotes_come_from_three_feeds_and_a_silent_feed_costs_only_its_own() -> None:
    quote = {"t": "2026-03-02T15:00:00Z", "bp": 189.1, "ap": 189.3}
    stocks = answer(200, {"quotes": {"AAPL": quote, "MSFT": {**quote, "bp": 0}}})
    crypto = answer(200, {"quotes": {"BTC/USD": quote}})

    async def by_path(writer: asyncio.StreamWriter) -> None:
        step = next(
            step
            for part, step in (("stocks", stocks), ("options", answer(500)), ("crypto", crypto))
            if part in server.target()
        )
        await step(writer)

    symbols = {
        "AAPL": AssetType.STOCK,
        "MSFT": AssetType.STOCK,
        "AAPL260320C00190000": AssetType.OPTION,
        "BTC/USD": AssetType.CRYPTO,
    }
    async with serving(by_path) as server, broker_at(server.url) as broker:
        quotes = await broker.quotes(symbols)
    assert set(quotes) == {"AAPL", "BTC/USD"}
    assert (quotes["AAPL"].bid, quotes["AAPL"].ask) == (Decimal("189.1"), Decimal("189.3"))


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
