"""From quotes to limit prices, ticks, lots and times in force."""

from __future__ import annotations

from decimal import Decimal

import pytest

from closeflow.domain import lots
from closeflow.domain.close import pricing, quotes
from closeflow.domain.close.ticks import TICKS
from closeflow.domain.market_data import Quote
from closeflow.domain.model import AssetType, Side, TimeInForce

from .builders import NOW

STOCK, OPTION, CRYPTO = AssetType.STOCK, AssetType.OPTION, AssetType.CRYPTO
SELL, BUY = Side.SELL, Side.BUY


def a_quote(bid: str, ask: str) -> Quote:
    return Quote(symbol="AAPL", bid=Decimal(bid), ask=Decimal(ask), at=NOW)


def first_rung(asset: AssetType, side: Side, quote: Quote, bps: int | None) -> Decimal | quotes.Unpriced | None:
    priced = pricing.ladder_price(asset, side, quote, bps, rung=1, rungs=4)
    return priced.limit if isinstance(priced, pricing.Priced) else priced


def one_side(bid: str | None, ask: str | None) -> Quote:
    sides = [None if one is None else Decimal(one) for one in (bid, ask)]
    return Quote(symbol="AAPL", bid=sides[0], ask=sides[1], at=NOW)


ONE_SIDED = {
    "a sell needs a bid only": (SELL, one_side("1.00", None), "1.00"),
    "a buy needs an ask only": (BUY, one_side(None, "0.05"), "0.05"),
    "a sell without a bid has no price": (SELL, one_side(None, "0.05"), quotes.Unpriced("no_bid")),
    "a buy without an ask has no price": (BUY, one_side("1.00", None), quotes.Unpriced("no_ask")),
}


@pytest.mark.parametrize(("side", "quote", "price"), ONE_SIDED.values(), ids=ONE_SIDED)
def test_a_quote_of_one_side_is_enough_for_who_needs_that_side(
    side: Side, quote: Quote, price: str | quotes.Unpriced
) -> None:
    expected = Decimal(price) if isinstance(price, str) else price
    assert first_rung(OPTION, side, quote, None) == expected
    market = pricing.at_market(side, quote)
    assert market == (pricing.Priced(None, expected) if isinstance(expected, Decimal) else expected)


NEAR_TOUCH = {
    "a sell is at the bid": (STOCK, SELL, "99.98", "100.02", None, "99.98"),
    "a buy is at the ask": (STOCK, BUY, "99.98", "100.02", None, "100.02"),
    "a sell is never worse than the bound below mid": (STOCK, SELL, "90", "110", 100, None),
    "a buy is never worse than the bound above mid": (STOCK, BUY, "90", "110", 100, None),
    "without a bound of its own a stock may slip 2 %": (STOCK, SELL, "98", "102", None, "98.00"),
    "and no more": (STOCK, SELL, "97.99", "102.01", None, None),
    "without a bound of its own an option may slip 20 %": (OPTION, SELL, "1.60", "2.40", None, "1.60"),
    "and no more than that": (OPTION, SELL, "1.00", "3.00", None, None),
    "without a bound of its own crypto may slip 3 %": (CRYPTO, BUY, "97", "103", None, "103.00"),
    "and not a cent more": (CRYPTO, BUY, "96.99", "103.01", None, None),
    "a bound of 0 means mid": (STOCK, SELL, "99.98", "100.02", 0, None),
    "a sell's bound rounds up, so that it holds": (STOCK, SELL, "99.90", "100.11", 1, None),
    "a buy's bound rounds down, so that it holds": (STOCK, BUY, "99.90", "100.11", 1, None),
    "a bid off the tick rounds down, to reach it": (STOCK, SELL, "99.987", "100.02", None, "99.98"),
    "an ask off the tick rounds up, to reach it": (STOCK, BUY, "99.98", "100.013", None, "100.02"),
    "stock below a dollar moves by 0.0001": (STOCK, SELL, "0.51237", "0.5124", None, "0.5123"),
    "an option from 3 on moves by 0.05": (OPTION, SELL, "5.03", "5.10", None, "5.00"),
    "an option below 3 moves by 0.01": (OPTION, BUY, "2.43", "2.47", None, "2.47"),
    "cheap crypto moves by 0.000001": (CRYPTO, SELL, "0.1234567", "0.1234667", None, "0.123456"),
    "the cheapest crypto moves by 0.000000001": (CRYPTO, SELL, "0.0000123456", "0.0000123457", None, "0.000012345"),
    "a locked quote has a price": (STOCK, BUY, "100", "100", 0, "100"),
}


