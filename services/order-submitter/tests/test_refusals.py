"""Unmapped refusals: several in the same words are the account's, one alone is its order's."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from uuid import uuid4

import pytest

from closeflow.domain.ids import client_order_id
from closeflow.domain.model import Order, OrderStatus, OrderType, RejectClass, Side, TimeInForce
from closeflow.domain.sending.broker_answers import NotAccepted, Refused
from order_submitter.sending.refusals import LATELY_S, WAITS_AT_MOST, WITHIN_S, UnmappedRefusals

MOON = Refused("alpaca_40310000", RejectClass.TERMINAL, "40310000: the moon is wrong", mapped=False)
WAITS = NotAccepted(MOON.reason, None, account_wide=True)


class Clock:
    """Monotonic seconds as the test sets them."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def an_order() -> Order:
    request_id = uuid4()
    return Order(
        client_order_id=client_order_id(request_id, 1),
        close_request_id=request_id,
        attempt=1,
        position_id=41,
        account_id="main",
        symbol="AAPL",
        side=Side.SELL,
        quantity=Decimal(10),
        order_type=OrderType.MARKET,
        time_in_force=TimeInForce.DAY,
        status=OrderStatus.PLANNED,
        created_at=datetime(2026, 3, 2, 14, 30, tzinfo=UTC),
    )


def orders(count: int) -> list[Order]:
    return [an_order() for _ in range(count)]


async def judged(of: UnmappedRefusals, asked: Sequence[Order], refused: Refused = MOON) -> list[Refused | NotAccepted]:
    return await asyncio.gather(*(of.judge(order, refused) for order in asked))


@pytest.mark.parametrize(("count", "answer"), [(1, MOON), (2, MOON), (3, WAITS), (20, WAITS)])
async def test_several_closes_refused_in_the_same_words_wait(count: int, answer: Refused | NotAccepted) -> None:
    assert await judged(UnmappedRefusals(0.02), orders(count)) == [answer] * count


async def test_words_that_name_an_order_are_not_the_same() -> None:
    of = UnmappedRefusals(0.02)
    said = [replace(MOON, reason=f"the moon is wrong for S{n}") for n in range(5)]
    answers = await asyncio.gather(*(of.judge(one, each) for one, each in zip(orders(5), said, strict=True)))
    assert answers == said


async def test_one_close_that_is_refused_three_times_is_one() -> None:
    of, [order] = UnmappedRefusals(0.02), orders(1)
    assert await judged(of, [order] * 3) == [MOON] * 3


async def test_closes_far_apart_are_no_company() -> None:
    of = UnmappedRefusals(0.02, clock=(clock := Clock()))
    for order in orders(4):
        assert await judged(of, [order]) == [MOON]
        clock.now += WITHIN_S / 2


async def test_the_probe_of_an_account_that_still_may_not_trade_waits_on() -> None:
    of = UnmappedRefusals(0.02, clock=(clock := Clock()))
    asked = orders(3)
    assert await judged(of, asked) == [WAITS] * 3
    for _ in range(10):
        clock.now += 60
        assert await judged(of, asked[:1]) == [WAITS]


async def test_closes_that_are_refused_again_and_again_while_others_pass_are_refused_themselves() -> None:
    of, asked = UnmappedRefusals(0.02), orders(3)
    for _ in range(WAITS_AT_MOST):
        assert await judged(of, asked) == [WAITS] * 3
        of.taken()
    assert await judged(of, asked) == [MOON] * 3


async def test_an_account_that_may_trade_again_begins_anew() -> None:
    of, asked = UnmappedRefusals(0.02), orders(3)
    for _ in range(WAITS_AT_MOST * 2):
        assert await judged(of, asked) == [WAITS] * 3
        of.taken()
        of.taken()


async def test_words_that_were_of_the_account_long_ago_are_not_any_more() -> None:
    of = UnmappedRefusals(0.02, clock=(clock := Clock()))
    assert await judged(of, orders(3)) == [WAITS] * 3
    clock.now += LATELY_S - 1
    assert await judged(of, orders(1)) == [WAITS]
    clock.now += LATELY_S + 1
    assert await judged(of, orders(1)) == [MOON]
