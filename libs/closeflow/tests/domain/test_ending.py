"""What an operator ends by hand: orders that became another at the broker, positions that no close ended."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from closeflow.contracts.outbox import event_value
from closeflow.domain.model import Book, BrokerStatus, ExecType, Order, UpdateSource
from closeflow.domain.operator.adjust import Adjustment, Ending, adjust, end_order, end_position
from closeflow.domain.operator.requests import Already, Done, Refused, release
from closeflow.domain.orders import status as order_status
from closeflow.domain.position import exposure
from closeflow.domain.transitions import illegal_moves

from .builders import NOW, REQUEST_ID, a_book, a_trade, an_order, an_update, applied, at, book_after, working

REPLACED = an_update(ExecType.REPLACED, BrokerStatus.REPLACED, cum=0, seq=5)


def done(before: Book, outcome: object) -> Book:
    assert isinstance(outcome, Done), outcome
    assert list(illegal_moves(before, outcome.book)) == []
    return outcome.book


def state(book: Book) -> tuple[str, str, str | None, str]:
    request, order = book.requests[REQUEST_ID], book.orders_of(REQUEST_ID)[0]
    return book.position.status.value, request.status.value, request.reason, order.status.value


def ended(book: Book, at_broker: str | None) -> object:
    return end_order(book, book.orders_of(REQUEST_ID)[0], at_broker=at_broker, now=at(60))


def test_a_close_whose_order_was_replaced_by_hand_can_be_ended() -> None:
    book, _ = book_after(a_book(working()), REPLACED)
    assert book.requests[REQUEST_ID].frozen_reason == "order_replaced"
    sold = Adjustment(delta=Decimal(-100), reason="sold by the order that took its place", by="ann")
    book = done(book, adjust(book, sold, expected=Decimal(100), last=None, now=at(50)))
    assert state(book) == ("closing", "submitted", None, "pending_cancel")
    book = done(book, ended(book, "replaced"))
    request = book.requests[REQUEST_ID]
    if request.frozen_reason is not None:
        book = done(book, release(book, request, closed="order_replaced", still_open=(), now=at(70)))
    assert state(book) == ("closed", "completed", "externally_closed", "canceled")
    assert isinstance(ended(book, "replaced"), Already)


def test_of_an_order_that_a_split_multiplied_what_is_not_ours_can_be_dropped() -> None:
    def listed(name: str, last: int, cum: int) -> Order:
        return applied(order, a_trade(name, last, cum, source=UpdateSource.BACKFILL))

    order = working(15)
    order = listed("a1", 15, 15)
    order = listed("a2", 45, 60)
    book = a_book(order)
    assert order_status.unattributed(order) == 45
    book = done(book, ended(book, "filled"))
    assert exposure.is_clear(book)
    assert (book.position.quantity, book.ledger_quantity) == (Decimal(85), Decimal(85))


@pytest.mark.parametrize("status", ["filled", "canceled", "expired", "rejected"])
@pytest.mark.parametrize("quantity_there", [None, Decimal(100)])
def test_a_fill_that_nobody_named_yet_is_not_dropped_from_an_order_that_is_just_over(
    status: str, quantity_there: Decimal | None
) -> None:
    """Else what the broker has sold is sold again within seconds."""
    order = applied(working(), an_update(ExecType.ORDER_STATUS, BrokerStatus.CANCELED, cum=10, seq=7))
    order = applied(order, a_trade("a1", 4, 4, source=UpdateSource.BACKFILL))
    assert order_status.unattributed(order) == 6
    outcome = end_order(a_book(order), order, at_broker=status, quantity_there=quantity_there, now=at(60))
    assert isinstance(outcome, Refused)
    assert "closectl orders execution" in outcome.reasons[0]


def test_what_became_of_an_order_of_another_size_is_not_ours() -> None:
    order = applied(working(), an_update(ExecType.ORDER_STATUS, BrokerStatus.CANCELED, cum=10, seq=7))
    outcome = end_order(a_book(order), order, at_broker="canceled", quantity_there=Decimal(400), now=at(60))
    assert isinstance(outcome, Done)


@pytest.mark.parametrize("status", ["new", "partially_filled", "pending_cancel", "the broker did not say: time-out"])
def test_an_order_that_may_live_at_the_broker_is_not_ended(status: str) -> None:
    book, _ = book_after(a_book(working()), REPLACED)
    assert isinstance(ended(book, status), Refused)


def test_an_order_that_the_broker_never_spoke_of_is_not_ended_but_declared_lost() -> None:
    assert isinstance(ended(a_book(an_order()), None), Refused)


def test_a_position_that_expired_ends_its_close_for_that_reason() -> None:
    book = a_book(position=replace(a_book().position), status="pending")
    gone = Adjustment(delta=Decimal(-100), reason="expired: worthless", by="ann")
    outcome = end_position(book, Ending.EXPIRED, gone, last=None, now=NOW)
    book = done(book, outcome)
    request = book.requests[REQUEST_ID]
    assert (book.position.status.value, request.status.value, request.reason) == ("closed", "completed", "expired")
    assert isinstance(end_position(book, Ending.EXPIRED, gone, last=gone, now=NOW), Already)


def test_what_is_published_of_it_tells_why() -> None:
    book = a_book(position=replace(a_book().position), status="pending")
    outcome = end_position(
        book, Ending.ASSIGNED, Adjustment(delta=Decimal(-100), reason="r", by="ann"), last=None, now=NOW
    )
    assert isinstance(outcome, Done)
    assert [(one.event_type, event_value(one)["reason"]) for one in outcome.events] == [("POSITION_CLOSED", "assigned")]


def test_a_position_is_not_ended_while_an_order_of_it_may_fill() -> None:
    """What the order fills would come on top of what the broker took away."""
    gone = Adjustment(delta=Decimal(-100), reason="r", by="ann")
    outcome = end_position(a_book(working()), Ending.EXPIRED, gone, last=None, now=NOW)
    assert isinstance(outcome, Refused)
    assert "may still fill" in outcome.reasons[0]
