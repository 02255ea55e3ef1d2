"""What the planner sees of the market: quotes with their age, trades that witness them, instruments that are gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import cast

from closeflow.broker import Broker, BrokerUnavailable
from closeflow.domain.market_data import Instrument, LastTrade, MarketClock, Quote
from closeflow.domain.model import AssetType
from order_submitter.market import MarketView

AT = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
STOCK = frozenset({AssetType.STOCK})
HEDGE_S = 0.05
OPEN = MarketClock(is_open=True, next_open=AT + timedelta(hours=20), at=AT)


def a_quote(symbol: str, *, age_s: float = 0.0, bid: str = "100") -> Quote:
    return Quote(symbol=symbol, bid=Decimal(bid), ask=Decimal(101), at=AT, age_s=age_s)


@dataclass
class Exchange:
    """What the broker says; a clock that is None never comes."""

    quoted: dict[str, Quote] = field(default_factory=dict)
    traded: dict[str, LastTrade] = field(default_factory=dict)
    listed: dict[str, Instrument] = field(default_factory=dict)
    market: MarketClock | None = OPEN
    looked_up: list[str] = field(default_factory=list)

    async def quotes(self, _: AssetType, symbols: Sequence[str]) -> Mapping[str, Quote]:
        return {one: self.quoted[one] for one in symbols if one in self.quoted}

    async def last_trades(self, _: AssetType, symbols: Sequence[str]) -> Mapping[str, LastTrade]:
        return {one: self.traded[one] for one in symbols if one in self.traded}

    async def instrument(self, _: AssetType, symbol: str) -> Instrument:
        self.looked_up.append(symbol)
        if symbol not in self.listed:
            raise BrokerUnavailable("no list")
        return self.listed[symbol]

    async def clock(self) -> MarketClock:
        if self.market is None:
            await asyncio.get_running_loop().create_future()
        assert self.market is not None
        return self.market

    def view(self, *, quote_reuse_s: float = 0.0) -> MarketView:
        return MarketView(
            broker=cast(Broker, self),
            quote_reuse_s=quote_reuse_s,
            quote_max_age_s=5.0,
            clock_reuse_s=0.0,
            hedge_s=HEDGE_S,
        )


async def test_a_quote_that_is_kept_gets_older_by_the_monotonic_clock() -> None:
    exchange = Exchange(quoted={"AAPL": a_quote("AAPL", age_s=2.0)})
    view = exchange.view(quote_reuse_s=60.0)
    first = await view.look(quoted={"AAPL": AssetType.STOCK}, traded=STOCK)
    began = time.monotonic()
    await asyncio.sleep(0.02)
    again = await view.look(quoted={"AAPL": AssetType.STOCK}, traded=STOCK)
    assert again.quotes["AAPL"].age_s - first.quotes["AAPL"].age_s >= 0.02
    assert again.quotes["AAPL"].age_s <= 2.0 + time.monotonic() - began + 1.0


async def test_a_quote_stands_when_it_was_asked_for_again_and_is_the_same() -> None:
    exchange = Exchange(quoted={"AAPL": a_quote("AAPL", age_s=60.0)})
    view = exchange.view()
    first = await view.look(quoted={"AAPL": AssetType.STOCK}, traded=STOCK)
    assert not first.quotes["AAPL"].standing
    again = await view.look(quoted={"AAPL": AssetType.STOCK}, traded=STOCK)
    assert again.quotes["AAPL"].standing
    exchange.quoted["AAPL"] = a_quote("AAPL", age_s=60.0, bid="99")
    moved = await view.look(quoted={"AAPL": AssetType.STOCK}, traded=STOCK)
    assert not moved.quotes["AAPL"].standing


async def test_the_last_trade_is_beside_the_quote_and_stands_in_for_none() -> None:
    trade = LastTrade(Decimal("100.5"), AT)
    exchange = Exchange(quoted={"AAPL": a_quote("AAPL")}, traded={"AAPL": trade, "THIN": trade})
    seen = await exchange.view().look(quoted={"AAPL": AssetType.STOCK, "THIN": AssetType.STOCK}, traded=STOCK)
    assert seen.quotes["AAPL"].last_trade == trade
    assert (seen.quotes["THIN"].bid, seen.quotes["THIN"].ask, seen.quotes["THIN"].last_trade) == (None, None, trade)


async def test_the_broker_is_asked_whether_it_knows_what_nobody_quotes_and_not_again_at_once() -> None:
    exchange = Exchange(
        quoted={"AAPL": a_quote("AAPL"), "OLD": a_quote("OLD", age_s=9.0)},
        listed={"GONE": Instrument.UNKNOWN, "OLD": Instrument.ACTIVE},
    )
    view = exchange.view()
    quoted = dict.fromkeys(["AAPL", "OLD", "GONE", "SILENT"], AssetType.STOCK)
    for _ in range(2):
        seen = await view.look(quoted=quoted, traded=STOCK)
    assert seen.instruments["GONE"] is Instrument.UNKNOWN
    assert seen.instruments["SILENT"] is Instrument.ACTIVE, "no answer says nothing"
    assert sorted(exchange.looked_up) == ["GONE", "OLD", "SILENT"]


async def test_a_clock_that_does_not_come_holds_up_nobody_and_is_believed_for_a_while() -> None:
    exchange = Exchange(quoted={"AAPL": a_quote("AAPL")})
    view = exchange.view()
    await view.look(quoted={}, traded=STOCK)
    known, exchange.market = exchange.market, None
    began = time.monotonic()
    for _ in range(3):
        seen = await view.look(quoted={"AAPL": AssetType.STOCK}, traded=STOCK)
        assert seen.clock == known
    assert time.monotonic() - began < 1.0, "it is asked for once, and waited for a moment"
    await view.aclose()
