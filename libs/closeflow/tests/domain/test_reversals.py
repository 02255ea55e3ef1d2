"""Busts and corrections after a position was closed (P11, C11), overfills (P12) and changes from outside (Q, P13)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from closeflow.domain.close.apply_update import apply_update
from closeflow.domain.close.outcome import Concluded, conclude
from closeflow.domain.model import (
    Book,
    BrokerStatus,
    BrokerUpdate,
    ExecType,
    OrderStatus,
    PositionStatus,
    RequestStatus,
    Side,
    StatementKind,
    UpdateSource,
)
from closeflow.domain.orders import execution_ledger
from closeflow.domain.orders import status as order_status
from closeflow.domain.orders.judge_update import judge_update
from closeflow.domain.orders.verdicts import Applied, Repeated
from closeflow.domain.position import exposure, overfill
from closeflow.domain.position.reopen import bust_window_ends_at
from closeflow.domain.transitions import illegal_moves

from .builders import (
    NOW,
    OTHER_ID,
    POLICY,
    REQUEST_ID,
    a_book,
    a_position,
    a_request,
    a_statement,
    a_trade,
    an_order,
    an_update,
    applied,
    at,
    canceled,
    working,
)

B, E, P, C = BrokerStatus, ExecType, PositionStatus, RequestStatus
O, K = OrderStatus, StatementKind  # noqa: E741
DAY = 86_400.0


def fed(book: Book, *updates: BrokerUpdate, now: datetime = NOW) -> tuple[Book, list[Concluded]]:
    """Every update a batch of its own; each step makes only legal moves."""
    steps = []
    for update in updates:
        order = book.orders[update.client_order_id]
        verdict = judge_update(order, update)
        assert isinstance(verdict, Applied), verdict
        concluded = conclude(book, apply_update(book, order, verdict), now=now, policy=POLICY)
        assert list(illegal_moves(book, concluded.book)) == []
        steps.append(concluded)
        book = concluded.book
    return book, steps


FILL = a_trade("t1", 100, 100, order_status=B.FILLED, seq=5)


def a_bust(status: BrokerStatus | None = B.CANCELED, cum: int | None = 0) -> BrokerUpdate:
    return an_update(E.TRADE_CANCEL, status, exec_id="x1", exec_ref_id="t1", cum=cum, seq=7)


def a_correction(quantity: int, status: BrokerStatus | None = B.CANCELED) -> BrokerUpdate:
    changes = {"exec_id": "x1", "exec_ref_id": "t1", "last": quantity, "last_price": Decimal(9)}
    return an_update(E.TRADE_CORRECT, status, cum=quantity, seq=7, **changes)


def state(book: Book) -> tuple[object, ...]:
    request = book.requests[REQUEST_ID]
    return (book.position.status.value, request.status.value, book.position.quantity, request.auto_retry)


CLOSED, _ = fed(a_book(working()), FILL)
REVERSALS: dict[str, tuple[BrokerUpdate, float, tuple[str, str, int, bool]]] = {
    "the order lives again": (a_bust(B.NEW), 0, ("closing", "submitted", 100, False)),
    "the order lives again, long after": (a_bust(B.NEW), 30 * DAY, ("closing", "submitted", 100, False)),
    "the order is over": (a_bust(), 0, ("close_retryable", "retryable", 100, False)),
    "the order is over, on the next trading day": (a_bust(), DAY, ("close_retryable", "retryable", 100, False)),
    "the order is over, past the bust window": (a_bust(), 3 * DAY, ("open", "completed", 100, True)),
    "the broker does not say": (a_bust(None, None), 0, ("closing", "submitted", 100, False)),
    "less was sold than reported": (a_correction(80), 0, ("close_retryable", "retryable", 20, False)),
    "only the price was another": (a_correction(100), 0, ("closed", "completed", 0, True)),
}


@pytest.mark.parametrize(("update", "later_s", "expected"), REVERSALS.values(), ids=REVERSALS)
def test_a_closed_position_after_a_bust_or_correction(
    update: BrokerUpdate, later_s: float, expected: tuple[str, str, int, bool]
) -> None:
    book, (concluded,) = fed(CLOSED, update, now=at(later_s))
    status, request_status, quantity, auto_retry = expected
    found = state(book)
    assert found[:3] == (status, request_status, quantity)
    assert found[3] is auto_retry or request_status == "completed"
    reopened = quantity != 0
    assert ("position_reopened" in [one.kind for one in concluded.incidents]) is reopened
    assert [one.event_type for one in concluded.events] == (["POSITION_REOPENED"] if reopened else [])
    assert (book.position.reopened_at, book.position.closed_at) == (
        (at(later_s), None) if reopened else (None, CLOSED.position.closed_at)
    )
    again = conclude(book, book, now=at(later_s), policy=POLICY)
    assert (again.book, again.events, again.incidents) == (book, (), ())


def test_a_position_that_reopened_closes_again_when_its_order_fills() -> None:
    book, _ = fed(CLOSED, a_bust(B.NEW), a_trade("t2", 100, 100, order_status=B.FILLED, seq=9, transact_time=at(50)))
    assert state(book)[:3] == ("closed", "completed", 0)
    assert book.position.closed_at == at(50)


def test_a_bust_beside_another_active_close_reopens_nothing_and_is_recorded() -> None:
    done = working(50)
    other = a_request(50, id=OTHER_ID, status=C.PENDING)
    position = a_position(active_close_request_id=REQUEST_ID)
    book, _ = fed(a_book(done, position=position, target_quantity=Decimal(50)), a_trade("t1", 50, 50, seq=5))
    assert state(book)[:3] == ("open", "completed", 50)
    closing = replace(book.position, status=P.CLOSING, active_close_request_id=OTHER_ID)
    book = replace(book, position=closing, requests={**book.requests, OTHER_ID: other})
    book, _ = fed(book, an_update(E.TRADE_CANCEL, B.CANCELED, exec_id="x1", exec_ref_id="t1", cum=0, seq=7))
    assert state(book)[:3] == ("closing", "completed", 100)
    assert book.requests[REQUEST_ID].reason == "reversed"
    assert book.requests[OTHER_ID].status is C.PENDING


@pytest.mark.parametrize("first", [0, 1], ids=["the trade comes first", "the bust comes first"])
def test_a_bust_and_its_trade_in_either_order_leave_a_retry_to_a_person(first: int) -> None:
    updates = [FILL, a_bust()]
    book, steps = fed(a_book(working()), updates[first], updates[1 - first])
    assert state(book) == ("close_retryable", "retryable", Decimal(100), False)
    kinds = {one.kind for step in steps for one in step.incidents}
    assert kinds & {"position_reopened", "retry_by_hand"}


def test_a_bust_under_a_request_that_waits_for_its_retry_leaves_that_to_a_person() -> None:
    waiting = a_book(canceled(done=40), status=C.RETRYABLE, filled_quantity=Decimal(40))
    waiting = replace(waiting, position=a_position(60, opening_quantity=Decimal(100), status=P.CLOSE_RETRYABLE))
    busted = an_update(E.TRADE_CANCEL, B.CANCELED, exec_id="x1", exec_ref_id="e1", cum=0, seq=10)
    book, steps = fed(waiting, busted)
    assert state(book) == ("close_retryable", "retryable", Decimal(100), False)
    assert [one.kind for one in steps[-1].incidents] == ["retry_by_hand"]
    again = conclude(book, book, now=NOW, policy=POLICY)
    assert again.incidents == ()


@pytest.mark.parametrize("told", [a_bust(), a_correction(80)], ids=["bust", "correction"])
@pytest.mark.parametrize("first", [0, 1], ids=["the stream first", "the activities first"])
def test_a_reversal_that_both_feeds_tell_by_their_own_names_is_one(told: BrokerUpdate, first: int) -> None:
    fill = a_trade("activity-t1", 100, 100, source=UpdateSource.BACKFILL)
    listed = replace(
        told,
        event_id=OTHER_ID,
        exec_id="activity-x1",
        exec_ref_id="activity-t1",
        source=UpdateSource.BACKFILL,
        order_status=None,
        broker_seq=None,
    )
    order, *_ = fed(CLOSED, fill)[0].orders.values()
    updates = (told, listed)
    once = applied(order, updates[first])
    twice = applied(once, updates[1 - first])
    assert [one.exec_id for one in twice.executions] == ["t1", updates[first].exec_id]
    assert list(execution_ledger.entries(once, twice)) == []
    for update in updates:
        assert judge_update(twice, update) == Repeated()


@pytest.mark.parametrize(
    ("closed", "ends"),
    [
        ("2026-03-02T14:30", "2026-03-04"),
        ("2026-03-06T20:00", "2026-03-10"),
        ("2026-03-07T12:00", "2026-03-10"),
    ],
    ids=["a Monday: all of Tuesday", "a Friday: all of Monday", "a Saturday: all of Monday"],
)
def test_the_bust_window_ends_with_the_next_trading_day(closed: str, ends: str) -> None:
    closed_at = datetime.fromisoformat(closed).replace(tzinfo=UTC)
    assert bust_window_ends_at(closed_at).isoformat() == f"{ends}T00:00:00+00:00"


def beyond(book: Book) -> tuple[object, ...]:
    return book.position.quantity, overfill.beyond_zero(book), book.position.status


@pytest.mark.parametrize("sign", [1, -1], ids=["a long", "a short"])
def test_what_goes_beyond_zero_is_not_this_positions(sign: int) -> None:
    side = Side.SELL if sign > 0 else Side.BUY
    start = a_book(working(side=side), position=a_position(100 * sign), side=side)
    over = replace(a_trade("t1", 130, 130, order_status=B.FILLED, seq=5), side=side)
    book, (concluded,) = fed(start, over)
    assert beyond(book) == (0, -30 * sign, P.CLOSED)
    assert [one.kind for one in concluded.incidents].count("overfill") == 2
    less = replace(a_correction(110, B.FILLED), side=side)
    book, (concluded,) = fed(book, less)
    assert beyond(book) == (0, -10 * sign, P.CLOSED)


ADJUSTMENTS: dict[str, tuple[int, str, str, Sequence[str]]] = {
    "it grew": (50, "closing", "submitted", ["position_changed_outside"]),
    "it shrank below the exposure": (
        -40,
        "closing",
        "submitted",
        ["position_changed_outside", "exposure_above_owed"],
    ),
    "nothing is left": (-100, "closing", "submitted", ["position_changed_outside", "exposure_above_owed"]),
    "it changed its side": (
        -150,
        "closing",
        "submitted",
        ["position_changed_outside", "side_changed", "exposure_above_owed"],
    ),
}


def adjusted(book: Book, delta: int) -> Concluded:
    moved = replace(book, base_quantity=book.base_quantity + delta, ledger_quantity=book.ledger_quantity + delta)
    return conclude(book, moved, now=NOW, policy=POLICY)


@pytest.mark.parametrize(("delta", "status", "asked", "kinds"), ADJUSTMENTS.values(), ids=ADJUSTMENTS)
def test_rule_q_while_an_order_works(delta: int, status: str, asked: str, kinds: Sequence[str]) -> None:
    concluded = adjusted(a_book(working()), delta)
    assert state(concluded.book)[:3] == (status, asked, 100 + delta)
    assert [one.kind for one in concluded.incidents] == list(kinds)
    cancelled = concluded.book.orders_of(REQUEST_ID)[0].cancel_requested_at is not None
    assert cancelled is (delta < 0)


@pytest.mark.parametrize(
    ("delta", "expected"),
    [
        (-40, ("close_retryable", "retryable", 60)),
        (-100, ("closed", "completed", 0)),
        (-150, ("close_failed", "failed", -50)),
    ],
    ids=["it shrank", "nothing is left", "it changed its side"],
)
def test_rule_q_once_the_order_is_over(delta: int, expected: tuple[str, str, int]) -> None:
    book = adjusted(a_book(working()), delta).book
    book, _ = fed(book, an_update(E.CANCELED, B.CANCELED, cum=0, seq=9))
    assert state(book)[:3] == expected


@pytest.mark.parametrize("status", [C.PENDING, C.RETRYABLE])
def test_a_request_without_a_live_order_fails_when_the_side_changed(status: RequestStatus) -> None:
    position = P.CLOSING if status is C.PENDING else P.CLOSE_RETRYABLE
    orders = () if status is C.PENDING else (canceled(),)
    book = a_book(*orders, position=a_position(status=position), status=status)
    concluded = adjusted(book, -150)
    assert concluded.book.requests[REQUEST_ID].reason == "side_changed"
    assert list(illegal_moves(book, concluded.book)) == []


def test_an_adjustment_reopens_a_closed_position() -> None:
    concluded = adjusted(CLOSED, 30)
    assert concluded.book.position.status is P.OPEN
    assert concluded.book.position.quantity == 30
    assert concluded.book.requests[REQUEST_ID].status is C.COMPLETED


@pytest.mark.parametrize(
    ("seq", "word", "label"),
    [
        (None, [], O.LOST),
        (None, [(K.NEW, 3)], O.NEW),
        (5, [(K.NEW, 5)], O.LOST),
        (5, [(K.NEW, 5), (K.PARTIALLY_FILLED, 6)], O.NEW),
        (5, [(K.NEW, None)], O.LOST),
    ],
    ids=[
        "never found",
        "found after all",
        "acknowledged before",
        "stated again later",
        "an older word without sequence",
    ],
)
def test_an_order_declared_lost_is_done_until_the_broker_speaks_of_it(
    seq: int | None, word: Sequence[tuple[StatementKind, int | None]], label: OrderStatus
) -> None:
    told = [a_statement(kind, number, 0) for kind, number in word]
    order = an_order(status=O.SUBMIT_UNKNOWN, statements=(a_statement(K.LOST, seq, t=5), *told))
    assert (order.status, order_status.is_done(order)) == (label, label is O.LOST)
    assert exposure.exposure(order) == (0 if label is O.LOST else 100)


def test_a_lost_order_that_is_found_again_freezes_its_request() -> None:
    lost = an_order(status=O.SUBMIT_UNKNOWN, statements=(a_statement(K.LOST),))
    order = lost
    verdict = judge_update(order, a_trade("t1", 100, 100, order_status=B.FILLED, seq=5))
    assert isinstance(verdict, Applied)
    assert [one.kind for one in verdict.incidents] == ["record_was_wrong"]
    book, _ = fed(a_book(lost), FILL)
    assert (book.requests[REQUEST_ID].frozen_reason, state(book)[0]) == ("record_was_wrong", "closed")


def test_a_bust_under_the_name_of_the_other_feed_counts_once_that_name_is_known() -> None:
    listed = a_trade("a1", 40, 40, source=UpdateSource.BACKFILL)
    streamed = a_trade("t1", 40, 40, order_status=B.PARTIALLY_FILLED, seq=5)
    book, _ = fed(a_book(working()), listed, a_bust(B.NEW), streamed)
    assert (book.position.quantity, book.ledger_quantity) == (Decimal(100), Decimal(100))
    assert book.orders_of(REQUEST_ID)[0].cancel_requested_at is None
