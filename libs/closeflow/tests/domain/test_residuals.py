"""What is below the smallest lot cannot be traded: it is not owed, no target, and keeps no position open."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest

from closeflow.domain.close.accept import Accepted, CloseCommand, FieldInvalid, ZeroQuantity, accept_close
from closeflow.domain.close.due_requests import wake
from closeflow.domain.close.moves import Moved
from closeflow.domain.close.outcome import Concluded, conclude
from closeflow.domain.close.plan_order import Asked, Market, PlanRules, Submit, plan
from closeflow.domain.market_data import MarketClock, Quote
from closeflow.domain.model import AssetType, Book, PositionStatus, RejectClass, RequestStatus, Side, StatementKind
from closeflow.domain.orders import status as order_status
from closeflow.domain.position import exposure
from closeflow.domain.position.compare_with_broker import Compared, compare
from closeflow.domain.reasons import BELOW_MINIMUM_NOTIONAL
from closeflow.domain.trading_controls import TradingState

from .builders import (
    ACCOUNT,
    CONTROLS,
    NOW,
    POLICY,
    REQUEST_ID,
    a_book,
    a_position,
    a_request,
    a_statement,
    an_execution,
    an_order,
    at,
    refused,
    settled_once,
)

STOCK, OPTION, CRYPTO = AssetType.STOCK, AssetType.OPTION, AssetType.CRYPTO
DUST = Decimal("0.0000000005")


def held(asset: AssetType, quantity: str, **changes: Any) -> Book:
    """An open position that nobody closes yet."""
    amount = Decimal(quantity)
    changes = {"status": PositionStatus.OPEN, "active_close_request_id": None, **changes}
    position = a_position(asset_type=asset, **changes)
    position = replace(position, opening_quantity=amount, quantity=amount)
    return Book(position=position, base_quantity=amount, ledger_quantity=amount)


def closing(asset: AssetType, quantity: str, *, target: str, status: RequestStatus = RequestStatus.PENDING) -> Book:
    request = a_request(
        status=status,
        asset_type=asset,
        target_quantity=Decimal(target),
        side=Side.SELL if Decimal(quantity) > 0 else Side.BUY,
    )
    book = held(asset, quantity, status=PositionStatus.CLOSING, active_close_request_id=REQUEST_ID)
    return replace(book, requests={REQUEST_ID: request})


TARGETS: dict[str, tuple[AssetType, str, str]] = {
    "a stock after a fill of ten digits": (STOCK, "66.6666666665", "66.666666666"),
    "a coin": (CRYPTO, "0.12345678912", "0.123456789"),
    "a short one": (STOCK, "-1.0000000005", "1"),
    "contracts and a half": (OPTION, "2.5", "2"),
    "what can be traded as it is": (STOCK, "0.000000001", "0.000000001"),
}


@pytest.mark.parametrize(("asset", "quantity", "target"), TARGETS.values(), ids=TARGETS)
def test_a_default_close_is_for_what_can_be_traded(asset: AssetType, quantity: str, target: str) -> None:
    command = CloseCommand(request_id=uuid4(), position_id=41, idempotency_key="k", requested_by="desk")
    decided = accept_close(held(asset, quantity), command, None, trading=TradingState.ACTIVE, now=NOW)
    assert isinstance(decided, Accepted)
    assert decided.request.target_quantity == Decimal(target)


def test_what_is_below_a_lot_cannot_be_closed() -> None:
    command = CloseCommand(request_id=uuid4(), position_id=41, idempotency_key="k", requested_by="desk")
    decided = accept_close(held(OPTION, "0.5"), command, None, trading=TradingState.ACTIVE, now=NOW)
    assert isinstance(decided, ZeroQuantity)
    exact = replace(command, quantity=Decimal("1.0000000005"))
    decided = accept_close(held(STOCK, "1.0000000005"), exact, None, trading=TradingState.ACTIVE, now=NOW)
    assert isinstance(decided, FieldInvalid)


@pytest.mark.parametrize(("asset", "quantity", "target"), TARGETS.values(), ids=TARGETS)
def test_what_is_owed_can_be_traded(asset: AssetType, quantity: str, target: str) -> None:
    book = closing(asset, quantity, target=str(abs(Decimal(quantity))))
    request = book.requests[REQUEST_ID]
    assert exposure.owed(book, request) == Decimal(target)
    said = Asked(
        close_request_id=REQUEST_ID, attempt=1, position_id=41, account_id=ACCOUNT, symbol="AAPL", side=request.side
    )
    quote = Quote(symbol="AAPL", bid=Decimal("9.99"), ask=Decimal("10.00"), at=at(-1))
    market = Market(clock=MarketClock(is_open=True, next_open=at(1), at=NOW), quotes={"AAPL": quote})
    decided = plan(book, said, controls=CONTROLS, market=market, now=NOW, rules=PlanRules())
    assert isinstance(decided, Submit)
    assert decided.order.quantity == Decimal(target)


def filled_to(asset: AssetType, opened: str, executed: str, *, target: str) -> Book:
    """A book whose only order is filled, with the position as it was before the fill."""
    fill = replace(an_execution("e1", 1), quantity=Decimal(executed), cum_quantity=Decimal(executed))
    stated = replace(a_statement(StatementKind.FILLED, 9), cum_quantity=Decimal(executed))
    order = replace(an_order(), quantity=Decimal(executed), executions=(fill,), statements=(stated,))
    book = closing(asset, opened, target=target, status=RequestStatus.SUBMITTED)
    return replace(
        book,
        ledger_quantity=Decimal(opened) - Decimal(executed),
        orders={order.client_order_id: order_status.derive(order)},
    )


ENDS: dict[str, tuple[AssetType, str, str, str]] = {
    "the target was what could be traded": (STOCK, "66.6666666665", "66.666666666", "66.666666666"),
    "the target was all of it": (STOCK, "66.6666666665", "66.666666666", "66.6666666665"),
    "half a contract": (OPTION, "2.5", "2", "2"),
    "a coin": (CRYPTO, "0.12345678912", "0.123456789", "0.123456789"),
}


@pytest.mark.parametrize(("asset", "opened", "executed", "target"), ENDS.values(), ids=ENDS)
def test_a_residual_ends_the_position(asset: AssetType, opened: str, executed: str, target: str) -> None:
    concluded = settled_once(filled_to(asset, opened, executed, target=target))
    request, position = concluded.book.requests[REQUEST_ID], concluded.book.position
    assert (request.status, request.reason) == (RequestStatus.COMPLETED, "residual_below_lot")
    assert (position.status, position.active_close_request_id) == (PositionStatus.CLOSED, None)
    assert position.quantity == Decimal(opened) - Decimal(executed), "what is left is still told"
    assert position.closed_at is not None
    assert [event.event_type for event in concluded.events] == ["POSITION_CLOSED"]
    again = conclude(concluded.book, concluded.book, now=NOW, policy=POLICY)
    assert (again.book, again.events, again.incidents) == (concluded.book, (), ())


def test_a_close_that_leaves_a_lot_leaves_the_position_open() -> None:
    concluded = settled_once(filled_to(STOCK, "2.000000001", "2", target="2"))
    request = concluded.book.requests[REQUEST_ID]
    assert (request.status, request.reason) == (RequestStatus.COMPLETED, None)
    assert concluded.book.position.status is PositionStatus.OPEN


def test_a_close_whose_position_shrank_to_a_residual_is_over() -> None:
    """Rule Q: an adjustment or somebody else's fill left nothing that could be ordered."""
    book = closing(STOCK, str(DUST), target="1")
    moved = wake(
        book, book.requests[REQUEST_ID], now=NOW, resend_after=timedelta(0), unknown_after=timedelta(minutes=1)
    )
    assert isinstance(moved, Moved)
    assert moved.book.requests[REQUEST_ID].status is RequestStatus.COMPLETED
    assert moved.book.position.status is PositionStatus.CLOSED
    concluded = conclude(book, book, now=NOW, policy=POLICY).book
    assert (concluded.requests[REQUEST_ID].status, concluded.position.status) == (
        RequestStatus.COMPLETED,
        PositionStatus.CLOSED,
    )


