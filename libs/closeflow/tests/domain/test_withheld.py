"""A trade that nobody can tell from one that is booked, on an order that is over: it holds the position as a gap."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from functools import partial

import pytest

from closeflow.domain.close.deferral import Defer
from closeflow.domain.close.due_requests import wake
from closeflow.domain.close.moves import Waits
from closeflow.domain.close.plan_order import Asked, Market, PlanRules, plan
from closeflow.domain.model import Book, BrokerStatus, BrokerUpdate, ExecType, Order, RequestStatus, Side, UpdateSource
from closeflow.domain.operator.adjust import Fill, end_order, name_fill
from closeflow.domain.operator.requests import Done, Outcome, Refused, abandon
from closeflow.domain.orders import status as order_status
from closeflow.domain.position import exposure
from closeflow.domain.sending.send_check import Hold, recheck

from .builders import (
    ACCOUNT,
    BROKER,
    CONTROLS,
    NOW,
    REQUEST_ID,
    a_book,
    a_trade,
    an_order,
    an_update,
    at,
    book_after,
    working,
)

B, E = BrokerStatus, ExecType
STREAMED = a_trade("s1", 40, 40, order_status=B.PARTIALLY_FILLED, seq=2)
CANCELED = an_update(E.CANCELED, B.CANCELED, cum=40, seq=3, transact_time=at(9))
OTHER_PRICE = a_trade("a1", 40, 40, source=UpdateSource.BACKFILL, last_price=Decimal("10.01"))
OTHER_QUANTITY = a_trade("a1", 39, 40, source=UpdateSource.BACKFILL)
MINUTE = timedelta(minutes=1)
TEN = Decimal(10)


def told(*updates: BrokerUpdate) -> Book:
    book = a_book(working())
    for update in updates:
        book, _ = book_after(book, update)
    return book


def state(book: Book) -> tuple[str, str, bool]:
    return book.position.status.value, book.requests[REQUEST_ID].status.value, exposure.is_clear(book)


def order_of(book: Book) -> Order:
    return book.orders_of(REQUEST_ID)[0]


def as_(book: Book, status: RequestStatus, *orders: Order) -> Book:
    """The book with its request in another status, and further orders."""
    request = replace(book.requests[REQUEST_ID], status=status)
    return replace(
        book,
        requests={REQUEST_ID: request},
        orders={**book.orders, **{one.client_order_id: one for one in orders}},
    )


def woken(book: Book) -> object:
    later = at(3600)
    return wake(book, book.requests[REQUEST_ID], now=later, resend_after=MINUTE, unknown_after=MINUTE)


UNCLEAR = told(STREAMED, OTHER_PRICE, CANCELED)


@pytest.mark.parametrize("trade", [OTHER_PRICE, OTHER_QUANTITY], ids=["another price", "another quantity"])
def test_a_close_goes_on_only_when_it_is_clear_what_the_trade_was(trade: BrokerUpdate) -> None:
    assert state(told(STREAMED, CANCELED)) == ("close_retryable", "retryable", True)
    book = told(STREAMED, trade, CANCELED)
    assert order_status.unattributed(order_of(book)) == 0
    assert state(book) == ("closing", "submitted", False)


def test_a_retry_waits_where_the_trade_is_told_after_the_end() -> None:
    book = told(STREAMED, CANCELED, OTHER_PRICE)
    assert state(book) == ("close_retryable", "retryable", False)
    assert woken(book) == Waits("not clear")


def test_nothing_is_planned_nor_sent_while_it_is_not_clear() -> None:
    asked = Asked(
        close_request_id=REQUEST_ID, attempt=2, position_id=41, account_id=ACCOUNT, symbol="AAPL", side=Side.SELL
    )
    pending = as_(UNCLEAR, RequestStatus.PENDING)
    pending = replace(pending, requests={REQUEST_ID: replace(pending.requests[REQUEST_ID], attempt=2)})
    decided = plan(pending, asked, controls=CONTROLS, market=Market(), now=NOW, rules=PlanRules())
    assert isinstance(decided, Defer)
    assert decided.reason == "fills_not_named"
    second = an_order(60, attempt=2, sends=())
    book = as_(UNCLEAR, RequestStatus.SUBMITTED, second)
    book = replace(book, requests={REQUEST_ID: replace(book.requests[REQUEST_ID], attempt=2)})
    assert recheck(book, second, controls=CONTROLS, now=NOW) == Hold("fills_not_named")


def test_an_order_that_works_has_room_for_it_and_fails_nothing() -> None:
    book = told(STREAMED, OTHER_PRICE)
    assert order_of(book).withheld
    assert order_status.unclear_trades(order_of(book)) == ()


def test_it_holds_nothing_once_the_broker_took_it_back() -> None:
    """Found by the simulation: the list tells the bust before the trade, and the trade again for another fill."""
    listed = partial(an_update, source=UpdateSource.BACKFILL, seq=None)
    book = told(
        STREAMED,
        an_update(E.TRADE_CANCEL, B.PARTIALLY_FILLED, exec_id="s2", exec_ref_id="s1", cum=0, seq=3),
        listed(E.TRADE_CANCEL, B.PARTIALLY_FILLED, exec_id="a2", exec_ref_id="a1", cum=0),
        a_trade("s3", 40, 40, order_status=B.PARTIALLY_FILLED, seq=4),
        an_update(E.TRADE_CORRECT, B.CANCELED, exec_id="s4", exec_ref_id="s3", last=8, last_price=TEN, cum=8, seq=6),
        an_update(E.CANCELED, B.CANCELED, cum=8, seq=7, transact_time=at(9)),
        a_trade("a3", 40, 40, source=UpdateSource.BACKFILL, seq=None),
        a_trade("a1", 40, 40, source=UpdateSource.BACKFILL, seq=None),
    )
    assert [one.exec_id for one in order_of(book).withheld] == ["a1"]
    assert order_status.executed(order_of(book)) == 8
    assert order_status.unclear_trades(order_of(book)) == ()
    assert exposure.is_clear(book)


def test_it_is_booked_once_the_broker_states_as_much() -> None:
    book, _ = book_after(UNCLEAR, an_update(E.ORDER_STATUS, B.CANCELED, cum=80, seq=4, transact_time=at(20)))
    assert order_status.executed(order_of(book)) == 80
    assert state(book) == ("close_retryable", "retryable", True)


def named(book: Book, quantity: int = 40, price: str = "10.01") -> Outcome:
    fill = Fill(
        broker=BROKER,
        exec_id="a1",
        quantity=Decimal(quantity),
        price=Decimal(price),
        occurred_at=None,
        cum_quantity=None,
    )
    return name_fill(book, order_of(book), fill, taken_by=None, now=at(60))


def test_an_operator_books_it_as_it_was_told() -> None:
    outcome = named(UNCLEAR)
    assert isinstance(outcome, Done), outcome
    order = order_of(outcome.book)
    assert (order_status.executed(order), order.withheld) == (Decimal(80), ())
    assert outcome.book.position.quantity == 20
    assert state(outcome.book) == ("close_retryable", "retryable", True)
    assert outcome.events[0].event_type == "EXECUTION_RECORDED"


@pytest.mark.parametrize(("quantity", "price"), [(39, "10.01"), (40, "10.02")])
def test_an_operator_does_not_book_it_as_something_else(quantity: int, price: str) -> None:
    outcome = named(UNCLEAR, quantity, price)
    assert isinstance(outcome, Refused)
    assert "40 @ 10.01" in outcome.reasons[0]


def test_an_operator_says_that_it_is_no_other_fill() -> None:
    outcome = end_order(UNCLEAR, order_of(UNCLEAR), at_broker="canceled", quantity_there=Decimal(100), now=at(60))
    assert isinstance(outcome, Done), outcome
    assert order_status.executed(order_of(outcome.book)) == 40
    assert state(outcome.book) == ("close_retryable", "retryable", True)


def test_an_operator_says_so_of_an_order_that_is_filled() -> None:
    filled = a_trade("s2", 60, 100, order_status=B.FILLED, seq=3, transact_time=at(9))
    book = told(STREAMED, filled, OTHER_PRICE)
    assert state(book) == ("closed", "completed", False)
    assert book.position.exposure_unproven
    outcome = end_order(book, order_of(book), at_broker="filled", quantity_there=Decimal(100), now=at(60))
    assert isinstance(outcome, Done), outcome
    assert state(outcome.book) == ("closed", "completed", True)
    assert not outcome.book.position.exposure_unproven


def test_what_stands_in_an_operators_way_is_told() -> None:
    retryable = as_(UNCLEAR, RequestStatus.RETRYABLE)
    outcome = abandon(retryable, retryable.requests[REQUEST_ID], now=at(60))
    assert isinstance(outcome, Refused)
    assert "a1, 40 @ 10.01" in outcome.reasons[0]
