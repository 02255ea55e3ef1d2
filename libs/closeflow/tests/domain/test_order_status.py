"""Status, done, known_cum, exposure, owed and clear as functions of the facts (lifecycle.md, R1-R5)."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from closeflow.domain.model import (
    Order,
    OrderStatus,
    Position,
    PositionStatus,
    SendAnswer,
    SendKind,
    Side,
    StatementKind,
)
from closeflow.domain.orders import status as order_status
from closeflow.domain.position import exposure

from .builders import (
    OTHER_ID,
    a_book,
    a_position,
    a_request,
    a_send,
    a_statement,
    an_execution,
    an_order,
    at,
    canceled,
    filled,
    refused,
    working,
)

K, O = StatementKind, OrderStatus  # noqa: E741

STATUS_OF_FACTS: dict[str, tuple[dict[str, Any], OrderStatus, bool]] = {
    "planned stays planned": ({}, O.PLANNED, False),
    "denied stays denied, and is done": ({"status": O.DENIED}, O.DENIED, True),
    "an unknown send stays unknown": ({"status": O.SUBMIT_UNKNOWN}, O.SUBMIT_UNKNOWN, False),
    "any statement makes it new": ({"statements": (a_statement(K.NEW, 1),)}, O.NEW, False),
    "a statement outranks a denial": ({"status": O.DENIED, "statements": (a_statement(K.NEW, 1),)}, O.NEW, False),
    "an execution alone makes it partially filled": (
        {"executions": (an_execution("e", 40, 40),)},
        O.PARTIALLY_FILLED,
        False,
    ),
    "executions up to the quantity fill it": (
        {"executions": (an_execution("e", 60), an_execution("f", 40))},
        O.FILLED,
        True,
    ),
    "a stated cum up to the quantity fills it": ({"statements": (a_statement(K.NEW, 1, 100),)}, O.FILLED, True),
    "the label filled without a quantity fills nothing": ({"statements": (a_statement(K.FILLED, 1),)}, O.NEW, False),
    "filled wins over canceled": (
        {"statements": (a_statement(K.CANCELED, 9, 0),), "executions": (an_execution("e", 100, 100),)},
        O.FILLED,
        True,
    ),
    "canceled with its quantity is done": ({"statements": (a_statement(K.CANCELED, 9, 0),)}, O.CANCELED, True),
    "expired with its quantity is done": ({"statements": (a_statement(K.EXPIRED, 9, 30),)}, O.EXPIRED, True),
    "rejected with its quantity is done": ({"statements": (a_statement(K.REJECTED, 9, 0),)}, O.REJECTED, True),
    "canceled without its quantity ends nothing": ({"statements": (a_statement(K.CANCELED, 9),)}, O.NEW, False),
    "rejected with fills is not called rejected, but over": (
        {"statements": (a_statement(K.REJECTED, 9, 0),), "executions": (an_execution("e", 30, 30),)},
        O.PARTIALLY_FILLED,
        True,
    ),
    "without a sequence the terminal statement wins over any": (
        {"statements": (a_statement(K.CANCELED, None, 0), a_statement(K.NEW, 99, 0, t=9))},
        O.CANCELED,
        True,
    ),
    "on equal sequences the terminal statement wins": (
        {"statements": (a_statement(K.NEW, 7, 0, t=9), a_statement(K.EXPIRED, 7, 0))},
        O.EXPIRED,
        True,
    ),
    "a live statement newer than the terminal one means that it lives": (
        {"statements": (a_statement(K.CANCELED, 7, 0), a_statement(K.NEW, 8, 0))},
        O.NEW,
        False,
    ),
    "a live statement without a sequence is older than a terminal one with": (
        {"statements": (a_statement(K.CANCELED, 7, 0), a_statement(K.NEW, None, 0, t=9))},
        O.CANCELED,
        True,
    ),
    "a late fill keeps the label canceled": (
        {"statements": (a_statement(K.CANCELED, 9, 0),), "executions": (an_execution("e", 30, 30),)},
        O.CANCELED,
        True,
    ),
    "done for the day is not done": ({"statements": (a_statement(K.DONE_FOR_DAY, 5, 0),)}, O.DONE_FOR_DAY, False),
    "suspended is not done": ({"statements": (a_statement(K.SUSPENDED, 5, 20),)}, O.SUSPENDED, False),
    "a newer live statement ends a suspension": (
        {"statements": (a_statement(K.SUSPENDED, 5, 20), a_statement(K.NEW, 6, 20))},
        O.PARTIALLY_FILLED,
        False,
    ),
    "of two pauses the newer one counts": (
        {"statements": (a_statement(K.SUSPENDED, 5, 0), a_statement(K.DONE_FOR_DAY, 6, 0))},
        O.DONE_FOR_DAY,
        False,
    ),
    "replaced is not done": ({"statements": (a_statement(K.REPLACED, 5, 0),)}, O.NEW, False),
    "a cancel requested and nothing stated yet changes no label": ({"cancel_requested_at": at(1)}, O.PLANNED, False),
    "a cancel requested of a stated order is pending": (
        {"cancel_requested_at": at(1), "statements": (a_statement(K.NEW, 1, 0),)},
        O.PENDING_CANCEL,
        False,
    ),
    "a cancel wins over a pause": (
        {"cancel_requested_at": at(1), "statements": (a_statement(K.SUSPENDED, 1, 0),)},
        O.PENDING_CANCEL,
        False,
    ),
    "a cancel refused since it was requested is not pending": (
        {
            "cancel_requested_at": at(1),
            "statements": (a_statement(K.NEW, 1, 0), a_statement(K.CANCEL_REJECTED, 2, 0, t=5)),
        },
        O.NEW,
        False,
    ),
    "a cancel refused before it was requested is pending": (
        {
            "cancel_requested_at": at(9),
            "statements": (a_statement(K.NEW, 1, 0), a_statement(K.CANCEL_REJECTED, 2, 0, t=5)),
        },
        O.PENDING_CANCEL,
        False,
    ),
    "a cancel that nobody here asked for is pending too": (
        {"statements": (a_statement(K.PENDING_CANCEL, 3, 0),)},
        O.PENDING_CANCEL,
        False,
    ),
    "its refusal ends it": (
        {"statements": (a_statement(K.PENDING_CANCEL, 3, 0), a_statement(K.CANCEL_REJECTED, 4, 0))},
        O.NEW,
        False,
    ),
    "a pending cancel newer than a refusal stands": (
        {"statements": (a_statement(K.PENDING_CANCEL, 5, 0), a_statement(K.CANCEL_REJECTED, 4, 0))},
        O.PENDING_CANCEL,
        False,
    ),
    "a refused cancel says nothing of the order's end": (
        {"statements": (a_statement(K.CANCELED, 5, 0), a_statement(K.CANCEL_REJECTED, 6, 0))},
        O.CANCELED,
        True,
    ),
    "an accepted refusal rejects": ({"statements": (a_statement(K.REFUSED),)}, O.REJECTED, True),
    "a broker's statement overrules a refusal": (
        {"statements": (a_statement(K.REFUSED), a_statement(K.NEW, 1, 0))},
        O.NEW,
        False,
    ),
    "an execution overrules a refusal": (
        {"statements": (a_statement(K.REFUSED),), "executions": (an_execution("e", 30, 30),)},
        O.PARTIALLY_FILLED,
        False,
    ),
    "lost by an operator is done": ({"statements": (a_statement(K.LOST),)}, O.LOST, True),
    "lost and found is not lost": (
        {"statements": (a_statement(K.LOST), a_statement(K.NEW, 1, 0))},
        O.NEW,
        False,
    ),
}


@pytest.mark.parametrize(("of", "status", "done"), STATUS_OF_FACTS.values(), ids=STATUS_OF_FACTS.keys())
def test_the_status_is_a_function_of_the_facts(of: dict[str, Any], status: OrderStatus, done: bool) -> None:
    order = an_order(**of)
    assert (order.status, order_status.is_done(order)) == (status, done)
    reverse = replace(order, statements=order.statements[::-1], executions=order.executions[::-1])
    assert order_status.derive(reverse).status is status
    assert order_status.derive(order) == order


def test_a_gap_is_what_the_broker_stated_above_the_executions() -> None:
    order = an_order(executions=(an_execution("e", 40, 60),))
    assert order_status.executed(order) == 40
    assert order_status.known_cum(order) == 60
    assert order_status.unattributed(order) == 20
    assert exposure.exposure(order) == 40
    assert order.average_price == 10


def test_the_stated_quantity_never_goes_back() -> None:
    order = an_order(stated_cum_quantity=Decimal(50), statements=(a_statement(K.NEW, 1, 20),))
    assert order_status.known_cum(order) == 50


def test_an_order_is_not_over_because_it_was_not_found() -> None:
    order = an_order(status=OrderStatus.SUBMIT_UNKNOWN, not_found_count=99)
    assert not order_status.is_done(order)
    assert exposure.exposure(order) == 100


def test_quantities_of_a_refusal_prove_nothing() -> None:
    assert order_status.known_cum(an_order(statements=(a_statement(K.REFUSED, None, 70),))) == 0


EXPOSURES: dict[str, tuple[Order, int]] = {
    "an unsent plan": (an_order(sends=()), 100),
    "an unknown send": (an_order(status=O.SUBMIT_UNKNOWN), 100),
    "a working order": (working(done=30), 70),
    "a filled order": (filled(), 0),
    "a canceled order": (canceled(done=30), 0),
    "a refused order": (refused(), 0),
    "a denied order": (an_order(status=O.DENIED, sends=()), 0),
    "an order canceled without its quantity": (an_order(statements=(a_statement(K.CANCELED, 9),)), 100),
}


@pytest.mark.parametrize(("order", "expected"), EXPOSURES.values(), ids=EXPOSURES.keys())
def test_exposure_is_what_the_broker_may_still_fill(order: Order, expected: int) -> None:
    assert exposure.exposure(order) == expected


A_LONG, A_SHORT = a_position(100), a_position(-100)
OTHER = a_request(id=OTHER_ID)

OWED: dict[str, tuple[Position, tuple[Order, ...], int, int]] = {
    "everything when nothing was tried": (A_LONG, (), 100, 100),
    "only the target": (A_LONG, (), 30, 30),
    "the rest after a partly filled order": (a_position(60), (canceled(done=40),), 100, 60),
    "less what the broker states and we cannot name": (
        A_LONG,
        (an_order(statements=(a_statement(K.CANCELED, 9, 40),)),),
        100,
        60,
    ),
    "less the same from what is left of the position": (
        a_position(60),
        (an_order(statements=(a_statement(K.CANCELED, 9, 20),)),),
        100,
        40,
    ),
    "less what another request's order may still fill": (A_LONG, (working(70, request_id=OTHER_ID),), 100, 30),
    "less another order's unnamed fills": (
        A_LONG,
        (an_order(80, request_id=OTHER_ID, statements=(a_statement(K.CANCELED, 9, 50),)),),
        100,
        50,
    ),
    "never more than the position": (a_position(25), (), 100, 25),
    "never negative": (a_position(0), (working(70, request_id=OTHER_ID),), 100, 0),
    "of a short as of a long": (A_SHORT, (), 100, 100),
}


@pytest.mark.parametrize(("position", "orders", "target", "expected"), OWED.values(), ids=OWED.keys())
def test_owed(position: Position, orders: tuple[Order, ...], target: int, expected: int) -> None:
    book = a_book(*orders, position=position, requests=[a_request(target), OTHER])
    assert exposure.owed(book, book.requests[a_request().id]) == expected


OVERSELLS: dict[str, tuple[Position, tuple[Order, ...], int, bool]] = {
    "an order of the whole position does not": (A_LONG, (working(),), 100, False),
    "fills that lowered the position do not": (a_position(60), (working(done=40),), 100, False),
    "fills that are stated and not named do not": (
        A_LONG,
        (an_order(statements=(a_statement(K.NEW, 1, 40),)),),
        100,
        False,
    ),
    "an order above the position does": (a_position(99), (working(),), 100, True),
    "an order above the target does": (A_LONG, (working(31),), 30, True),
    "a retry that a late fill of the first attempt made too large does": (
        a_position(80),
        (canceled(done=20), working(100, attempt=2)),
        100,
        True,
    ),
    "another request's live order counts": (A_LONG, (working(60), working(41, request_id=OTHER_ID)), 60, True),
    "a sell of what is short by now does": (a_position(-100), (working(),), 100, True),
    "a finished order does not": (a_position(0), (filled(),), 100, False),
}


@pytest.mark.parametrize(("position", "orders", "target", "expected"), OVERSELLS.values(), ids=OVERSELLS.keys())
def test_oversells(position: Position, orders: tuple[Order, ...], target: int, expected: bool) -> None:
    book = a_book(*orders, position=position, requests=[a_request(target), OTHER])
    assert exposure.oversells(book, book.requests[a_request().id]) is expected


def test_a_buy_closes_only_a_short() -> None:
    assert exposure.closable(a_book(position=A_SHORT), Side.BUY) == 100
    assert exposure.closable(a_book(position=A_LONG), Side.BUY) == 0
    assert exposure.closable(a_book(position=A_LONG), Side.SELL) == 100


CLEAR: dict[str, tuple[tuple[Order, ...], bool]] = {
    "no order": ((), True),
    "every order over": ((filled(40), canceled(60, attempt=2)), True),
    "one order that may still fill": ((canceled(), working(attempt=2)), False),
    "one plan that was never sent": ((an_order(sends=()),), False),
    "a fill that cannot be named": ((an_order(statements=(a_statement(K.CANCELED, 9, 40),)),), False),
    "an order of another request": ((filled(), working(10, request_id=OTHER_ID)), False),
}


@pytest.mark.parametrize(("orders", "expected"), CLEAR.values(), ids=CLEAR.keys())
def test_clear(orders: tuple[Order, ...], expected: bool) -> None:
    assert exposure.is_clear(a_book(*orders)) is expected


def test_only_sends_that_the_broker_may_have_seen_count() -> None:
    answers = [SendAnswer.NOT_SENT, SendAnswer.NOT_ACCEPTED, SendAnswer.UNKNOWN, SendAnswer.REJECTED, None]
    sends = tuple(a_send(answer, n) for n, answer in enumerate(answers, 1))
    order = an_order(sends=(*sends, a_send(kind=SendKind.CANCEL)))
    assert order_status.sends_that_count(order) == 3
    assert order_status.sends_that_count(order, SendKind.CANCEL) == 1


def test_orders_of_a_request_come_oldest_attempt_first() -> None:
    book = a_book(canceled(attempt=2), canceled(attempt=1), working(request_id=OTHER_ID))
    assert [order.attempt for order in book.orders_of(a_request().id)] == [1, 2]


def test_a_position_without_an_active_request_has_none() -> None:
    assert a_book(position=a_position(active_close_request_id=None, status=PositionStatus.OPEN)).active is None
