"""Which prices of an instrument are legal, and what is tried after the broker refused one for its increment."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from closeflow.domain.close import due_requests, moves
from closeflow.domain.close.plan_order import Asked, Deny, Market, Plan, PlanRules, Submit, plan, plan_incident
from closeflow.domain.close.ticks import (
    CENT,
    CLASSES,
    NICKEL,
    PENNY,
    TICKS,
    Grid,
    grid_of,
    is_doubted,
    read_grids,
    tick_above,
    tick_below,
    tick_size,
)
from closeflow.domain.close.ticks import COARSER as COARSER_GRIDS
from closeflow.domain.market_data import MarketClock, Quote
from closeflow.domain.model import (
    AssetType,
    Book,
    Order,
    OrderStatus,
    OrderType,
    RejectClass,
    RequestStatus,
    SendAnswer,
    Side,
    StatementKind,
)

from .builders import (
    ACCOUNT,
    CONTROLS,
    NOW,
    REQUEST_ID,
    a_book,
    a_position,
    a_send,
    a_statement,
    an_order,
    at,
    settled_once,
)

STOCK, OPTION, CRYPTO = AssetType.STOCK, AssetType.OPTION, AssetType.CRYPTO
SELL, BUY = Side.SELL, Side.BUY
SAID = "42210000: invalid limit_price 2.43. sub-penny increment does not fulfill minimum pricing criteria"
KNOWN = {"SPY": CENT, "XYZ": NICKEL, "BTC/USD": ((Decimal(0), Decimal(1)),)}

GRIDS: dict[str, tuple[AssetType, str, Grid]] = {
    "an option of a root that is set": (OPTION, "SPY261218C00600000", CENT),
    "another": (OPTION, "XYZ261218P00005000", NICKEL),
    "an option of any other root": (OPTION, "SPYX261218C00600000", PENNY),
    "a stock of that name too, by its symbol": (STOCK, "SPY", CENT),
    "any other stock": (STOCK, "AAPL", TICKS[STOCK]),
    "a pair that is set": (CRYPTO, "BTC/USD", ((Decimal(0), Decimal(1)),)),
    "any other pair": (CRYPTO, "ETH/USD", TICKS[CRYPTO]),
}


@pytest.mark.parametrize(("asset", "symbol", "grid"), GRIDS.values(), ids=GRIDS)
def test_an_instruments_increments(asset: AssetType, symbol: str, grid: Grid) -> None:
    assert grid_of(asset, symbol, KNOWN) == grid


@pytest.mark.parametrize(
    ("grid", "price", "below", "above"),
    [
        (NICKEL, "2.97", "2.95", "3.00"),
        (NICKEL, "3.04", "3.00", "3.10"),
        (PENNY, "3.04", "3.00", "3.05"),
        (CENT, "3.04", "3.04", "3.04"),
        (NICKEL, "0.04", "0.00", "0.05"),
    ],
)
def test_the_legal_prices_beside_a_price(grid: Grid, price: str, below: str, above: str) -> None:
    assert (tick_below(grid, Decimal(price)), tick_above(grid, Decimal(price))) == (Decimal(below), Decimal(above))


def test_increments_are_set_by_symbol_or_root() -> None:
    assert read_grids("SPY=cent, XYZ = Nickel,BTC/USD=1,") == KNOWN
    assert read_grids("") == {}


@pytest.mark.parametrize("text", ["SPY", "SPY=", "=cent", "SPY=dime", "SPY=0", "SPY=-1", "SPY=1e3", "A=1,A=2"])
def test_increments_that_cannot_be_read_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="SYMBOL"):
        read_grids(text)


def refused_for_increment(attempt: int = 1, said: str = SAID, **changes: Any) -> Order:
    return an_order(
        attempt=attempt,
        statements=(replace(a_statement(StatementKind.REFUSED), detail=said),),
        sends=(a_send(SendAnswer.REJECTED),),
        reject_code="bad_increment",
        reject_class=RejectClass.RETRYABLE,
        **changes,
    )


def closing(*orders: Order, asset: AssetType = OPTION, side: Side = SELL, **changes: Any) -> Book:
    return a_book(
        *orders,
        position=a_position(100 if side is SELL else -100, asset_type=asset),
        side=side,
        asset_type=asset,
        **{"status": RequestStatus.PENDING, "attempt": len(orders) + 1, **changes},
    )


def limit_of(book: Book, bid: str, ask: str) -> Decimal | None:
    decided = planned(book, bid, ask)
    assert isinstance(decided, Submit), decided
    return decided.order.limit_price


def planned(book: Book, bid: str, ask: str) -> Plan:
    request = book.requests[REQUEST_ID]
    said = Asked(
        close_request_id=REQUEST_ID,
        attempt=request.attempt,
        position_id=41,
        account_id=ACCOUNT,
        symbol="AAPL",
        side=request.side,
    )
    quote = Quote(symbol="AAPL", bid=Decimal(bid), ask=Decimal(ask), at=at(-1))
    market = Market(clock=MarketClock(is_open=True, next_open=at(1), at=NOW), quotes={"AAPL": quote})
    return plan(book, said, controls=CONTROLS, market=market, now=NOW, rules=PlanRules())


COARSER: dict[str, tuple[AssetType, Side, str, str, str, str]] = {
    "an option in nickels": (OPTION, SELL, "2.43", "2.47", SAID, "2.40"),
    "bought": (OPTION, BUY, "2.43", "2.47", SAID, "2.50"),
    "in dimes from three on": (OPTION, SELL, "5.05", "5.15", SAID, "5.00"),
    "the broker says which": (OPTION, SELL, "5.05", "5.15", "must be in increments of $0.25", "5.00"),
    "or how many places": (CRYPTO, SELL, "1.234567", "1.235567", "limited to 2 decimal places", "1.23"),
    "a stock in cents": (STOCK, SELL, "0.5137", "0.5140", SAID, "0.51"),
    "a stock in nickels": (STOCK, BUY, "100.01", "100.03", SAID, "100.05"),
    "a coin in whole dollars": (CRYPTO, SELL, "6000.55", "6001.55", SAID, "6000"),
    "a coin of some dollars": (CRYPTO, BUY, "25.551", "25.561", SAID, "25.6"),
    "a coin of some cents": (CRYPTO, SELL, "0.031234", "0.031244", SAID, "0.0312"),
    "a coin of next to nothing": (CRYPTO, BUY, "0.000012341", "0.000012342", SAID, "0.00001235"),
}


@pytest.mark.parametrize(("asset", "side", "bid", "ask", "said", "price"), COARSER.values(), ids=COARSER)
def test_after_a_refusal_for_the_increment_the_coarser_grid_is_tried(
    asset: AssetType, side: Side, bid: str, ask: str, said: str, price: str
) -> None:
    book = closing(refused_for_increment(said=said), asset=asset, side=side)
    assert limit_of(book, bid, ask) == Decimal(price)


def test_a_users_limit_goes_onto_the_coarser_grid_and_is_not_made_worse() -> None:
    assert limit_of(closing(refused_for_increment(), limit_price=Decimal("2.42")), "2.40", "2.45") == Decimal("2.45")


DOUBTED: dict[str, tuple[AssetType, Side, str, str, str, dict[str, Any]]] = {
    "a lot is no increment of a price": (STOCK, BUY, "52.00", "52.02", "qty must be a multiple of 100", {}),
    "sold": (STOCK, SELL, "52.00", "52.02", "must be a multiple of 100", {}),
    "with a bound of its own": (STOCK, BUY, "52.00", "52.02", "multiple of 100", {"max_slippage_bps": 50}),
    "dollars on a stock of some": (STOCK, BUY, "52.00", "52.02", "increments of $1", {}),
    "an option's multiplier": (OPTION, BUY, "5.05", "5.15", "must be a multiple of 100", {}),
    "places of another pair": (CRYPTO, SELL, "0.123456", "0.123556", "limited to 0 decimal places", {}),
    "a limit of the user's own": (STOCK, SELL, "51.90", "51.95", "multiple of 100", {"limit_price": Decimal(52)}),
    "the same, bought": (STOCK, BUY, "51.90", "51.95", "multiple of 100", {"limit_price": Decimal(52)}),
}


@pytest.mark.parametrize(("asset", "side", "bid", "ask", "said", "more"), DOUBTED.values(), ids=DOUBTED)
def test_an_increment_far_above_what_the_market_allows_ends_the_close_and_is_told(
    asset: AssetType, side: Side, bid: str, ask: str, said: str, more: dict[str, Any]
) -> None:
    book = closing(refused_for_increment(said=said), asset=asset, side=side, **more)
    decided = planned(book, bid, ask)
    assert isinstance(decided, Deny), decided
    assert decided.code == "increment_doubted"
    assert said in decided.detail
    incident = plan_incident(book.requests[REQUEST_ID], decided)
    assert incident is not None
    assert (incident.kind, incident.severity) == ("increment_doubted", "critical")


def test_an_increment_does_not_matter_to_a_market_order() -> None:
    book = closing(refused_for_increment(said="a multiple of 100"), asset=STOCK, order_type=OrderType.MARKET)
    assert limit_of(book, "52.00", "52.02") is None


@pytest.mark.parametrize("asset", list(AssetType))
def test_the_coarser_grid_of_an_asset_type_is_never_doubted(asset: AssetType) -> None:
    for price in ("0.00001", "0.01", "0.07", "1", "2.99", "3", "10", "99", "1000"):
        assert not is_doubted(COARSER_GRIDS[asset], asset, Decimal(price))


@pytest.mark.parametrize("price", ["0.000001", "0.0001", "0.0123", "1", "9.99", "10", "999", "1000"])
def test_a_coin_is_never_rounded_by_more_than_a_hundredth(price: str) -> None:
    assert tick_size(COARSER_GRIDS[CRYPTO], Decimal(price)) <= Decimal(price) / 100


def test_it_has_not_tried_its_rung() -> None:
    assert limit_of(closing(refused_for_increment()), "2.40", "2.45") == Decimal("2.40")


def test_later_rungs_stay_on_the_coarser_grid() -> None:
    later = an_order(attempt=2, statements=(a_statement(StatementKind.CANCELED, 9, 0),))
    price = limit_of(closing(refused_for_increment(), later), "2.40", "2.45")
    assert price is not None
    assert price < Decimal("2.40")
    assert price % Decimal("0.05") == 0


def test_the_coarser_grid_is_tried_once_and_costs_no_retry() -> None:
    book = closing(refused_for_increment(), status=RequestStatus.SUBMITTED, attempt=1, retry_count=3)
    request = settled_once(book).book.requests[REQUEST_ID]
    assert (request.status, request.reason) == (RequestStatus.RETRYABLE, "bad_increment")
    due = replace(book, requests={REQUEST_ID: replace(request, next_attempt_at=None)})
    moved = due_requests.wake(
        due, due.requests[REQUEST_ID], now=NOW, resend_after=timedelta(1), unknown_after=timedelta(1)
    )
    assert isinstance(moved, moves.Moved)
    assert (moved.book.requests[REQUEST_ID].attempt, moved.book.requests[REQUEST_ID].retry_count) == (2, 3)


def test_a_second_refusal_for_the_increment_ends_the_close() -> None:
    book = closing(refused_for_increment(), refused_for_increment(2), status=RequestStatus.SUBMITTED, attempt=2)
    request = settled_once(book).book.requests[REQUEST_ID]
    assert (request.status, request.reason) == (RequestStatus.FAILED, "bad_increment")


def test_an_order_after_it_that_was_not_filled_is_judged_as_any_other() -> None:
    other = an_order(attempt=2, status=OrderStatus.PLANNED, statements=(a_statement(StatementKind.CANCELED, 9, 0),))
    book = closing(refused_for_increment(), other, status=RequestStatus.SUBMITTED, attempt=2, retry_count=3)
    assert settled_once(book).book.requests[REQUEST_ID].reason == "retries_exhausted"


def test_every_class_is_coarser_than_the_one_before_it() -> None:
    assert list(CLASSES.values()) == [CENT, PENNY, NICKEL]