@pytest.mark.parametrize(("asset", "side", "bid", "ask", "bps", "price"), NEAR_TOUCH.values(), ids=NEAR_TOUCH)
def test_near_touch(asset: AssetType, side: Side, bid: str, ask: str, bps: int | None, price: str | None) -> None:
    """None where the bound forbids the touch: a limit at the bound could only stand and wait."""
    expected = quotes.Unpriced("touch_beyond_slippage") if price is None else Decimal(price)
    assert first_rung(asset, side, a_quote(bid, ask), bps) == expected


def test_a_crossed_quote_is_no_price() -> None:
    assert first_rung(STOCK, SELL, a_quote("100.02", "99.98"), None) == quotes.Unpriced("crossed_quote")


def test_what_is_below_one_tick_has_no_price_for_a_sell_and_one_tick_for_a_buy() -> None:
    quote = a_quote("0.001", "0.01")
    assert first_rung(OPTION, SELL, quote, 10) == quotes.Unpriced("touch_beyond_slippage")
    assert first_rung(OPTION, BUY, quote, 10) == Decimal("0.01")


USERS_LIMIT = {
    "on the tick it is as asked": (STOCK, SELL, "100.01", "100.01"),
    "a sell rounds up": (STOCK, SELL, "100.001", "100.01"),
    "a buy rounds down": (STOCK, BUY, "100.009", "100.00"),
    "an option's sell rounds up to five cents": (OPTION, SELL, "5.01", "5.05"),
}


@pytest.mark.parametrize(("asset", "side", "asked", "price"), USERS_LIMIT.values(), ids=USERS_LIMIT)
def test_the_users_limit_is_never_made_worse(asset: AssetType, side: Side, asked: str, price: str) -> None:
    limit = Decimal(price)
    assert pricing.users_limit(side, Decimal(asked), TICKS[asset]) == pricing.Priced(limit, limit)


def test_a_buy_limit_below_one_tick_is_none() -> None:
    assert isinstance(pricing.users_limit(BUY, Decimal("0.001"), TICKS[OPTION]), quotes.Unpriced)


LOTS = {
    "a share": (STOCK, "1", "1"),
    "a billionth of a share": (STOCK, "0.000000001", "0.000000001"),
    "less than that": (STOCK, "0.0000000005", "0"),
    "contracts": (OPTION, "-3", "3"),
    "half a contract": (OPTION, "0.5", "0"),
    "nothing": (STOCK, "0", "0"),
    "a part of a coin": (CRYPTO, "0.25", "0.25"),
}


@pytest.mark.parametrize(("asset", "quantity", "most"), LOTS.values(), ids=LOTS)
def test_lots(asset: AssetType, quantity: str, most: str) -> None:
    assert lots.tradable(asset, Decimal(quantity)) == Decimal(most)


TIMES = {
    "whole shares as asked": (STOCK, "10", TimeInForce.GTC, TimeInForce.GTC),
    "fractional shares for the day only": (STOCK, "10.5", TimeInForce.GTC, TimeInForce.DAY),
    "options for the day only": (OPTION, "1", TimeInForce.GTC, TimeInForce.DAY),
    "crypto has no day": (CRYPTO, "1", TimeInForce.DAY, TimeInForce.GTC),
    "crypto may be immediate": (CRYPTO, "1", TimeInForce.IOC, TimeInForce.IOC),
}


@pytest.mark.parametrize(("asset", "quantity", "asked", "given"), TIMES.values(), ids=TIMES)
def test_times_in_force(asset: AssetType, quantity: str, asked: TimeInForce, given: TimeInForce) -> None:
    assert pricing.time_in_force(asset, Decimal(quantity), asked) is given


def test_only_crypto_trades_when_the_market_is_closed() -> None:
    assert [asset for asset in AssetType if not pricing.market_hours(asset)] == [CRYPTO]
