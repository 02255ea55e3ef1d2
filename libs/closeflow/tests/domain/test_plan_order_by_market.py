"""What a plan makes of the market: old and one-sided quotes, none at all, and what is not traded any more."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from closeflow.domain.close.deferral import Defer
from closeflow.domain.close.plan_order import Deny, Market, Submit, apply_plan
from closeflow.domain.market_data import Instrument, LastTrade, Quote
from closeflow.domain.model import AssetType, OrderType
from closeflow.domain.sending.send_check import Withdraw, recheck

from .builders import CONTROLS, LIMITS, NOW, REQUEST_ID, at
from .test_plan_order import CLOSED, MARKET, QUOTE, pending, planned

TRADED_BELOW = LastTrade(Decimal("99.90"), at(0))
NOT_USABLE: dict[str, tuple[Market, str]] = {
    "a quote older than five seconds": (
        replace(MARKET, quotes={"AAPL": replace(QUOTE, age_s=5.1)}),
        "no_fresh_quote",
    ),
    "a quote that became too old since it was fetched": (
        replace(MARKET, quotes={"AAPL": replace(QUOTE, age_s=3)}, waited_s=2.1),
        "no_fresh_quote",
    ),
    "a standing quote that is older than its asset type's may be": (
        replace(MARKET, quotes={"AAPL": replace(QUOTE, age_s=300.1, standing=True)}),
        "no_fresh_quote",
    ),
    "a standing quote that a later trade went through": (
        replace(MARKET, quotes={"AAPL": replace(QUOTE, age_s=60, standing=True, last_trade=TRADED_BELOW)}),
        "no_fresh_quote",
    ),
    "no bid for a sell": (replace(MARKET, quotes={"AAPL": replace(QUOTE, bid=None)}), "no_bid"),
    "a crossed quote": (replace(MARKET, quotes={"AAPL": replace(QUOTE, bid=Decimal(101))}), "crossed_quote"),
}


@pytest.mark.parametrize(("market", "reason"), NOT_USABLE.values(), ids=NOT_USABLE)
def test_it_waits_for_a_better_quote(market: Market, reason: str) -> None:
    decided = planned(pending(), market)
    assert isinstance(decided, Defer)
    assert decided.reason == reason


USABLE: dict[str, Market] = {
    "a fresh quote, whatever the database's clock says of its time": replace(
        MARKET, quotes={"AAPL": replace(QUOTE, at=at(-3600))}
    ),
    "one from the future by that clock": replace(MARKET, quotes={"AAPL": replace(QUOTE, at=at(8))}),
    "an old one that was asked for again": replace(MARKET, quotes={"AAPL": replace(QUOTE, age_s=299, standing=True)}),
    "such a one that later trades agree with": replace(
        MARKET,
        quotes={"AAPL": replace(QUOTE, age_s=60, standing=True, last_trade=LastTrade(Decimal("100.01"), at(0)))},
    ),
    "such a one long after a trade elsewhere": replace(
        MARKET, quotes={"AAPL": replace(QUOTE, age_s=60, standing=True, last_trade=LastTrade(Decimal(90), at(-400)))}
    ),
    "a bid without an ask": replace(MARKET, quotes={"AAPL": replace(QUOTE, ask=None)}),
}


@pytest.mark.parametrize("market", USABLE.values(), ids=USABLE)
def test_a_quote_is_used(market: Market) -> None:
    decided = planned(pending(), market)
    assert isinstance(decided, Submit)
    assert decided.order.limit_price == Decimal("99.98")


def test_a_standing_quote_of_an_option_may_be_older() -> None:
    occ = "AAPL260619C00190000"
    quote = replace(QUOTE, symbol=occ, bid=Decimal("0.05"), ask=Decimal("0.10"), age_s=3000, standing=True)
    book = pending(asset_type=AssetType.OPTION, symbol=occ, max_slippage_bps=9000)
    decided = planned(book, replace(MARKET, quotes={occ: quote}), symbol=occ)
    assert isinstance(decided, Submit)


WORTH: dict[str, Quote] = {
    "an old quote": replace(QUOTE, age_s=3000),
    "the last trade, without a quote": replace(
        QUOTE, bid=None, ask=None, age_s=86_400.0, last_trade=LastTrade(Decimal("99.98"), at(-3000))
    ),
    "the last trade, where it went through an old quote": replace(
        QUOTE, bid=Decimal(200), ask=Decimal(201), age_s=3000, last_trade=LastTrade(Decimal("99.98"), at(0))
    ),
}


@pytest.mark.parametrize("quote", WORTH.values(), ids=WORTH)
def test_a_market_order_needs_no_fresh_quote_but_something_to_measure_its_worth_by(quote: Quote) -> None:
    market = replace(MARKET, quotes={"AAPL": quote})
    decided = planned(pending(order_type=OrderType.MARKET), market)
    assert isinstance(decided, Submit)
    assert decided.order.limit_price is None
    narrow = replace(CONTROLS, limits=replace(LIMITS, max_order_notional=Decimal(9_997)))
    denied = planned(pending(order_type=OrderType.MARKET), market, narrow)
    assert isinstance(denied, Deny)
    assert denied.code == "over_max_order_notional"
    order = replace(decided.order, quantity=Decimal(100))
    checked = recheck(apply_plan(pending(), REQUEST_ID, Submit(order), now=NOW), order, controls=narrow, now=NOW)
    assert isinstance(checked, Withdraw), "the check before the wire measures it too"


GONE: dict[str, tuple[str, Market, str]] = {
    "an option whose day is over": ("AAPL260227C00190000", MARKET, "instrument_expired"),
    "also while the market is closed": ("AAPL260227C00190000", replace(MARKET, clock=CLOSED), "instrument_expired"),
    "a symbol that the broker does not know": (
        "AAPL260619C00190000",
        replace(MARKET, instruments={"AAPL260619C00190000": Instrument.UNKNOWN}),
        "unknown_symbol",
    ),
    "one that it does not trade any more": (
        "AAPL260619C00190000",
        replace(MARKET, instruments={"AAPL260619C00190000": Instrument.INACTIVE}),
        "instrument_inactive",
    ),
}


@pytest.mark.parametrize(("symbol", "market", "code"), GONE.values(), ids=GONE)
def test_what_cannot_be_traded_any_more_is_denied(symbol: str, market: Market, code: str) -> None:
    decided = planned(pending(asset_type=AssetType.OPTION, symbol=symbol), market, symbol=symbol)
    assert isinstance(decided, Deny)
    assert decided.code == code


@pytest.mark.parametrize("symbol", ["AAPL260302C00190000", "AAPL260303C00190000", "AAPL269999C00190000", "AAPL"])
def test_an_option_of_today_or_of_a_day_that_cannot_be_read_is_not_denied(symbol: str) -> None:
    decided = planned(pending(asset_type=AssetType.OPTION, symbol=symbol), symbol=symbol)
    assert not isinstance(decided, Deny)
