"""One budget for every call of a process, and what a broker's refusals do to it."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from closeflow.broker import BrokerUnavailable, FailureCause
from closeflow.broker.alpaca.retry_hints import retry_after
from closeflow.broker.budget import FLOOR_CAP_S, TAKEN_ENDS, CallBudget, Urgency
from closeflow.domain.model import AssetType
from closeflow.domain.sending.broker_answers import NotAccepted, NotFound

from .serving import TICKET, answer, broker_at, serving

NOW = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)


class Clock:
    """Monotonic seconds as the test sets them."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_at_most_a_seconds_worth_goes_at_once() -> None:
    budget = CallBudget(10, clock=(clock := Clock()))
    assert [budget.take(Urgency.SEND) for _ in range(11)] == [True] * 10 + [False]
    clock.now = 0.1
    assert [budget.take(Urgency.SEND) for _ in range(2)] == [True, False]


def test_a_rate_below_one_still_lets_one_through() -> None:
    budget = CallBudget(0.5, clock=(clock := Clock()))
    assert [budget.take(urgency) for urgency in (Urgency.MARKET, Urgency.SEND)] == [True, False]
    clock.now = 2.0
    assert budget.take(Urgency.MARKET)


def test_what_is_less_urgent_leaves_some_to_what_is_more() -> None:
    budget = CallBudget(10, clock=Clock())
    went = {}
    for urgency in sorted(Urgency, reverse=True):
        went[urgency] = 0
        while budget.take(urgency):
            went[urgency] += 1
    assert went == {Urgency.MARKET: 7, Urgency.LIST: 1, Urgency.LOOK_UP: 1, Urgency.SEND: 1}


def test_each_of_those_that_wait_is_told_when_its_own_token_is_there() -> None:
    budget = CallBudget(10, clock=Clock())
    while budget.take(Urgency.SEND):
        pass
    assert [round(budget.wait_s(Urgency.SEND, ahead=n), 3) for n in range(3)] == [0.1, 0.2, 0.3]


@pytest.mark.parametrize("hint", [None, 0.0, 0.001])
def test_the_pause_grows_while_refusals_go_on_whatever_the_broker_asks_for(hint: float | None) -> None:
    budget = CallBudget(100, clock=(clock := Clock()))
    pauses = []
    for _ in range(8):
        assert budget.take(Urgency.SEND)
        pauses.append(budget.refused(hint))
        assert not budget.take(Urgency.SEND)
        clock.now += pauses[-1]
        clock.now += budget.wait_s(Urgency.SEND)
    assert pauses == [1, 2, 4, 8, 16, FLOOR_CAP_S, FLOOR_CAP_S, FLOOR_CAP_S]
    clock.now += 61
    assert budget.refused(hint) == 1, "a minute without a refusal ends the row"


@pytest.mark.parametrize(("taken", "pauses"), [(TAKEN_ENDS - 1, [1, 2, 4, 8]), (TAKEN_ENDS, [1, 1, 1, 1])])
def test_a_refusal_now_and_then_among_calls_that_are_taken_is_no_row(taken: int, pauses: list[float]) -> None:
    budget = CallBudget(100, clock=(clock := Clock()))
    seen = []
    for _ in pauses:
        seen.append(budget.refused(None))
        clock.now += seen[-1] + 5
        for _ in range(taken):
            budget.taken()
    assert seen == pauses


def test_calls_that_were_under_way_when_the_first_was_refused_do_not_lengthen_the_pause() -> None:
    budget = CallBudget(100, clock=Clock())
    assert [budget.refused(None) for _ in range(60)] == [1.0] * 60


def test_a_longer_wish_is_heard() -> None:
    budget = CallBudget(100, clock=Clock())
    assert [budget.refused(hint) for hint in (None, 42, 3)] == [1, 42, 42]


