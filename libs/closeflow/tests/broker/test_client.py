"""The adapter over real sockets, against a server that answers as scripted."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial

import pytest

from closeflow.broker.alpaca.retry_hints import LONGEST_DELAY_S, retry_after
from closeflow.broker.alpaca.wire import order_body
from closeflow.domain.model import OrderType, Side
from closeflow.domain.sending.broker_answers import Acknowledged, NotAccepted, NotFound, NotSent, Unanswered
from closeflow.domain.text import decimal_text

from .serving import ORDER, TICKET, Step, answer, break_off, broker_at, hang_up, serving, stay_silent, trickle


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


@pytest.mark.parametrize("symbol", ["AAPL", "AAPL260320C00190000", "BTC/USD"])
@pytest.mark.parametrize(("side", "intent"), [(Side.SELL, "sell_to_close"), (Side.BUY, "buy_to_close")])
def test_where_the_broker_refuses_to_exceed_every_order_says_that_it_closes(
    symbol: str, side: Side, intent: str
) -> None:
    body = order_body(replace(TICKET, symbol=symbol, side=side), says_it_closes=True)
    assert json.loads(body)["position_intent"] == intent


def test_a_market_order_has_no_limit_price() -> None:
    ticket = replace(TICKET, order_type=OrderType.MARKET, limit_price=None)
    assert "limit_price" not in json.loads(order_body(ticket))


@pytest.mark.parametrize("yes", [True, False])
async def test_whether_the_first_byte_may_go_is_asked_when_nothing_but_the_write_is_left(yes: bool) -> None:
    asked: list[int] = []

    async with serving(answer(200, ORDER)) as server, broker_at(server.url) as broker:

        async def may_begin() -> bool:
            asked.append(len(server.requests))
            return yes

        said = await broker.submit(TICKET, begin_within_s=1, may_begin=may_begin)
    assert isinstance(said, Acknowledged if yes else NotSent)
    assert (asked, len(server.requests)) == ([0], int(yes))


async def test_an_order_is_handed_over_after_it_may_begin_and_before_its_body() -> None:
    said: list[str] = []

    def handing_over() -> None:
        said.append("handed over")
        raise OSError("no room")

    async with serving(answer(200, ORDER)) as server, broker_at(server.url) as broker:

        async def may_begin() -> bool:
            said.append("may begin")
            return True

        kept = await broker.submit(TICKET, may_begin=may_begin, handing_over=handing_over)
        assert kept == NotSent("no room", withheld=True)
        assert (said, server.requests) == (["may begin", "handed over"], [])
        assert isinstance(await broker.submit(TICKET, handing_over=lambda: None), Acknowledged), "the next one goes"


async def test_orders_are_handed_over_one_at_a_time() -> None:
    said: list[int] = []
    async with serving(answer(200, ORDER)) as server, broker_at(server.url) as broker:
        answers = await asyncio.gather(
            *(broker.submit(TICKET, handing_over=partial(said.append, n)) for n in range(20))
        )
    assert all(isinstance(one, Acknowledged) for one in answers)
    assert (sorted(said), len(server.requests)) == ([*range(20)], 20)


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
    """Rule R8."""
    async with serving(step, answer(200, ORDER)) as server, broker_at(server.url) as broker:
        assert isinstance(await broker.submit(TICKET), Unanswered)
    assert len(server.requests) == 1


async def test_an_order_that_cannot_begin_in_time_is_not_sent_at_all() -> None:
    """The time-out of the whole call would let it go, seconds after the check that allowed it."""
    async with serving(stay_silent) as server, broker_at(server.url, deadline_s=4, connections=1) as broker:
        busy = asyncio.create_task(broker.look_up(TICKET.client_order_id))
        while not server.requests:  # noqa: ASYNC110 - the server tells by what it has read
            await asyncio.sleep(0.01)
        started = time.monotonic()
        said = await broker.submit(TICKET, begin_within_s=0.1)
        assert isinstance(said, NotSent)
        assert said.withheld
        assert time.monotonic() - started < 3
        await busy
    assert len(server.requests) == 1


@pytest.mark.parametrize("warm", [True, False])
async def test_an_order_whose_time_is_over_is_not_written_to_any_connection(warm: bool) -> None:
    async with serving(answer(200, ORDER)) as server, broker_at(server.url) as broker:
        if warm:
            assert isinstance(await broker.submit(TICKET, begin_within_s=1), Acknowledged)
        late = await broker.submit(TICKET, begin_within_s=0)
        assert isinstance(late, NotSent)
        assert late.withheld or not warm
        assert len(server.requests) == warm
        assert isinstance(await broker.submit(TICKET, begin_within_s=1), Acknowledged)


@pytest.mark.parametrize("step", [stay_silent, trickle])
async def test_the_deadline_covers_the_whole_call(step: Step) -> None:
    async with serving(step) as server, broker_at(server.url, deadline_s=1) as broker:
        started = time.monotonic()
        assert isinstance(await broker.submit(TICKET), Unanswered)
        assert time.monotonic() - started < 4


async def test_a_refused_connection_was_not_a_send() -> None:
    async with serving(answer(200, ORDER)) as server:
        url = server.url
    async with broker_at(url) as broker:
        assert isinstance(await broker.submit(TICKET), NotSent)


async def test_waiting_for_a_connection_until_the_deadline_was_not_a_send() -> None:
    async with serving(stay_silent) as server, broker_at(server.url, deadline_s=1.5, connections=1) as broker:
        # One holds the only connection as long as the others may wait. At the common end those next in the queue may
        # just begin to write, which is a send; the others are never reached.
        answers = await asyncio.gather(*(broker.submit(TICKET) for _ in range(20)))
    assert isinstance(answers[0], Unanswered)
    assert {type(answer) for answer in answers} == {Unanswered, NotSent}
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


@asynccontextmanager
async def answering_twice() -> AsyncIterator[tuple[str, list[str]]]:
    """Its first answer, a not-found, it gives once more a moment later, when nobody asks; all others are 503. Its URL,
    and what came."""
    asked: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                asked.append(head.split(" ")[1])
                if len(asked) > 1:
                    writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
                    continue
                body = b'{"code":40410000,"message":"order not found for x"}'
                said = b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
                writer.write(said)
                await asyncio.sleep(0.05)
                writer.write(said)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


async def test_an_answer_that_nobody_asked_for_answers_no_other_call() -> None:
    """It would be the not-found of another order, and evidence of its absence."""
    async with answering_twice() as (url, asked), broker_at(url) as broker:
        assert isinstance(await broker.look_up("cf-1"), NotFound)
        await asyncio.sleep(0.2)  # The second answer is on the idle connection now.
        assert [isinstance(await broker.look_up(name), NotFound) for name in ("cf-2", "cf-3")] == [False, False]
    assert [one.rpartition("=")[2] for one in asked] == ["cf-1", "cf-2", "cf-3"]


async def test_an_answer_that_comes_before_the_order_is_none_and_the_order_does_not_go() -> None:
    async with answering_twice() as (url, asked), broker_at(url) as broker:

        async def may_begin() -> bool:
            await asyncio.sleep(0.2)  # The second answer comes meanwhile.
            return True

        await broker.look_up("cf-1")
        said = await broker.submit(TICKET, may_begin=may_begin)
    assert isinstance(said, NotSent)
    assert len(asked) == 1


async def test_a_call_that_waits_for_a_connection_ends_with_its_client() -> None:
    async with serving(stay_silent) as server, broker_at(server.url, connections=1) as broker:
        calls = [asyncio.create_task(broker.submit(TICKET)) for _ in range(3)]
        await asyncio.sleep(0.1)
        await broker.aclose()
        answers = [type(one) for one in await asyncio.wait_for(asyncio.gather(*calls), 5)]
        assert sorted(answers, key=str) == sorted([Unanswered, NotSent, NotSent], key=str)
        assert isinstance(await broker.submit(TICKET), NotSent)