def test_an_adjustment_to_a_residual_closes_a_position_that_nobody_closes() -> None:
    book = held(STOCK, str(DUST))
    assert conclude(book, book, now=NOW, policy=POLICY).book.position.status is PositionStatus.CLOSED


def test_what_the_broker_takes_back_opens_it_again() -> None:
    closed = settled_once(filled_to(STOCK, "66.6666666665", "66.666666666", target="66.666666666")).book
    taken_back = replace(closed, ledger_quantity=closed.ledger_quantity + 40)
    reopened = conclude(closed, taken_back, now=NOW, policy=POLICY).book.position
    assert (reopened.status, reopened.quantity) == (PositionStatus.OPEN, 40 + DUST)


def test_less_than_any_lot_is_no_difference_to_the_broker() -> None:
    """Who tells nine digits holds no less than who tells ten."""
    last = Compared(differing={"A": (Decimal("1.0000000005"), Decimal(1))})
    found = compare({"A": Decimal("1.0000000005")}, {"A": Decimal(1)}, known={"A"}, last=last)
    assert (found.confirmed, found.equal) == ({}, {"A"})
    found = compare({"A": Decimal(2)}, {"A": Decimal("1.999999999")}, known={"A"}, last=last)
    assert found.differing


def test_an_unfinished_order_keeps_a_residual_open_until_it_is_over() -> None:
    book = closing(STOCK, str(DUST), target="1", status=RequestStatus.SUBMITTED)
    working = an_order(1, statements=(a_statement(StatementKind.NEW, 1, 0),))
    book = replace(book, orders={working.client_order_id: working})
    concluded = conclude(book, book, now=NOW, policy=POLICY).book
    assert concluded.requests[REQUEST_ID].status is RequestStatus.SUBMITTED
    assert concluded.position.status is PositionStatus.CLOSING


def refused_as_too_small(**changes: Any) -> Concluded:
    order = refused(100, reject_class=RejectClass.TERMINAL, reject_code=BELOW_MINIMUM_NOTIONAL, **changes)
    book = a_book(order, status=RequestStatus.SUBMITTED)
    return conclude(book, book, now=NOW, policy=POLICY)


@pytest.mark.parametrize(
    "price",
    [
        {"limit_price": Decimal("1.01")},
        {"limit_price": None, "quote": {"ask": "1.01"}},
        {"limit_price": None, "quote": {"bid": "1.01"}},
        {"limit_price": None},
    ],
)
def test_what_is_worth_more_than_dust_or_has_no_price_is_not_left_as_dust(price: dict[str, Any]) -> None:
    concluded = refused_as_too_small(**price)
    request = concluded.book.requests[REQUEST_ID]
    assert (request.status, request.reason) == (RequestStatus.FAILED, BELOW_MINIMUM_NOTIONAL)
    assert [one.kind for one in concluded.incidents] == ["minimum_doubted"]
    again = conclude(concluded.book, concluded.book, now=NOW, policy=POLICY)
    assert again.incidents == ()


def test_dust_by_its_price_is_left() -> None:
    concluded = refused_as_too_small(limit_price=None, quote={"bid": "0.5", "ask": "1"})
    assert concluded.book.requests[REQUEST_ID].status is RequestStatus.COMPLETED
    assert concluded.incidents == ()
