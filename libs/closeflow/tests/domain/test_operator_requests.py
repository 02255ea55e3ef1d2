"""What an operator may do to a close by hand (C4, C7, C8, C10, P5, P10, O9, R11), and what is refused and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from closeflow.contracts.outbox import event_value
from closeflow.domain.close.due_requests import wake
from closeflow.domain.close.moves import Moved
from closeflow.domain.model import Book, Order, OrderStatus, PositionStatus, RequestStatus, SendAnswer, StatementKind
from closeflow.domain.operator.requests import Already, Done, Outcome, Refused, abandon, cancel, release, retry_now
from closeflow.domain.outbox.events import CLOSE_REQUEST_FAILED, POSITION_CLOSING, POSITION_OPEN, SUBMIT_CLOSE_ORDER
from closeflow.domain.position import freeze
from closeflow.domain.reasons import ABANDONED, USER_CANCEL
from closeflow.domain.transitions import illegal_moves

from .builders import (
    NOW,
    OTHER_ID,
    REQUEST_ID,
    a_book,
    a_position,
    a_send,
    a_statement,
    an_order,
    at,
    canceled,
    working,
)

GAP = an_order(statements=(a_statement(StatementKind.CANCELED, 9, 40),))
Verb = Callable[[Book], Outcome]
LATER = timedelta(seconds=30)


def retry(book: Book) -> Outcome:
    return retry_now(book, book.requests[REQUEST_ID], now=at(60), resend_after=timedelta(seconds=30))


def give_up(book: Book) -> Outcome:
    return abandon(book, book.requests[REQUEST_ID], now=at(60))


def call_off(book: Book) -> Outcome:
    return cancel(book, book.requests[REQUEST_ID], now=at(60))


def let_go(book: Book, *still_open: str) -> Outcome:
    return release(book, book.requests[REQUEST_ID], closed="execution_changed", still_open=still_open, now=at(60))


def retryable(*orders: Order, **changes: Any) -> Book:
    return standing(PositionStatus.CLOSE_RETRYABLE, *orders, **{"status": RequestStatus.RETRYABLE, **changes})


def failed(*orders: Order, **changes: Any) -> Book:
    book = standing(PositionStatus.CLOSE_FAILED, *orders, **{"status": RequestStatus.FAILED, "reason": "x", **changes})
    return replace(book, position=replace(book.position, active_close_request_id=None))


def standing(where: PositionStatus, *orders: Order, **changes: Any) -> Book:
    """A position with what its orders left of it."""
    book = a_book(*orders, position=a_position(status=where), **changes)
    return replace(book, position=replace(book.position, quantity=book.ledger_quantity))


def done(book: Book, verb: Verb) -> tuple[Done, RequestStatus, PositionStatus]:
    """The verb did something, by legal moves, and finds its work done when it is repeated."""
    outcome = verb(book)
    assert isinstance(outcome, Done), outcome
    assert list(illegal_moves(book, outcome.book)) == []
    assert isinstance(verb(outcome.book), Already)
    return outcome, outcome.book.requests[REQUEST_ID].status, outcome.book.position.status


@pytest.mark.parametrize("auto_retry", [True, False])
def test_a_retry_by_hand_is_due_at_once_for_what_is_owed(auto_retry: bool) -> None:
    book = retryable(canceled(100, 40), next_attempt_at=at(999), auto_retry=auto_retry)
    outcome, request, position = done(book, retry)
    again = outcome.book.requests[REQUEST_ID]
    assert (request, position) == (RequestStatus.PENDING, PositionStatus.CLOSING)
    assert (again.attempt, again.retry_count, again.auto_retry) == (2, 1, auto_retry)
    assert [one.event_type for one in outcome.events] == [SUBMIT_CLOSE_ORDER, POSITION_CLOSING]
    assert event_value(outcome.events[0])["quantity"] == "60"


@pytest.mark.parametrize(
    ("book", "told"),
    [
        pytest.param(retryable(working(100, 40)), ["is partially_filled and may still fill 60"], id="an order lives"),
        pytest.param(retryable(GAP), ["has 40 filled that no execution names"], id="a fill has no name"),
        pytest.param(
            retryable(canceled(), frozen_reason="poison", cancel_requested_at=NOW, deadline_at=at(59)),
            ["its user cancelled it", "its deadline passed", "it is frozen by poison: `closectl incidents close`"],
            id="everything that stands in the way is told",
        ),
        pytest.param(a_book(working()), ["attempt 1 is submitted; `closectl show"], id="a submitted close"),
        pytest.param(failed(canceled()), ["is failed (x)", "`closectl close 41`"], id="a failed close needs a new key"),
    ],
)
def test_a_retry_by_hand_is_refused(book: Book, told: list[str]) -> None:
    outcome = retry(book)
    assert isinstance(outcome, Refused)
    assert len(outcome.reasons) == len(told)
    assert all(words in reason for words, reason in zip(told, outcome.reasons, strict=True)), outcome


def test_an_abandoned_close_leaves_the_position_open() -> None:
    outcome, request, position = done(retryable(canceled(100, 40), next_attempt_at=at(99)), give_up)
    assert (request, position) == (RequestStatus.FAILED, PositionStatus.OPEN)
    assert outcome.book.requests[REQUEST_ID].reason == ABANDONED
    assert (outcome.book.position.quantity, outcome.book.position.active_close_request_id) == (Decimal(60), None)
    assert [one.event_type for one in outcome.events] == [CLOSE_REQUEST_FAILED]


def test_a_position_whose_close_failed_is_open_again_and_its_request_stays_as_it_failed() -> None:
    book = failed(canceled(100, 40))
    outcome, _, position = done(book, give_up)
    assert (outcome.book.requests, position) == (book.requests, PositionStatus.OPEN)
    assert [one.event_type for one in outcome.events] == [POSITION_OPEN]


@pytest.mark.parametrize(
    ("book", "told"),
    [
        pytest.param(retryable(GAP), "40 filled that no execution names", id="a retryable one that is not clear"),
        pytest.param(failed(an_order(status=OrderStatus.SUBMIT_UNKNOWN)), "may still fill 100", id="a failed one"),
        pytest.param(retryable(canceled(), frozen_reason="poison"), "it is frozen by poison", id="a frozen one"),
        pytest.param(a_book(working()), "it is submitted; `closectl requests cancel", id="one that is at work"),
        pytest.param(a_book(status=RequestStatus.COMPLETED), "is completed", id="one that is done"),
    ],
)
def test_what_cannot_be_abandoned(book: Book, told: str) -> None:
    outcome = give_up(book)
    assert isinstance(outcome, Refused)
    assert told in outcome.reasons[0]


@pytest.mark.parametrize(
    "book",
    [
        pytest.param(a_book(status=RequestStatus.PENDING), id="nothing was sent yet"),
        pytest.param(retryable(canceled(100, 40)), id="between two attempts"),
        pytest.param(a_book(an_order(sends=(), status=OrderStatus.DENIED)), id="its order was never sent"),
    ],
)
def test_a_cancel_with_nothing_at_work_ends_the_close_at_once(book: Book) -> None:
    outcome, request, position = done(book, call_off)
    assert (request, position) == (RequestStatus.FAILED, PositionStatus.OPEN)
    assert outcome.book.requests[REQUEST_ID].reason == USER_CANCEL


def test_a_cancel_of_a_working_close_asks_for_its_orders_cancel() -> None:
    outcome, request, position = done(a_book(working(100, 40)), call_off)
    (order,) = outcome.book.orders.values()
    assert (request, position) == (RequestStatus.SUBMITTED, PositionStatus.CLOSING)
    assert (order.status, order.cancel_requested_at) == (OrderStatus.PENDING_CANCEL, at(60))
    assert outcome.book.requests[REQUEST_ID].cancel_requested_at == at(60)


def test_a_cancel_of_an_order_of_unknown_fate_waits_for_what_is_found() -> None:
    unknown = an_order(status=OrderStatus.SUBMIT_UNKNOWN, sends=(a_send(SendAnswer.UNKNOWN),))
    outcome, request, _ = done(a_book(unknown), call_off)
    (order,) = outcome.book.orders.values()
    assert (request, order.status) == (RequestStatus.SUBMITTED, OrderStatus.SUBMIT_UNKNOWN)
    assert order.cancel_requested_at == at(60)


def test_a_cancel_after_a_working_time_out_keeps_the_time_of_the_first() -> None:
    outcome, _, _ = done(a_book(working(cancel_requested_at=at(50))), call_off)
    assert [one.cancel_requested_at for one in outcome.book.orders.values()] == [at(50)]


@pytest.mark.parametrize(
    "book",
    [
        pytest.param(retryable(canceled(100, 40), frozen_reason="contradicts_order"), id="between two attempts"),
        pytest.param(a_book(status=RequestStatus.PENDING, frozen_reason="contradicts_order"), id="before the first"),
    ],
)
def test_a_cancel_of_a_frozen_close_is_kept_until_what_froze_it_is_cleared_up(book: Book) -> None:
    outcome, request, position = done(book, call_off)
    kept = outcome.book.requests[REQUEST_ID]
    assert (request, position) == (book.requests[REQUEST_ID].status, book.position.status)
    assert (kept.cancel_requested_at, kept.frozen_reason) == (at(60), "contradicts_order")

    freed = release(outcome.book, kept, closed="contradicts_order", still_open=(), now=at(70))
    assert isinstance(freed, Done)
    ended = wake(freed.book, freed.book.requests[REQUEST_ID], now=at(71), resend_after=LATER, unknown_after=LATER)
    assert isinstance(ended, Moved)
    assert ended.book.requests[REQUEST_ID].reason == USER_CANCEL


def test_a_retry_by_hand_is_refused_while_another_close_of_the_position_is_frozen() -> None:
    book = retryable(canceled())
    over = replace(book.requests[REQUEST_ID], id=OTHER_ID, status=RequestStatus.FAILED, frozen_reason="poison")
    outcome = retry(replace(book, requests={**book.requests, OTHER_ID: over}))
    assert isinstance(outcome, Refused)
    assert outcome.reasons[0].startswith(f"request {OTHER_ID} of the position is frozen by poison")


def test_what_froze_a_close_that_is_over_lets_new_ones_in_when_it_is_closed() -> None:
    book = failed(canceled(100, 40), frozen_reason="execution_changed")
    assert freeze.is_frozen(book)
    outcome, request, position = done(book, let_go)
    assert (request, position) == (RequestStatus.FAILED, PositionStatus.CLOSE_FAILED)
    assert not freeze.is_frozen(outcome.book)


def test_a_close_that_is_over_is_not_cancelled() -> None:
    assert isinstance(call_off(failed(canceled())), Refused)
    assert isinstance(call_off(a_book(status=RequestStatus.COMPLETED)), Refused)
    assert isinstance(call_off(failed(canceled(), reason=USER_CANCEL)), Already)


def test_the_incident_that_froze_a_request_lets_it_go_on_from_where_it_stands() -> None:
    _, request, position = done(a_book(canceled(100, 40), frozen_reason="execution_changed"), let_go)
    assert (request, position) == (RequestStatus.RETRYABLE, PositionStatus.CLOSE_RETRYABLE)
    outcome, request, _ = done(retryable(canceled(), frozen_reason="execution_changed"), let_go)
    assert (request, outcome.book.requests[REQUEST_ID].frozen_reason) == (RequestStatus.RETRYABLE, None)


def test_a_request_stays_frozen_while_another_incident_freezes_it() -> None:
    book = a_book(canceled(), frozen_reason="execution_changed")
    outcome = let_go(book, "gap", "poison")
    assert isinstance(outcome, Done)
    assert outcome.book.requests[REQUEST_ID].frozen_reason == "poison"
    assert isinstance(let_go(book, "gap", "execution_changed"), Already)
    assert isinstance(let_go(a_book(canceled(), frozen_reason="poison")), Already)
