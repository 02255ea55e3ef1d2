"""Never more than is left, and what is not built yet is kept (lifecycle.md: R1, R5, O13, P12, rule Q)."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from closeflow.domain.close.outcome import conclude
from closeflow.domain.model import Book, Order, OrderStatus, PositionStatus, RequestStatus, SendAnswer

from .builders import (
    NOW,
    OTHER_ID,
    POLICY,
    REQUEST_ID,
    a_book,
    a_position,
    a_request,
    a_send,
    an_execution,
    an_order,
    at,
    canceled,
    settled_once,
    working,
)

P, R, O = PositionStatus, RequestStatus, OrderStatus  # noqa: E741
UNSENT: dict[str, Any] = {"sends": ()}
OTHER = a_request(id=OTHER_ID, status=R.FAILED)
UNKNOWN = an_order(attempt=2, status=O.SUBMIT_UNKNOWN, sends=(a_send(SendAnswer.UNKNOWN),))


def retried(second: Order, *, late: int, **changes: Any) -> Book:
    """The first attempt was canceled and retried for 100; then `late` of the first turned out to be filled."""
    return a_book(canceled(done=late), second, attempt=2, retry_count=1, **changes)


def test_o13_a_planned_retry_that_a_late_fill_made_too_large_is_withdrawn_and_planned_again() -> None:
    concluded = settled_once(retried(an_order(attempt=2, **UNSENT), late=20)).book
    plan = concluded.orders_of(REQUEST_ID)[1]
    assert (plan.status, plan.reject_code) == (O.DENIED, "withdrawn_by_late_fill")
    assert concluded.requests[REQUEST_ID].status is R.RETRYABLE


def test_o13_it_is_withdrawn_and_all_is_done_when_the_late_fill_reached_the_target() -> None:
    concluded = settled_once(retried(an_order(attempt=2, **UNSENT), late=100)).book
    assert concluded.orders_of(REQUEST_ID)[1].status is O.DENIED
    assert (concluded.requests[REQUEST_ID].status, concluded.position.status) == (R.COMPLETED, P.CLOSED)


def test_o13_a_planned_retry_that_still_fits_stays() -> None:
    concluded = settled_once(retried(an_order(80, attempt=2, **UNSENT), late=20))
    assert concluded.book.orders_of(REQUEST_ID)[1].status is O.PLANNED
    assert concluded.incidents == ()


@pytest.mark.parametrize(
    "second",
    [an_order(attempt=2, sends=(a_send(None),)), working(attempt=2), UNKNOWN],
    ids=["in flight", "working", "of unknown fate"],
)
@pytest.mark.parametrize(
    ("late", "kind"), [(20, "exposure_above_owed"), (100, "target_reached_with_live_order")], ids=["some", "all"]
)
def test_an_order_that_may_fill_too_much_is_cancelled_once(second: Order, late: int, kind: str) -> None:
    concluded = settled_once(retried(second, late=late), now=at(9))
    assert concluded.book.orders_of(REQUEST_ID)[1].cancel_requested_at == at(9)
    assert [(one.kind, one.client_order_id) for one in concluded.incidents] == [(kind, second.client_order_id)]
    assert concluded.book.requests[REQUEST_ID].status is R.SUBMITTED


def test_a_late_fill_of_another_request_cancels_what_the_active_one_may_fill_too_much() -> None:
    late = canceled(done=30, request_id=OTHER_ID)
    book = a_book(late, working(), requests=[a_request(), OTHER])
    concluded = settled_once(book)
    assert concluded.book.orders_of(REQUEST_ID)[0].status is O.PENDING_CANCEL
    assert concluded.book.requests[OTHER_ID].filled_quantity == 30
    assert concluded.book.position.status is P.CLOSING


def test_and_its_unsent_plan_is_withdrawn() -> None:
    late = canceled(done=30, request_id=OTHER_ID)
    concluded = settled_once(a_book(late, an_order(**UNSENT), requests=[a_request(), OTHER])).book
    assert concluded.orders_of(REQUEST_ID)[0].status is O.DENIED
    assert concluded.requests[REQUEST_ID].status is R.RETRYABLE


def test_an_order_whose_request_is_not_in_the_book_counts_and_is_left_alone() -> None:
    stray = an_order(30, request_id=OTHER_ID, **UNSENT)
    concluded = settled_once(a_book(canceled(), stray)).book
    assert concluded.orders[stray.client_order_id] == stray
    assert concluded.requests[REQUEST_ID].status is R.SUBMITTED


# What is not built yet: kept, with an incident

A_LATE_FILL = an_order(executions=(an_execution("e", 100, 100), an_execution("late", 20, 120)))


def incidents(before: Book, book: Book) -> list[str]:
    return [one.kind for one in conclude(before, book, now=NOW, policy=POLICY).incidents]


CLOSED = a_position(
    quantity=0, opening_quantity=Decimal(100), status=P.CLOSED, closed_at=NOW, active_close_request_id=None
)


def test_a_late_execution_of_a_closed_position_is_counted_and_leaves_it_closed_with_an_incident() -> None:
    request = a_request(status=R.COMPLETED, filled_quantity=Decimal(100), completed_at=NOW)
    book = a_book(A_LATE_FILL, position=CLOSED, requests=[request])
    concluded = conclude(replace(book, ledger_quantity=Decimal(0)), book, now=NOW, policy=POLICY)
    assert (concluded.book.position, concluded.book.ledger_quantity) == (CLOSED, Decimal(-20))
    assert concluded.book.requests[REQUEST_ID].filled_quantity == 120
    assert [(one.kind, one.close_request_id) for one in concluded.incidents] == [
        ("overfill", None),
        ("overfill", REQUEST_ID),
    ]
    assert incidents(concluded.book, concluded.book) == []


def test_executions_beyond_the_position_stop_at_zero_with_an_incident() -> None:
    concluded = settled_once(a_book(A_LATE_FILL))
    assert (concluded.book.position.quantity, concluded.book.position.status) == (Decimal(0), P.CLOSED)
    assert concluded.book.ledger_quantity == -20
    assert "overfill" in [one.kind for one in concluded.incidents]
    assert incidents(concluded.book, concluded.book) == []


def test_a_change_from_outside_opens_an_incident_and_lowers_what_may_be_closed() -> None:
    book = replace(a_book(working()), base_quantity=Decimal(60), ledger_quantity=Decimal(60))
    concluded = conclude(book, book, now=NOW, policy=POLICY)
    assert concluded.book.position.quantity == 60
    assert [one.kind for one in concluded.incidents] == ["position_changed_outside", "exposure_above_owed"]
    assert concluded.book.orders_of(REQUEST_ID)[0].status is O.PENDING_CANCEL


def test_a_side_that_changed_outside_is_kept_and_nothing_more_is_sold() -> None:
    book = replace(a_book(working()), base_quantity=Decimal(-50), ledger_quantity=Decimal(-50))
    concluded = conclude(book, book, now=NOW, policy=POLICY)
    assert concluded.book.position.quantity == -50
    assert "side_changed" in [one.kind for one in concluded.incidents]
    assert concluded.book.orders_of(REQUEST_ID)[0].status is O.PENDING_CANCEL
    assert incidents(concluded.book, concluded.book) == []
