"""A halt, and whatever else passes by itself: waited for ever more rarely, at no cost, and closed after it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from closeflow.domain.close import passing_refusals
from closeflow.domain.close.due_requests import wake
from closeflow.domain.close.moves import Moved
from closeflow.domain.close.outcome import conclude
from closeflow.domain.close.passing_refusals import PASSING, waits_since
from closeflow.domain.close.plan_order import Submit, apply_plan
from closeflow.domain.model import Book, CloseRequest, Order, RejectClass, RequestStatus, SendAnswer, StatementKind

from .builders import NOW, POLICY, REQUEST_ID, a_book, a_send, a_statement, an_order, at, canceled, refused

FOR_LONG = timedelta(hours=1)
SECOND = timedelta(seconds=1)


def halted(attempt: int, now: datetime, code: str = "symbol_halted") -> Order:
    return an_order(
        attempt=attempt,
        statements=(a_statement(StatementKind.REFUSED),),
        sends=(a_send(SendAnswer.REJECTED),),
        reject_code=code,
        reject_class=RejectClass.RETRYABLE,
        created_at=now,
    )


def request_of(book: Book) -> CloseRequest:
    return book.requests[REQUEST_ID]


def tried(book: Book, order: Order, now: datetime) -> Book:
    """The order was planned, sent and ended as it is."""
    planned = apply_plan(book, REQUEST_ID, Submit(replace(order, statements=(), sends=())), now=now)
    after = replace(planned, orders={**planned.orders, order.client_order_id: order})
    return conclude(planned, after, now=now, policy=POLICY).book


def woken(book: Book, now: datetime) -> Book:
    moved = wake(book, request_of(book), now=now, resend_after=SECOND, unknown_after=FOR_LONG)
    assert isinstance(moved, Moved), moved
    return moved.book


def through_a_halt(code: str, lasts: timedelta) -> tuple[Book, list[datetime]]:
    """A close that is refused for the code for so long, until it is pending again; and when it was tried."""
    book, now, tries = a_book(status=RequestStatus.PENDING), NOW, list[datetime]()
    while now < NOW + lasts:
        tries.append(now)
        book = tried(book, halted(request_of(book).attempt, now, code), now)
        request = request_of(book)
        assert (request.status, request.reason, request.deferred_since) == (RequestStatus.RETRYABLE, code, NOW)
        assert request.next_attempt_at is not None
        now = request.next_attempt_at
        book = woken(book, now)
        assert request_of(book).deferred_since == NOW, "its incident stays"
    return book, tries


@pytest.mark.parametrize("code", sorted(PASSING))
def test_what_passes_by_itself_costs_no_retry_however_long_it_lasts(code: str) -> None:
    book, tries = through_a_halt(code, FOR_LONG)
    assert (request_of(book).retry_count, request_of(book).status) == (0, RequestStatus.PENDING)
    assert len(tries) <= 26
    pauses = [later - sooner for sooner, later in pairwise(tries)]
    assert pauses[0] <= 2 * SECOND
    assert max(pauses) <= timedelta(minutes=7.5)
    assert pauses[-1] > timedelta(minutes=2)


def test_after_it_the_close_has_every_try_and_every_rung_left() -> None:
    book, tries = through_a_halt("symbol_halted", FOR_LONG)
    orders = book.orders_of(REQUEST_ID)
    assert not any(passing_refusals.costs_a_retry(book, request_of(book), one) for one in orders)
    now = tries[-1] + FOR_LONG
    for left in (3, 2, 1):
        book = tried(book, canceled(attempt=request_of(book).attempt, created_at=now), now)
        request = request_of(book)
        assert (request.status, request.deferred_since) == (RequestStatus.RETRYABLE, None)
        book = woken(book, now + FOR_LONG)
        assert request_of(book).retry_count == 4 - left
    book = tried(book, canceled(attempt=request_of(book).attempt, created_at=now), now)
    assert request_of(book).reason == "retries_exhausted"


def test_a_close_that_has_no_try_left_waits_for_the_end_of_a_halt_all_the_same() -> None:
    book = a_book(canceled(), status=RequestStatus.PENDING, attempt=2, retry_count=3)
    book = tried(book, halted(2, NOW), NOW)
    assert request_of(book).status is RequestStatus.RETRYABLE


def test_its_deadline_and_its_users_cancel_end_it() -> None:
    book = a_book(status=RequestStatus.PENDING, deadline_at=at(60))
    assert request_of(tried(book, halted(1, at(61)), at(61))).reason == "deadline_passed"
    book = tried(a_book(status=RequestStatus.PENDING), halted(1, NOW), NOW)
    asked = replace(request_of(book), cancel_requested_at=at(1))
    book = woken(replace(book, requests={REQUEST_ID: asked}), at(1))
    assert (request_of(book).status, request_of(book).reason) == (RequestStatus.FAILED, "canceled_by_user")


def test_it_begins_anew_after_an_order_that_the_broker_took() -> None:
    orders = (halted(1, NOW), canceled(attempt=2), halted(3, at(100)), halted(4, at(200)))
    assert waits_since(orders) == at(100)
    assert waits_since(orders[:2]) is None
    assert waits_since(()) is None


def test_a_refusal_of_the_price_is_a_try_of_it() -> None:
    order = refused(reject_code="bad_price", reject_class=RejectClass.RETRYABLE, sends=(a_send(SendAnswer.REJECTED),))
    book = a_book(order)
    assert passing_refusals.costs_a_retry(book, request_of(book), order)
