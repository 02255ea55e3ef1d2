"""What time asks of a request (lifecycle.md: C3, C4, C8, C9, C10, P3, P5, P6, P10, T_unknown)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from closeflow.contracts.outbox import event_value
from closeflow.domain.close import deferral, plan_order
from closeflow.domain.close.due_requests import wake
from closeflow.domain.close.moves import Moved, PutOff, Waits
from closeflow.domain.model import Book, Order, OrderStatus, PositionStatus, RequestStatus, SendAnswer, StatementKind
from closeflow.domain.outbox.events import SUBMIT_CLOSE_ORDER
from closeflow.domain.sending.claim import being_looked_up
from closeflow.domain.transitions import illegal_moves

from .builders import (
    NOW,
    OTHER_ID,
    REQUEST_ID,
    a_book,
    a_position,
    a_request,
    a_send,
    a_statement,
    an_order,
    at,
    canceled,
    refused,
    working,
)

RESEND = timedelta(seconds=30)
UNKNOWN = timedelta(minutes=15)


def woken(book: Book, *, seconds: float = 0) -> Moved | Waits:
    found = wake(book, book.requests[REQUEST_ID], now=at(seconds), resend_after=RESEND, unknown_after=UNKNOWN)
    assert not isinstance(found, PutOff), "nothing holds an operator's retry back here"
    if isinstance(found, Moved):
        assert list(illegal_moves(book, found.book)) == []
    return found


def retryable(*orders: Order, **changes: Any) -> Book:
    position = a_position(status=PositionStatus.CLOSE_RETRYABLE)
    book = a_book(
        *orders, position=position, **{"status": RequestStatus.RETRYABLE, "next_attempt_at": at(5), **changes}
    )
    return replace(book, position=replace(position, quantity=book.ledger_quantity))


def beside_a_frozen_one(book: Book) -> Book:
    over = a_request(id=OTHER_ID, status=RequestStatus.FAILED, frozen_reason="contradicts_order")
    return replace(book, requests={**book.requests, over.id: over})


def pending(**changes: Any) -> Book:
    return a_book(**{"status": RequestStatus.PENDING, "submitted_at": None, **changes})


@pytest.mark.parametrize(
    ("book", "seconds", "reason"),
    [
        pytest.param(retryable(canceled(100, 40)), 4.9, "not due", id="a retry is not due before its time"),
        pytest.param(
            retryable(canceled(100, 40), auto_retry=False), 9, "an operator has to retry it", id="no auto retry"
        ),
        pytest.param(retryable(canceled(100, 40), frozen_reason="x"), 9, "frozen", id="a frozen request waits"),
        pytest.param(
            retryable(canceled(100, 40), frozen_reason="x", deadline_at=at(1)), 9, "frozen", id="past its deadline too"
        ),
        pytest.param(
            pending(frozen_reason="x", cancel_requested_at=at(1)), 9, "frozen", id="and when its user gave it up"
        ),
        pytest.param(
            beside_a_frozen_one(retryable(canceled(100, 40))),
            9,
            "another close of the position is frozen",
            id="a request waits while one that is over is frozen",
        ),
        pytest.param(retryable(working(100, 40)), 9, "working", id="a retry waits while an order lives"),
        pytest.param(
            retryable(an_order(statements=(a_statement(StatementKind.CANCELED, 9, 40),))),
            9,
            "not clear",
            id="a retry waits while a fill cannot be named",
        ),
        pytest.param(pending(), 29, "not due", id="a young pending request is left alone"),
        pytest.param(pending(next_attempt_at=at(60)), 40, "not due", id="a deferral waits for its time"),
        pytest.param(pending(frozen_reason="x"), 99, "frozen", id="a frozen pending request is not sent again"),
        pytest.param(a_book(status=RequestStatus.COMPLETED), 99, "finished", id="a finished request is left alone"),
        pytest.param(a_book(working()), 59, "working", id="an order may work for as long as its request says"),
        pytest.param(a_book(canceled()), 999, "in progress", id="an order that is over is left to what settles it"),
        pytest.param(
            a_book(working(cancel_requested_at=at(60))), 999, "in progress", id="a cancel is asked for only once"
        ),
        pytest.param(
            a_book(an_order(statements=(a_statement(StatementKind.DONE_FOR_DAY, 3, 0),))),
            86_399,
            "working",
            id="an order done for the day is not cancelled within a day",
        ),
        pytest.param(
            a_book(an_order(statements=(a_statement(StatementKind.SUSPENDED, 3, 0),))),
            59,
            "working",
            id="a suspended order has as long as any",
        ),
    ],
)
def test_a_request_waits(book: Book, seconds: float, reason: str) -> None:
    assert woken(book, seconds=seconds) == Waits(reason)


def test_a_due_retry_becomes_the_next_attempt_for_what_is_owed() -> None:
    found = woken(retryable(canceled(100, 40)), seconds=5)

    assert isinstance(found, Moved)
    request = found.book.requests[REQUEST_ID]
    assert (request.status, request.attempt, request.retry_count) == (RequestStatus.PENDING, 2, 1)
    assert found.book.position.status is PositionStatus.CLOSING
    submit, position = found.events
    assert (submit.event_type, submit.attempt, event_value(submit)["quantity"]) == (
        SUBMIT_CLOSE_ORDER,
        2,
        "60",
    )
    assert position.position_version == found.book.position.version == 6


def test_a_retry_after_an_order_that_never_went_out_uses_up_nothing() -> None:
    denied = an_order(status=OrderStatus.DENIED, sends=(a_send(SendAnswer.NOT_SENT),))
    found = woken(retryable(denied), seconds=5)

    assert isinstance(found, Moved)
    assert found.book.requests[REQUEST_ID].retry_count == 0


def test_a_probe_that_was_refused_uses_up_nothing() -> None:
    """Else a storm of refusals would use up the retries of the one close whose order the breaker lets through."""
    probe = replace(refused(), sends=(replace(a_send(SendAnswer.REJECTED), probe=True),))
    found = woken(retryable(probe), seconds=5)

    assert isinstance(found, Moved)
    assert found.book.requests[REQUEST_ID].retry_count == 0


def test_a_probe_that_worked_counts_as_sent() -> None:
    probe = replace(canceled(100, 40), sends=(replace(a_send(), probe=True),))
    found = woken(retryable(probe), seconds=5)

    assert isinstance(found, Moved)
    assert found.book.requests[REQUEST_ID].retry_count == 1


def test_a_refused_order_counts_as_sent() -> None:
    found = woken(retryable(refused()), seconds=5)

    assert isinstance(found, Moved)
    assert found.book.requests[REQUEST_ID].retry_count == 1


@pytest.mark.parametrize(
    ("book", "seconds"),
    [
        pytest.param(pending(), 30, id="a zombie: nobody planned it in time"),
        pytest.param(pending(next_attempt_at=at(60)), 60, id="a deferral whose time has come"),
    ],
)
def test_a_pending_request_is_emitted_again(book: Book, seconds: float) -> None:
    found = woken(book, seconds=seconds)

    assert isinstance(found, Moved)
    request = found.book.requests[REQUEST_ID]
    assert (request.status, request.attempt, request.emission) == (RequestStatus.PENDING, 1, 2)
    assert request.next_attempt_at == at(seconds) + 2 * RESEND
    (event,) = found.events
    assert (event.event_type, event.emission, event.attempt) == (SUBMIT_CLOSE_ORDER, 2, 1)
    assert found.book.position == book.position


@pytest.mark.parametrize(("emission", "pause_s"), [(1, 60), (2, 120), (4, 480), (5, 600), (6, 600), (100_000, 600)])
def test_each_emission_waits_twice_as_long_for_its_answer(emission: int, pause_s: float) -> None:
    found = woken(pending(next_attempt_at=NOW, emission=emission))

    assert isinstance(found, Moved)
    assert found.book.requests[REQUEST_ID].next_attempt_at == at(pause_s)


def test_what_the_planner_defers_is_asked_for_when_it_says_however_often_it_was() -> None:
    halted = deferral.Defer(at(5), "trading_halted")
    emitted = woken(pending(next_attempt_at=NOW, emission=1000))
    assert isinstance(emitted, Moved)
    answered = plan_order.apply_plan(emitted.book, REQUEST_ID, halted, now=NOW)

    assert woken(answered, seconds=4.9) == Waits("not due")
    assert isinstance(woken(answered, seconds=5), Moved)


@pytest.mark.parametrize(
    ("book", "reason", "status"),
    [
        pytest.param(
            pending(deadline_at=at(10)), "deadline_passed", PositionStatus.OPEN, id="C4, P3: never sent, so open again"
        ),
        pytest.param(
            retryable(canceled(100, 40), deadline_at=at(10)),
            "deadline_passed",
            PositionStatus.CLOSE_FAILED,
            id="C10, P6: the deadline passed between attempts",
        ),
        pytest.param(
            retryable(canceled(100, 40), cancel_requested_at=at(1)),
            "canceled_by_user",
            PositionStatus.OPEN,
            id="C10, P10: the user gave it up",
        ),
        pytest.param(
            pending(cancel_requested_at=at(1)),
            "canceled_by_user",
            PositionStatus.OPEN,
            id="C4, P3: withdrawn before any order",
        ),
    ],
)
def test_a_request_ends_as_failed(book: Book, reason: str, status: PositionStatus) -> None:
    found = woken(book, seconds=10)

    assert isinstance(found, Moved)
    request = found.book.requests[REQUEST_ID]
    assert (request.status, request.reason) == (RequestStatus.FAILED, reason)
    assert found.book.position.status is status
    assert found.book.position.active_close_request_id is None
    assert not found.book.position.exposure_unproven


def test_an_order_unknown_for_too_long_fails_its_request_with_exposure_unproven() -> None:
    unknown = an_order(status=OrderStatus.SUBMIT_UNKNOWN, sends=(a_send(SendAnswer.UNKNOWN),))
    book = a_book(unknown)

    assert woken(book, seconds=UNKNOWN.total_seconds() - 1) == Waits("not unknown for long")
    found = woken(book, seconds=UNKNOWN.total_seconds())

    assert isinstance(found, Moved)
    assert found.book.requests[REQUEST_ID].reason == "submit_unknown"
    assert found.book.position.status is PositionStatus.CLOSE_FAILED
    assert found.book.position.exposure_unproven


@pytest.mark.parametrize("done", [0, 40])
def test_an_order_that_works_for_too_long_is_to_be_cancelled(done: int) -> None:
    book = a_book(working(100, done))
    found = woken(book, seconds=60)

    assert isinstance(found, Moved)
    (order,) = found.book.orders.values()
    assert (order.status, order.cancel_requested_at) == (OrderStatus.PENDING_CANCEL, at(60))
    assert (found.book.requests, found.book.position, found.events) == (book.requests, book.position, ())


@pytest.mark.parametrize("kind", [StatementKind.SUSPENDED, StatementKind.PENDING_CANCEL])
def test_an_order_that_the_broker_holds_is_to_be_cancelled_as_one_that_works(kind: StatementKind) -> None:
    book = a_book(an_order(statements=(a_statement(kind, 3, 0),)))
    found = woken(book, seconds=60)

    assert isinstance(found, Moved)
    (order,) = found.book.orders.values()
    assert (order.status, order.cancel_requested_at) == (OrderStatus.PENDING_CANCEL, at(60))
    assert (found.what, found.incidents) == ("cancel:working_timed_out", ())
    assert woken(found.book, seconds=9999) == Waits("in progress")


@pytest.mark.parametrize(
    "book",
    [
        pytest.param(pending(attempt=2), id="before the next attempt is planned"),
        pytest.param(a_book(attempt=2), id="behind a newer one that is over"),
    ],
)
def test_an_order_that_lives_again_has_as_long_as_any(book: Book) -> None:
    (request,) = book.requests.values()
    newer = () if request.status is RequestStatus.PENDING else (canceled(60, attempt=2),)
    older = working(100, 40)
    book = replace(book, orders={one.client_order_id: one for one in (older, *newer)})
    found = woken(book, seconds=60)

    assert woken(book, seconds=59) == Waits("working")
    assert isinstance(found, Moved)
    assert (found.what, found.book.requests) == ("cancel:working_timed_out", book.requests)
    assert found.book.orders[older.client_order_id].cancel_requested_at == at(60)


def test_an_order_that_is_done_for_the_day_a_day_later_is_cancelled_and_told() -> None:
    book = a_book(an_order(statements=(a_statement(StatementKind.DONE_FOR_DAY, 3, 0),)))
    found = woken(book, seconds=86_400)

    assert isinstance(found, Moved)
    (order,) = found.book.orders.values()
    assert (order.status, order.cancel_requested_at) == (OrderStatus.PENDING_CANCEL, at(86_400))
    (incident,) = found.incidents
    assert (incident.kind, incident.client_order_id) == ("order_done_for_day", order.client_order_id)
    assert woken(found.book, seconds=99_999) == Waits("in progress")


def test_an_order_works_from_the_moment_it_was_last_sent() -> None:
    first = replace(a_send(SendAnswer.NOT_ACCEPTED), started_at=at(0))
    second = replace(a_send(SendAnswer.UNKNOWN, 2), started_at=at(90))
    third = replace(a_send(SendAnswer.NOT_SENT, 3), started_at=at(95))
    book = a_book(working(sends=(first, second, third)))
    assert woken(book, seconds=149.9) == Waits("working")
    assert isinstance(woken(book, seconds=150), Moved)


def test_an_order_whose_acknowledgement_was_never_applied_is_given_up_as_unknown() -> None:
    accepted = being_looked_up(an_order(), now=at(31))
    found = woken(a_book(accepted), seconds=UNKNOWN.total_seconds())
    assert isinstance(found, Moved)
    assert found.book.requests[REQUEST_ID].reason == "submit_unknown"


def test_a_request_whose_position_is_gone_completes() -> None:
    book = replace(pending(), position=replace(a_position(), quantity=Decimal(0)))
    found = woken(book)

    assert isinstance(found, Moved)
    request = found.book.requests[REQUEST_ID]
    assert (request.status, request.reason) == (RequestStatus.COMPLETED, "externally_closed")
    assert found.book.position.status is PositionStatus.CLOSED
    assert found.book.position.closed_at == NOW


def test_repeats_do_not_put_off_when_an_unknown_order_is_given_up() -> None:
    late = UNKNOWN.total_seconds()
    again = replace(a_send(SendAnswer.UNKNOWN, 3), started_at=at(late - 1))
    not_taken = replace(a_send(SendAnswer.NOT_ACCEPTED), started_at=at(-late))
    order = an_order(status=OrderStatus.SUBMIT_UNKNOWN, sends=(not_taken, a_send(SendAnswer.UNKNOWN, 2), again))
    assert woken(a_book(order), seconds=late - 1) == Waits("not unknown for long")
    found = woken(a_book(order), seconds=late)
    assert isinstance(found, Moved)
    assert found.book.requests[REQUEST_ID].reason == "submit_unknown"


def test_probes_that_are_refused_for_ever_are_not_free_for_ever() -> None:
    """Else a close that the broker refuses each time goes on without an end when no other order is taken."""
    sends = (replace(a_send(SendAnswer.REJECTED), probe=True),)
    spent = []
    for tried in range(1, 7):
        probes = [refused(attempt=n, sends=sends) for n in range(1, tried + 1)]
        found = woken(retryable(*probes, attempt=tried, max_retries=3), seconds=5)
        assert isinstance(found, Moved)
        spent.append(found.book.requests[REQUEST_ID].retry_count)
    assert spent == [0, 0, 0, 0, 1, 1]