def test_after_a_refusal_calls_come_more_slowly_and_the_urgent_ones_first() -> None:
    budget = CallBudget(100, clock=(clock := Clock()))
    for _ in range(9):
        clock.now += budget.refused(None)
    assert [budget.wait_s(urgency) > 0 for urgency in Urgency] == [False, True, True, True]
    sent = 0
    for _ in range(100):
        sent += budget.take(Urgency.SEND)
        clock.now += 0.1
    assert 50 <= sent <= 75, "about 5 a second, growing"
    clock.now += 300
    assert sum(budget.take(Urgency.SEND) for _ in range(200)) == 100, "forgotten"


def test_each_twenty_calls_that_are_taken_double_the_rate() -> None:
    budget = CallBudget(100, clock=(clock := Clock()))
    for _ in range(9):
        clock.now += budget.refused(None)
    waits = []
    for _ in range(3):
        waits.append(budget.wait_s(Urgency.SEND, ahead=5))
        for _ in range(TAKEN_ENDS):
            budget.taken()
    assert [round(waits[0] / one) for one in waits] == [1, 2, 4]


@pytest.mark.parametrize("urgency", Urgency)
@pytest.mark.parametrize("refusals", [1, 3, 9])
def test_no_call_is_kept_back_for_long_once_the_pause_is_over(urgency: Urgency, refusals: int) -> None:
    budget = CallBudget(100, clock=(clock := Clock()))
    for _ in range(refusals):
        clock.now += budget.refused(None)
    clock.now += 3.5
    assert budget.take(urgency)


async def test_look_ups_beyond_the_rate_wait() -> None:
    missing = answer(404, {"code": 40410000, "message": "order not found"})
    async with serving(missing) as server, broker_at(server.url, budget=CallBudget(10)) as broker:
        began = time.monotonic()
        answers = await asyncio.gather(*(broker.look_up(f"order-{n}") for n in range(12)))
        assert time.monotonic() - began >= 0.2
    assert answers == [NotFound()] * 12


async def test_sends_without_end_leave_a_call_its_turn_after_a_moment() -> None:
    budget = CallBudget(100)
    asked = asyncio.create_task(budget.turn(Urgency.MARKET, patience_s=5))
    while budget.take(Urgency.SEND):
        pass
    sends = 0
    deadline = time.monotonic() + 5
    while not asked.done() and time.monotonic() < deadline:
        sends += budget.take(Urgency.SEND)
        await asyncio.sleep(0)
    assert asked.done()
    assert await asked == 0
    assert sends >= 10, "they went before it at first"


async def test_sends_go_first_as_long_as_the_broker_refuses_calls() -> None:
    budget = CallBudget(100)
    budget.refused(None)
    deadline = time.monotonic() + 1.6
    asked = asyncio.create_task(budget.turn(Urgency.MARKET, patience_s=1.5))
    while not asked.done() and time.monotonic() < deadline:
        budget.take(Urgency.SEND)
        await asyncio.sleep(0)
    assert await asyncio.wait_for(asked, 1) > 0


async def test_a_refused_call_of_any_kind_stops_calls_of_every_kind() -> None:
    async with serving(answer(429, b"", "Retry-After: 0")) as server:
        for ask in range(4):
            async with broker_at(server.url, deadline_s=1) as broker:
                calls = (
                    broker.look_up("order-1"),
                    broker.clock(),
                    broker.cancel(TICKET, broker_order_id="order-1"),
                    broker.submit(TICKET),
                )
                for n, call in enumerate(calls):
                    if n == ask:
                        with suppress(BrokerUnavailable):
                            await call
                    else:
                        call.close()
                asked = len(server.requests)
                held = [
                    await broker.submit(TICKET),
                    await broker.cancel(TICKET, broker_order_id="order-1"),
                    await broker.look_up("order-1"),
                ]
                with pytest.raises(BrokerUnavailable) as unavailable:
                    await broker.positions()
                assert len(server.requests) == asked, "nothing was written"
                assert all(isinstance(one, NotAccepted) and (one.retry_after_s or 0) > 0 for one in held)
                assert (unavailable.value.retry_after_s or 0) > 0


