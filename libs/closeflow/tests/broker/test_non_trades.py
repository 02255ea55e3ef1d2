"""Alpaca's activities that are no trades: asked for by page, and none of them is lost because it cannot be read."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final

import pytest

from closeflow.broker import BrokerUnavailable
from closeflow.broker.alpaca.activities import non_trade
from closeflow.domain.operator.adjust import Ending

from .serving import answer, broker_at, serving

AFTER: Final = datetime(2026, 3, 13, tzinfo=UTC)
ASSIGNED: Final[dict[str, object]] = {
    "id": "20260321011955195::5f596936-6f23-4cef-bdf1-3806aae57dbf",
    "activity_type": "OPASN",
    "date": "2026-03-20",
    "net_amount": "0",
    "description": "Option Assignment",
    "symbol": "AAPL260320C00200000",
    "qty": "2",
    "status": "executed",
}


async def test_they_come_in_pages() -> None:
    first = [{**ASSIGNED, "id": f"20260321{n:09}::x"} for n in range(100)]
    async with serving(answer(200, first), answer(200, [ASSIGNED])) as server, broker_at(server.url) as broker:
        page = await broker.non_trades(after=AFTER)
        assert page.next_page == first[-1]["id"]
        last = await broker.non_trades(after=AFTER, page=page.next_page)
    assert (len(page.activities), len(last.activities), last.next_page) == (100, 1, None)
    assert server.target(0).startswith("/v2/account/activities?category=non_trade_activity&after=2026-03-13")
    assert f"page_token={page.next_page}".replace(":", "%3A") in server.target(1)
    (one,) = last.activities
    assert (one.kind, one.symbol, one.quantity, one.day, one.status) == (
        "OPASN",
        "AAPL260320C00200000",
        Decimal(2),
        date(2026, 3, 20),
        "executed",
    )


@pytest.mark.parametrize(
    ("item", "read"),
    [
        ({**ASSIGNED, "qty": "two"}, ("OPASN", "AAPL260320C00200000", None, date(2026, 3, 20))),
        ({**ASSIGNED, "date": "soon"}, ("OPASN", "AAPL260320C00200000", Decimal(2), date(2026, 3, 21))),
        ({**ASSIGNED, "symbol": None}, ("OPASN", None, Decimal(2), date(2026, 3, 20))),
        ({**ASSIGNED, "activity_type": 7}, ("", "AAPL260320C00200000", Decimal(2), date(2026, 3, 20))),
        ("?", ("", None, None, None)),
        (None, ("", None, None, None)),
    ],
)
async def test_one_that_cannot_be_read_whole_is_listed_as_far_as_it_can(item: Any, read: tuple[Any, ...]) -> None:
    pages = [answer(200, [item, ASSIGNED])] * 2
    async with serving(*pages) as server, broker_at(server.url) as broker:
        once, again = [(await broker.non_trades(after=AFTER)).activities for _ in range(2)]
    odd, good = once
    assert (odd.kind, odd.symbol, odd.quantity, odd.day) == read
    assert good.activity_id == ASSIGNED["id"]
    assert once == again, "it has the same name whenever it is read, and is told once"


@pytest.mark.parametrize(
    ("kind", "ending", "money_only"),
    [
        ("OPEXP", Ending.EXPIRED, False),
        ("OPASN", Ending.ASSIGNED, False),
        ("OPEXC", Ending.EXERCISED, False),
        ("OPXRC", Ending.EXERCISED, False),
        ("SPLIT", Ending.REORGANIZED, False),
        ("NC", Ending.REORGANIZED, False),
        ("REORG", Ending.REORGANIZED, False),
        ("DIVNRA", None, True),
        ("CFEE", None, True),
        ("CSD", None, True),
        ("JNLS", None, False),
        ("OPTRD", None, False),
        ("ACATS", None, False),
        ("NEWS_TO_US", None, False),
        (7, None, False),
    ],
)
def test_a_type_says_what_it_does_to_a_holding(kind: object, ending: Ending | None, money_only: bool) -> None:
    read = non_trade({**ASSIGNED, "activity_type": kind})
    assert (read.ending, read.money_only) == (ending, money_only)


@pytest.mark.parametrize("step", [answer(500), answer(200, {"message": "?"}), answer(429)])
async def test_an_answer_that_is_no_list_is_none(step: Any) -> None:
    async with serving(step) as server, broker_at(server.url) as broker:
        with pytest.raises(BrokerUnavailable):
            await broker.non_trades(after=AFTER)
