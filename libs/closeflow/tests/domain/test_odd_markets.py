"""Markets that are no markets, and markets that are only just one: stub quotes, one tick, cheap, halted, in rotation.

Everything goes through the planner, as a close does.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from closeflow.domain.close.deferral import Defer
from closeflow.domain.close.plan_order import Asked, Deny, Market, Plan, PlanRules, Submit, apply_plan, plan
from closeflow.domain.close.quotes import QuoteRules
from closeflow.domain.market_data import LastTrade, MarketClock, Quote
from closeflow.domain.model import AssetType, Book, OrderType, RequestStatus, Side
from closeflow.domain.sending.send_check import Clear, Withdraw, recheck
from closeflow.domain.text import decimal_text

from .builders import ACCOUNT, CONTROLS, LIMITS, NOW, REQUEST_ID, a_book, a_position, at

STOCK, OPTION, CRYPTO = AssetType.STOCK, AssetType.OPTION, AssetType.CRYPTO
SELL, BUY = Side.SELL, Side.BUY
OPEN = MarketClock(is_open=True, next_open=at(86_400), at=NOW)
RULES = PlanRules()
WIDE = replace(
    CONTROLS,
    limits=replace(LIMITS, max_order_quantity=Decimal("1e9"), max_order_notional=Decimal("1e12")),
)


def closing(asset: AssetType, side: Side, **changes: Any) -> Book:
    held = 100 if side is SELL else -100
    position = a_position(held, asset_type=asset)
    return a_book(position=position, status=RequestStatus.PENDING, side=side, asset_type=asset, **changes)


def a_quote(bid: str, ask: str, last: str | None = None, *, traded: float = -1) -> Quote:
    return Quote(
        symbol="AAPL",
        bid=Decimal(bid),
        ask=Decimal(ask),
        at=at(-1),
        last_trade=None if last is None else LastTrade(Decimal(last), at(traded)),
    )


def planned(book: Book, quote: Quote | None, *, controls: Any = WIDE, rules: PlanRules = RULES) -> Plan:
    request = book.requests[REQUEST_ID]
    said = Asked(
        close_request_id=REQUEST_ID,
        attempt=request.attempt,
        position_id=41,
        account_id=ACCOUNT,
        symbol="AAPL",
        side=request.side,
    )
    market = Market(clock=OPEN, quotes={} if quote is None else {"AAPL": quote})
    return plan(book, said, controls=controls, market=market, now=NOW, rules=rules)


STUBS: dict[str, tuple[AssetType, str, str, str | None, str]] = {
    "a market maker's placeholder": (STOCK, "0.01", "199999.99", None, "wide_quote"),
    "a placeholder on one side": (STOCK, "99.98", "199999.99", None, "wide_quote"),
    "and on the other": (STOCK, "0.01", "100.02", None, "wide_quote"),
    "an option before its rotation": (OPTION, "0.05", "10.00", None, "wide_quote"),
    "an option with a thin book": (OPTION, "2.00", "9.00", None, "wide_quote"),
    "a coin with a thin book": (CRYPTO, "20000", "60000", None, "wide_quote"),
    "a stock with a thin book": (STOCK, "8.00", "12.00", None, "wide_quote"),
    "a crossed book": (STOCK, "100.02", "99.98", None, "crossed_quote"),
    "narrow, far below where it has just traded": (STOCK, "0.01", "0.02", "100", "quote_off_last_trade"),
    "narrow, far above where it has just traded": (STOCK, "199.98", "200.00", "100", "quote_off_last_trade"),
    "an option ten times its last trade": (OPTION, "9.90", "10.10", "1.00", "quote_off_last_trade"),
    "a coin at half its last trade": (CRYPTO, "30000", "30010", "60000", "quote_off_last_trade"),
}


@pytest.mark.parametrize(("asset", "bid", "ask", "last", "reason"), STUBS.values(), ids=STUBS)
@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("order_type", OrderType)
def test_a_stub_quote_is_no_quote(
    asset: AssetType, bid: str, ask: str, last: str | None, reason: str, side: Side, order_type: OrderType
) -> None:
    decided = planned(closing(asset, side, order_type=order_type), a_quote(bid, ask, last))
    assert isinstance(decided, Defer)
    assert decided.reason == reason


@pytest.mark.parametrize("side", Side)
def test_a_stub_quote_denies_nobody_who_is_within_the_limits(side: Side) -> None:
    """The notional at the stub's ask would be 20 million, which is no reason to give the close up."""
    decided = planned(
        closing(STOCK, side, order_type=OrderType.MARKET), a_quote("0.01", "199999.99"), controls=CONTROLS
    )
    assert isinstance(decided, Defer)


def test_a_trade_of_long_ago_is_no_witness_against_a_fresh_narrow_quote() -> None:
    decided = planned(closing(OPTION, SELL), a_quote("9.90", "10.10", "1.00", traded=-7200))
    assert isinstance(decided, Submit)
    assert decided.order.limit_price == Decimal("9.90")


def test_a_locked_market_has_a_price() -> None:
    decided = planned(closing(STOCK, BUY), a_quote("100", "100", "100"))
    assert isinstance(decided, Submit)
    assert decided.order.limit_price == Decimal(100)


WITNESSES: dict[str, Quote] = {
    "the bid": a_quote("99.98", "100.02"),
    "the last trade, where the quote is a stub": a_quote("0.01", "199999.99", "100"),
    "the last trade, although it is old": a_quote("0.01", "199999.99", "100", traded=-7200),
    "a bid of long ago": replace(a_quote("99.98", "100.02"), age_s=7200.0),
}