async def test_a_refused_post_says_how_long_it_waits_whatever_the_hint() -> None:
    for headers in ["Retry-After: 0"], ["Retry-After: -5"], ["X-RateLimit-Reset: 1000000000"], []:
        async with serving(answer(429, b"", *headers)) as server, broker_at(server.url) as broker:
            assert await broker.submit(TICKET) == NotAccepted("rate limited", 1.0)


LATER = NOW + timedelta(seconds=7)
HINTS: dict[str, tuple[dict[str, str], float | None]] = {
    "seconds": ({"retry-after": "7"}, 7),
    "a fraction": ({"retry-after": "7.25"}, 7.25),
    "less than nothing": ({"retry-after": "-7"}, 0),
    "a date": ({"retry-after": format_datetime(LATER)}, 7),
    "an RFC 3339 time": ({"retry-after": "2026-03-02T15:00:07.5Z"}, 7.5),
    "a time in the past": ({"retry-after": "2026-03-02T14:00:00Z"}, 0),
    "Unix time where seconds belong": ({"retry-after": str(int(LATER.timestamp()))}, 7),
    "a reset in Unix time": ({"x-ratelimit-reset": str(int(LATER.timestamp()))}, 7),
    "a reset with a fraction": ({"x-ratelimit-reset": f"{LATER.timestamp() + 0.5}"}, 7.5),
    "a reset in milliseconds": ({"x-ratelimit-reset": str(int(LATER.timestamp() * 1000))}, 7),
    "a reset in seconds from now": ({"ratelimit-reset": "7"}, 7),
    "at once, but a reset ahead": ({"retry-after": "0", "x-ratelimit-reset": str(int(LATER.timestamp()))}, 7),
    "nonsense, but a reset ahead": ({"retry-after": "soon", "x-ratelimit-reset": str(int(LATER.timestamp()))}, 7),
    "no number": ({"retry-after": "nan"}, None),
    "empty": ({"retry-after": ""}, None),
}


@pytest.mark.parametrize(("headers", "delay"), HINTS.values(), ids=HINTS)
def test_a_hint_is_read_in_every_form(headers: dict[str, str], delay: float | None) -> None:
    assert retry_after(headers, NOW) == delay


@pytest.mark.parametrize("ahead", [timedelta(hours=1), timedelta(hours=-1)])
def test_a_time_is_compared_with_the_servers_clock_and_not_with_ours(ahead: timedelta) -> None:
    theirs = NOW + ahead
    for name in "retry-after", "x-ratelimit-reset":
        for until in format_datetime(theirs + timedelta(seconds=7)), str(int(theirs.timestamp()) + 7):
            assert retry_after({name: until, "date": format_datetime(theirs)}, NOW) == 7


@pytest.mark.parametrize("status", [429, 503])
async def test_market_data_that_refuses_holds_back_market_data_alone(status: int) -> None:
    refusing = answer(status, b"", "Retry-After: 900")
    async with serving(refusing, answer(404, b"")) as server, broker_at(server.url) as broker:
        for _ in range(2):
            with pytest.raises(BrokerUnavailable) as refused:
                await broker.quotes(AssetType.STOCK, ["AAPL"])
            assert refused.value.retry_after_s == pytest.approx(900, abs=5)
        assert len(server.requests) == 1
        assert not isinstance(await broker.submit(TICKET), NotAccepted)
        await broker.cancel(TICKET, broker_order_id="order-1")
        assert [head.split(" ")[0] for head, _ in server.requests] == ["GET", "POST", "DELETE"]


async def test_market_data_that_has_no_turn_says_so_before_its_caller_stops_waiting() -> None:
    """After a pause of one second market data goes three later: nobody who asks for a quote waits that long."""
    async with serving(answer(429, b""), answer(404, b"")) as server, broker_at(server.url) as broker:
        assert isinstance(await broker.submit(TICKET), NotAccepted)
        began = time.monotonic()
        with pytest.raises(BrokerUnavailable) as refused:
            await broker.quotes(AssetType.STOCK, ["AAPL"])
        assert refused.value.about is FailureCause.CALLER
        assert time.monotonic() - began < 2
        assert len(server.requests) == 1
