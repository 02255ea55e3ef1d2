"""Every move of the rulebook is made by the core: a list by hand of what leads to it, and what it looks like then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from itertools import product
from typing import Any, Final

import pytest

from closeflow.domain import rulebook, transitions
from closeflow.domain.close.accept import Accepted, accept_close
from closeflow.domain.close.deferral import Defer
from closeflow.domain.close.moves import Moved
from closeflow.domain.close.outcome import conclude
from closeflow.domain.close.plan_order import apply_plan
from closeflow.domain.model import (
    Book,
    BrokerStatus,
    BrokerUpdate,
    ExecType,
    Order,
    OrderStatus,
    PositionStatus,
    RejectClass,
    RequestStatus,
    SendAnswer,
    StatementKind,
)
from closeflow.domain.operator import requests
from closeflow.domain.orders import status as order_status
from closeflow.domain.orders.judge_update import judge_update
from closeflow.domain.orders.verdicts import Applied
from closeflow.domain.sending.claim import being_looked_up, withdrawn
from closeflow.domain.sending.send_check import Withdraw
from closeflow.domain.trading_controls import TradingState
from closeflow.domain.transitions import illegal_moves

from .accepting import command
from .builders import (
    NOW,
    OTHER_ID,
    POLICY,
    REQUEST_ID,
    a_book,
    a_position,
    a_refusal,
    a_send,
    a_statement,
    a_trade,
    an_execution,
    an_order,
    an_update,
    at,
    book_after,
    canceled,
    refused,
    working,
)
from .test_plan_order import CLOSED, MARKET, pending, planned
from .test_timeouts import retryable, woken
from .test_transitions import ORDER_MOVES, POSITION_MOVES, REQUEST_MOVES

P, C, O, K = PositionStatus, RequestStatus, OrderStatus, StatementKind  # noqa: E741
B, E = BrokerStatus, ExecType

# orders: every pair of statuses that facts can make, found by trying them all


def orders_in_every_status() -> Iterator[Order]:
    """Orders as each status is made of facts; the newest fact has sequence 5 at the most."""
    trade = an_execution("e1", 40, 40, broker_seq=3)
    full = an_execution("e1", 100, 100, broker_seq=3)
    yield an_order(sends=())
    yield an_order(status=O.DENIED, sends=())
    yield an_order(status=O.SUBMIT_UNKNOWN)
    yield an_order(status=O.SUBMIT_UNKNOWN, sends=(a_send(SendAnswer.NOT_SENT),))
    yield an_order(status=O.SUBMIT_UNKNOWN, statements=(a_statement(K.LOST),))
    yield refused()
    for executions, cum in (((), 0), ((trade,), 40), ((full,), 100)):
        for kind in K:
            if kind in (K.REFUSED, K.LOST, K.CANCEL_REJECTED, K.REPLACED):
                continue
            yield an_order(executions=executions, statements=(a_statement(kind, 5, cum),))
            if kind in (K.NEW, K.PARTIALLY_FILLED):
                yield an_order(
                    executions=executions, statements=(a_statement(kind, 5, cum),), cancel_requested_at=at(1)
                )


def steps(order: Order) -> Iterator[Order]:
    """The order after each thing that can happen to it next."""
    for status, cum in product(B, (0, 40, 100)):
        yield from judged(order, an_update(E.ORDER_STATUS, status, cum=cum, seq=9))
    for last, cum in ((40, 40), (60, 100), (100, 100)):
        yield from judged(order, a_trade("e9", last, cum, seq=9, order_status=B.PARTIALLY_FILLED))
    for status in (None, *B):
        yield from judged(order, an_update(E.TRADE_CANCEL, status, exec_id="x", exec_ref_id="e1", cum=0, seq=9))
    for last, status in product((40, 100), (None, *B)):
        changes = {"exec_id": "x", "exec_ref_id": "e1", "last": last, "last_price": Decimal(9), "cum": last, "seq": 9}
        yield from judged(order, an_update(E.TRADE_CORRECT, status, **changes))
    yield from judged(order, an_update(E.CANCEL_REJECTED, B.NEW, cum=0, seq=9, transact_time=at(9)))
    yield from judged(order, a_refusal())
    if order_status.broker_statements(order):
        yield order_status.derive(replace(order, cancel_requested_at=at(20)))
        lost = a_statement(K.LOST, order.broker_update_seq or 9, t=20)
        yield order_status.derive(replace(order, statements=(*order.statements, lost)))
    if order.status is O.SUBMIT_UNKNOWN:
        yield order_status.derive(replace(order, statements=(*order.statements, a_statement(K.LOST))))
    if order_status.never_taken(order):
        yield withdrawn(order, Withdraw("more_than_owed", RejectClass.RETRYABLE))
    if order.status is O.PLANNED:
        yield being_looked_up(replace(order, sends=(a_send(None),)), now=NOW)


def judged(order: Order, update: BrokerUpdate) -> Iterator[Order]:
    verdict = judge_update(order, update)
    if isinstance(verdict, Applied):
        yield verdict.order


def test_the_pairs_that_facts_can_make_of_an_order_are_the_legal_ones() -> None:
    """O2-O20: everything that can happen next is done to an order in every status."""
    found: set[tuple[str, str]] = set()
    for order in orders_in_every_status():
        found |= {(order.status.value, after.status.value) for after in steps(order) if after.status != order.status}
    rows = [line.split(">") for line in ORDER_MOVES.strip().splitlines()]
    legal = {(was.strip(), to) for was, after in rows for to in after.split()}
    assert found - legal == set()
    assert legal - found == set()


# positions and close requests: what leads to each move


def accepting(before: Book) -> Book:
    close = command(request_id=OTHER_ID, position_id=before.position.id)
    found = accept_close(before, close, None, trading=TradingState.ACTIVE, now=NOW)
    assert isinstance(found, Accepted)
    return found.book


def planning(before: Book) -> Book:
    decided = planned(before)
    book = apply_plan(before, REQUEST_ID, decided, now=NOW)
    return conclude(before, book, now=NOW, policy=POLICY).book


def deferring(before: Book) -> Book:
    decided = planned(before, replace(MARKET, clock=CLOSED))
    assert isinstance(decided, Defer)
    after = apply_plan(before, REQUEST_ID, decided, now=NOW)
    assert after.requests[REQUEST_ID].retry_count == before.requests[REQUEST_ID].retry_count
    return conclude(before, after, now=NOW, policy=POLICY).book


def settling(before: Book) -> Book:
    return conclude(before, before, now=NOW, policy=POLICY).book


def waking(before: Book) -> Book:
    found = woken(before, seconds=99)
    assert isinstance(found, Moved)
    return found.book


def abandoning(before: Book) -> Book:
    found = requests.abandon(before, before.requests[REQUEST_ID], now=NOW)
    assert isinstance(found, requests.Done)
    return found.book


def hearing(*updates: BrokerUpdate) -> Callable[[Book], Book]:
    def told(before: Book) -> Book:
        book = before
        for update in updates:
            book, _ = book_after(book, update)
        return book

    return told


def adjusting(delta: int) -> Callable[[Book], Book]:
    def adjusted(before: Book) -> Book:
        moved = replace(
            before, base_quantity=before.base_quantity + delta, ledger_quantity=before.ledger_quantity + delta
        )
        return conclude(before, moved, now=NOW, policy=POLICY).book

    return adjusted


def idle(is_now: PositionStatus, *orders: Order, **changes: Any) -> Book:
    """A position without an active request, after its orders."""
    made = a_book(*orders, position=a_position(status=is_now, active_close_request_id=None), **changes)
    return replace(made, position=replace(made.position, quantity=made.ledger_quantity))


def closed() -> Book:
    book, _ = book_after(a_book(working()), a_trade("t1", 100, 100, order_status=B.FILLED, seq=5))
    return book


ALL_FILLED: Final = a_trade("t1", 100, 100, order_status=B.FILLED, seq=5)
CANCELED: Final = an_update(E.CANCELED, B.CANCELED, cum=0, seq=9)
REJECTED: Final = an_update(
    E.REJECTED, B.REJECTED, cum=0, seq=9, reject_class=RejectClass.TERMINAL, reject_code="no_such_position"
)
LATE: Final = a_trade("late", 100, 100, order_status=B.CANCELED, seq=12)
BUST: Final = an_update(E.TRADE_CANCEL, B.CANCELED, exec_id="x1", exec_ref_id="t1", cum=0, seq=7)
LIVES_AGAIN: Final = an_update(E.ORDER_STATUS, B.NEW, cum=0, seq=10)
BUST_OF_A_LIVE_ORDER: Final = replace(BUST, order_status=B.NEW)
DENIED: Final = an_order(status=O.DENIED, sends=(), reject_class=RejectClass.RETRYABLE, reject_code="more_than_owed")

MOVES: Final[tuple[tuple[str, Book, Callable[[Book], Book], str], ...]] = (
    # labels, before, what happens, and the position's and the request's statuses, before > after
    ("P1 C1", idle(P.OPEN, requests=[]), accepting, "open > closing, none > pending"),
    ("C2 O1", pending(), planning, "closing > closing, pending > submitted"),
    ("C3", pending(next_attempt_at=None), deferring, "closing > closing, pending > pending"),
    ("C4 P3", pending(cancel_requested_at=NOW), planning, "closing > open, pending > failed"),
    ("C5 P2", a_book(working()), hearing(ALL_FILLED), "closing > closed, submitted > completed"),
    (
        "C5 P3",
        a_book(working(40), target_quantity=Decimal(40)),
        hearing(a_trade("t1", 40, 40, order_status=B.FILLED, seq=5)),
        "closing > open, submitted > completed",
    ),
    ("C6 P4", a_book(working()), hearing(CANCELED), "closing > close_retryable, submitted > retryable"),
    ("C6a P4", a_book(DENIED), settling, "closing > close_retryable, submitted > retryable"),
    ("C7 P7", a_book(working()), hearing(REJECTED), "closing > close_failed, submitted > failed"),
    (
        "C7 P3",
        a_book(working(cancel_requested_at=NOW), cancel_requested_at=NOW),
        hearing(CANCELED),
        "closing > open, submitted > failed",
    ),
    ("C8 P5", retryable(canceled()), waking, "close_retryable > closing, retryable > pending"),
    (
        "C9 P9",
        retryable(canceled()),
        hearing(LATE),
        "close_retryable > closed, retryable > completed",
    ),
    (
        "C9 P9",
        idle(P.CLOSE_FAILED, canceled(), status=C.FAILED),
        hearing(LATE),
        "close_failed > closed, failed > completed",
    ),
    (
        "C9 P2",
        a_book(canceled(), status=C.PENDING, attempt=2),
        hearing(LATE),
        "closing > closed, pending > completed",
    ),
    (
        "C9 P9",
        idle(P.OPEN, canceled(), status=C.FAILED, reason="canceled_by_user"),
        hearing(LATE),
        "open > closed, failed > completed",
    ),
    ("C10 P6", retryable(canceled(), deadline_at=at(50)), waking, "close_retryable > close_failed, retryable > failed"),
    ("C10 P10", retryable(canceled()), abandoning, "close_retryable > open, retryable > failed"),
    (
        "P8 C1",
        idle(P.CLOSE_FAILED, requests=[]),
        accepting,
        "close_failed > closing, none > pending",
    ),
    ("P10", idle(P.CLOSE_FAILED, refused(), status=C.FAILED), abandoning, "close_failed > open, failed > failed"),
    ("P11 C11", closed(), hearing(BUST), "closed > close_retryable, completed > retryable"),
    ("P11 C11", closed(), hearing(BUST_OF_A_LIVE_ORDER), "closed > closing, completed > submitted"),
    ("P11 P13", closed(), adjusting(30), "closed > open, completed > completed"),
    (
        "P12 O17",
        a_book(working()),
        hearing(a_trade("t1", 130, 130, order_status=B.FILLED, seq=5)),
        "closing > closed, submitted > completed",
    ),
    ("P5 C12", retryable(canceled()), hearing(LIVES_AGAIN), "close_retryable > closing, retryable > submitted"),
    (
        "P5 C12",
        retryable(an_order(statements=(a_statement(K.LOST),))),
        hearing(LIVES_AGAIN),
        "close_retryable > closing, retryable > submitted",
    ),
    ("P13", a_book(working()), adjusting(20), "closing > closing, submitted > submitted"),
    (
        "O16",
        closed(),
        hearing(replace(BUST, exec_type=E.TRADE_CORRECT, last_quantity=Decimal(80), last_price=Decimal(9))),
        "closed > close_retryable, completed > retryable",
    ),
)


@pytest.mark.parametrize(("labels", "before", "happens", "seen"), MOVES, ids=[f"{one[0]}: {one[3]}" for one in MOVES])
def test_a_move(labels: str, before: Book, happens: Callable[[Book], Book], seen: str) -> None:
    after = happens(before)
    assert list(illegal_moves(before, after)) == []
    assert f"{_positions(before, after)}, {_requests(before, after)}" == seen


def _positions(before: Book, after: Book) -> str:
    return f"{before.position.status} > {after.position.status}"


def _requests(before: Book, after: Book) -> str:
    found = after.requests[OTHER_ID if OTHER_ID in after.requests else REQUEST_ID]
    was = before.requests.get(found.id)
    return f"{was.status if was else 'none'} > {found.status}"


def test_a_send_that_was_not_accepted_is_repeated_under_the_same_id() -> None:
    """O1a."""
    order = an_order(sends=(a_send(SendAnswer.NOT_ACCEPTED),))
    assert (order.status, order_status.never_taken(order)) == (O.PLANNED, True)


def test_every_label_is_in_the_list_or_among_the_pairs_of_orders() -> None:
    listed = {label for labels, *_ in MOVES for label in labels.split()}
    assert {*rulebook.POSITION, *rulebook.REQUEST} <= listed
    assert {*rulebook.ORDER} <= listed | {*transitions.ORDER_MOVES.values()} | {"O1a"}


def test_every_pair_of_positions_and_requests_is_in_the_list() -> None:
    seen = {pair for *_, text in MOVES for pair in text.split(", ")}
    for table in (POSITION_MOVES, REQUEST_MOVES):
        rows = [line.split(">") for line in table.strip().splitlines()]
        legal = {f"{was.strip()} > {to}" for was, after in rows for to in after.split()}
        assert legal <= seen
