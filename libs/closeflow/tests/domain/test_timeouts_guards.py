"""What P5 asks of the world before an automatic retry, and what deadline and user cancel ask of a living order."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from closeflow.domain.close.due_requests import wake, wake_batch
from closeflow.domain.close.moves import Conditions, Moved, PutOff, Waits
from closeflow.domain.close.outcome import conclude
from closeflow.domain.market_data import MarketClock
from closeflow.domain.model import AssetType, Book, Order, OrderStatus, PositionStatus, RequestStatus, SendAnswer
from closeflow.domain.transitions import illegal_moves

from .builders import OTHER_ID, POLICY, REQUEST_ID, a_book, a_position, a_send, an_order, at, canceled, filled, working
from .test_timeouts import RESEND, UNKNOWN, pending, retryable

NEXT_OPEN = at(480)


def a_clock(*, is_open: bool = True, next_open: datetime = NEXT_OPEN) -> MarketClock:
    return MarketClock(is_open=is_open, next_open=next_open, at=at(5))


OPEN = Conditions(clock=a_clock())


def woken(book: Book, conditions: Conditions | None, *, seconds: float = 5) -> Moved | PutOff | Waits:
    found = wake(
        book,
        book.requests[REQUEST_ID],
        now=at(seconds),
        resend_after=RESEND,
        unknown_after=UNKNOWN,
        conditions=conditions,
    )
    if not isinstance(found, Waits):
        assert list(illegal_moves(book, found.book)) == []
    return found


def due(**changes: Any) -> Book:
    return retryable(canceled(100, 40), **changes)


@pytest.mark.parametrize(
    ("conditions", "changes", "until", "reason"),
    [
        pytest.param(Conditions(clock=a_clock(is_open=False)), {}, NEXT_OPEN, "market closed", id="until it opens"),
        pytest.param(
            Conditions(clock=a_clock(is_open=False)),
            {"asset_type": AssetType.OPTION},
            NEXT_OPEN,
            "market closed",
            id="options keep hours too",
        ),
        pytest.param(
            Conditions(clock=a_clock(is_open=False, next_open=at(50_000))),
            {},
            at(605),
            "market closed",
            id="a night is looked at again every ten minutes",
        ),
        pytest.param(
            Conditions(clock=a_clock(is_open=False, next_open=at(1))),
            {},
            at(6),
            "market closed",
            id="an opening that is past, by a clock that has not noticed, is looked at again in a second",
        ),
        pytest.param(
            Conditions(clock=a_clock(), sends_resume_at=at(9)), {}, at(9), "circuit breaker open", id="until the probe"
        ),
    ],
)
def test_a_due_retry_is_put_off_and_uses_up_nothing(
    conditions: Conditions, changes: dict[str, Any], until: datetime, reason: str
) -> None:
    book = due(**changes)
    found = woken(book, conditions)

    assert isinstance(found, PutOff)
    assert (found.until, found.reason) == (until, reason)
    expected = replace(book.requests[REQUEST_ID], next_attempt_at=until)
    assert found.book == replace(book, requests={REQUEST_ID: expected})


def test_a_close_that_waits_for_the_market_is_not_asked_for_while_it_is_closed() -> None:
    book = pending(next_attempt_at=at(5), reason="market_closed")
    found = woken(book, Conditions(clock=a_clock(is_open=False)))

    assert isinstance(found, PutOff)
    assert (found.until, found.reason) == (NEXT_OPEN, "market closed")
    assert found.book.requests[REQUEST_ID].emission == book.requests[REQUEST_ID].emission
    assert isinstance(woken(book, OPEN), Moved)
    assert isinstance(woken(book, Conditions(clock=None)), Moved), "the planner looks for itself"


@pytest.mark.parametrize(
    ("reason", "conditions"),
    [
        ("trading_halted", Conditions(clock=a_clock(), halted=True)),
        ("no_market_clock", Conditions(clock=None)),
        ("broker_unavailable", Conditions(clock=a_clock(), sends_resume_at=at(9))),
    ],
)
def test_a_close_is_not_asked_for_while_its_reason_is_seen_to_last(reason: str, conditions: Conditions) -> None:
    book = pending(next_attempt_at=at(5), reason=reason)
    assert not isinstance(woken(book, conditions), Moved)
    assert isinstance(woken(book, OPEN), Moved)
    assert isinstance(woken(book, None), Moved), "an operator's retry is not held back"


@pytest.mark.parametrize(
    "book", [pending(next_attempt_at=at(3600)), retryable(canceled(100, 40), next_attempt_at=at(3600))]
)
def test_a_time_that_a_clock_an_hour_ahead_wrote_is_not_waited_for(book: Book) -> None:
    assert isinstance(woken(book, OPEN), Moved)


@pytest.mark.parametrize(
    ("conditions", "reason"),
    [
        pytest.param(Conditions(clock=None), "market clock unknown", id="a clock that cannot be had"),
        pytest.param(Conditions(clock=a_clock(), halted=True), "halted", id="the kill switch"),
        pytest.param(Conditions(clock=None, halted=True), "halted", id="the kill switch is asked first"),
    ],
)
def test_a_due_retry_waits_where_nobody_knows_how_long(conditions: Conditions, reason: str) -> None:
    assert woken(due(), conditions) == Waits(reason)


@pytest.mark.parametrize(
    ("conditions", "changes"),
    [
        pytest.param(OPEN, {}, id="open, closed breaker, not halted"),
        pytest.param(
            Conditions(clock=a_clock(), sends_resume_at=at(5)), {}, id="the breaker lets the next order through now"
        ),
        pytest.param(
            Conditions(clock=a_clock(is_open=False)), {"asset_type": AssetType.CRYPTO}, id="crypto keeps no hours"
        ),
        pytest.param(Conditions(clock=None), {"asset_type": AssetType.CRYPTO}, id="and needs no clock"),
        pytest.param(None, {}, id="an operator's retry is held back by the planner, not here"),
    ],
)
def test_a_due_retry_goes(conditions: Conditions | None, changes: dict[str, Any]) -> None:
    found = woken(due(**changes), conditions)
    assert isinstance(found, Moved)
    assert found.book.requests[REQUEST_ID].attempt == 2


NOTHING_GOES = Conditions(clock=None, sends_resume_at=at(99), halted=True)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"deadline_at": at(5)}, "deadline_passed", id="C10, P6: the deadline"),
        pytest.param({"cancel_requested_at": at(1)}, "canceled_by_user", id="C10, P10: the user's cancel"),
    ],
)
def test_a_request_ends_whatever_the_world_is_like(changes: dict[str, Any], reason: str) -> None:
    found = woken(due(**changes), NOTHING_GOES)
    assert isinstance(found, Moved)
    assert found.book.requests[REQUEST_ID].reason == reason


def unknown() -> Order:
    return an_order(status=OrderStatus.SUBMIT_UNKNOWN, sends=(a_send(SendAnswer.UNKNOWN),))


LATE = {"deadline_at": at(5)}
GIVEN_UP = {"cancel_requested_at": at(4)}


@pytest.mark.parametrize("changes", [LATE, GIVEN_UP], ids=["deadline", "user cancel"])
@pytest.mark.parametrize(
    ("order", "status"),
    [
        pytest.param(working(), OrderStatus.PENDING_CANCEL, id="an order that works"),
        pytest.param(working(100, 40), OrderStatus.PENDING_CANCEL, id="one that is partly filled"),
        pytest.param(an_order(sends=()), OrderStatus.PLANNED, id="one that was never sent"),
        pytest.param(unknown(), OrderStatus.SUBMIT_UNKNOWN, id="one that may be there: it is not sent again"),
    ],
)
def test_a_submitted_request_that_is_over_has_its_order_cancelled_once(
    order: Order, status: OrderStatus, changes: dict[str, Any]
) -> None:
    found = woken(a_book(order, **changes), NOTHING_GOES)

    assert isinstance(found, Moved)
    (canceling,) = found.book.orders.values()
    assert (canceling.status, canceling.cancel_requested_at) == (status, at(5))
    assert found.book.requests[REQUEST_ID].status is RequestStatus.SUBMITTED, "until the cancel's outcome is known"
    assert isinstance(woken(found.book, NOTHING_GOES), Waits)


@pytest.mark.parametrize(
    ("book", "seconds"),
    [
        pytest.param(a_book(working(), deadline_at=at(5)), 4.9, id="the deadline has not passed"),
        pytest.param(a_book(filled(), deadline_at=at(5)), 9, id="its order is done"),
        pytest.param(a_book(deadline_at=at(5)), 9, id="it has no order"),
    ],
)
def test_a_submitted_request_is_left_alone(book: Book, seconds: float) -> None:
    assert isinstance(woken(book, OPEN, seconds=seconds), Waits)


def test_a_cancelled_order_past_its_requests_deadline_fails_the_request() -> None:
    book = a_book(canceled(100, 40, cancel_requested_at=at(5)), deadline_at=at(5))
    after = conclude(
        replace(book, position=replace(a_position(), quantity=book.ledger_quantity)), book, now=at(6), policy=POLICY
    )

    request = after.book.requests[REQUEST_ID]
    assert (request.status, request.reason) == (RequestStatus.FAILED, "deadline_passed")
    assert after.book.position.status is PositionStatus.CLOSE_FAILED


def test_an_unknown_order_that_is_to_be_cancelled_is_still_given_up_in_time() -> None:
    book = a_book(replace(unknown(), cancel_requested_at=at(5)), deadline_at=at(5))
    found = woken(book, OPEN, seconds=UNKNOWN.total_seconds())
    assert isinstance(found, Moved)
    assert found.book.requests[REQUEST_ID].reason == "submit_unknown"


def test_a_batch_moves_what_may_move_and_says_of_each_what_became_of_it() -> None:
    """Two positions; of the account of the second nothing is known, so its retry is held back."""
    known = retryable()
    other = replace(known.position, id=99, account_id="other")
    moved = replace(known.requests[REQUEST_ID], id=OTHER_ID, position_id=99, account_id="other")
    books = {known.position.id: known, 99: replace(known, position=other, requests={OTHER_ID: moved})}
    result = wake_batch(
        books,
        {REQUEST_ID: known.position.id, OTHER_ID: 99},
        now=at(60),
        resend_after=RESEND,
        unknown_after=UNKNOWN,
        conditions={known.position.account_id: OPEN},
    )
    assert isinstance(result.verdicts[REQUEST_ID], Moved)
    assert result.verdicts[OTHER_ID] == Waits("halted")
    assert [before.position.id for before, _ in result.changes] == [known.position.id]
    assert result.events