@pytest.mark.parametrize("quote", WITNESSES.values(), ids=WITNESSES)
def test_a_sell_far_below_the_market_is_worth_what_the_market_says(quote: Quote) -> None:
    """A limit of a cent would otherwise take a million's worth through an account's limit."""
    small = replace(CONTROLS, limits=replace(LIMITS, max_order_notional=Decimal(5000)))
    decided = planned(closing(STOCK, SELL, limit_price=Decimal("0.01")), quote, controls=small)
    assert isinstance(decided, Deny)
    assert decided.code == "over_max_order_notional"


@pytest.mark.parametrize("quote", [*WITNESSES.values(), None])
def test_a_users_limit_is_sent_whatever_the_quote_says(quote: Quote | None) -> None:
    for side in Side:
        decided = planned(closing(STOCK, side, limit_price=Decimal(101)), quote)
        assert isinstance(decided, Submit)
        assert decided.order.limit_price == Decimal(101)


def with_order(book: Book, decided: Plan) -> Book:
    assert isinstance(decided, Submit)
    return apply_plan(book, REQUEST_ID, decided, now=NOW)


def test_the_check_before_the_wire_measures_a_users_sell_at_the_market_too() -> None:
    book = closing(STOCK, SELL, limit_price=Decimal("0.01"))
    book = with_order(book, planned(book, WITNESSES["the bid"]))
    (order,) = book.orders.values()
    small = replace(CONTROLS, limits=replace(LIMITS, max_order_notional=Decimal(5000)))
    assert isinstance(recheck(book, order, controls=small, now=NOW), Withdraw)
    assert isinstance(recheck(book, order, controls=CONTROLS, now=NOW), Clear)


def test_a_buy_is_worth_its_own_limit_and_no_more() -> None:
    small = replace(CONTROLS, limits=replace(LIMITS, max_order_notional=Decimal(5000)))
    book = closing(STOCK, BUY, limit_price=Decimal(50))
    book = with_order(book, planned(book, a_quote("99.98", "100.02"), controls=small))
    (order,) = book.orders.values()
    assert isinstance(recheck(book, order, controls=small, now=NOW), Clear)


def test_how_wide_a_quote_may_be_is_a_setting() -> None:
    quote = a_quote("90", "110")
    assert isinstance(planned(closing(STOCK, SELL, max_slippage_bps=2000), quote), Defer)
    lax = PlanRules(quote=QuoteRules(max_spread_bps={STOCK: 2500, OPTION: 10_000, CRYPTO: 1000}))
    assert isinstance(planned(closing(STOCK, SELL, max_slippage_bps=2000), quote, rules=lax), Submit)


NARROW: dict[str, tuple[AssetType, str, str, int | None]] = {
    "an option one tick wide": (OPTION, "0.05", "0.06", None),
    "one nickel wide": (OPTION, "0.05", "0.10", None),
    "the cheapest option there is": (OPTION, "0.01", "0.02", None),
    "a few ticks wide": (OPTION, "0.01", "0.05", None),
    "a stock of ten cents": (STOCK, "0.10", "0.11", None),
    "a stock of two cents, one wide": (STOCK, "0.02", "0.03", None),
    "a stock of fractions of a cent": (STOCK, "0.0010", "0.0012", None),
    "the cheapest coin": (CRYPTO, "0.000000010", "0.000000012", None),
    "one tick, which a bound of the user's own would round to nothing": (OPTION, "0.05", "0.06", 100),
    "one cent, with a bound of nothing": (STOCK, "10.00", "10.01", 0),
}


@pytest.mark.parametrize(("asset", "bid", "ask", "bps"), NARROW.values(), ids=NARROW)
@pytest.mark.parametrize("side", Side)
def test_a_market_a_few_ticks_wide_is_reached(
    asset: AssetType, bid: str, ask: str, bps: int | None, side: Side
) -> None:
    decided = planned(closing(asset, side, max_slippage_bps=bps), a_quote(bid, ask))
    assert isinstance(decided, Submit)
    assert decided.order.limit_price == Decimal(bid if side is SELL else ask)


FORBIDDEN: dict[str, tuple[AssetType, str, str, int | None]] = {
    "a stock six per cent wide": (STOCK, "97", "103", None),
    "an option sixty per cent wide": (OPTION, "1.40", "2.60", None),
    "a coin eight per cent wide": (CRYPTO, "96", "104", None),
    "a bound of the user's own": (STOCK, "99.90", "100.10", 5),
    "a bound of nothing": (STOCK, "99.98", "100.02", 0),
}


@pytest.mark.parametrize(("asset", "bid", "ask", "bps"), FORBIDDEN.values(), ids=FORBIDDEN)
@pytest.mark.parametrize("side", Side)
def test_a_bound_that_forbids_the_touch_is_told_at_once(
    asset: AssetType, bid: str, ask: str, bps: int | None, side: Side
) -> None:
    decided = planned(closing(asset, side, max_slippage_bps=bps), a_quote(bid, ask))
    assert isinstance(decided, Deny)
    assert decided.code == "touch_beyond_slippage"
    assert f"{decimal_text(Decimal(bid))} × {decimal_text(Decimal(ask))}" in decided.detail


def test_without_a_bound_the_touch_is_reached_however_wide() -> None:
    decided = planned(closing(STOCK, SELL, max_slippage_bps=10_000), a_quote("97", "103"))
    assert isinstance(decided, Submit)
    assert decided.order.limit_price == Decimal(97)


def test_a_price_below_one_tick_cannot_be_reached() -> None:
    assert isinstance(planned(closing(OPTION, SELL), a_quote("0.001", "0.01")), Deny)
