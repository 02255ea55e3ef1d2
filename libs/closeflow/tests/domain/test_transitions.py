"""The legal moves, written by hand from lifecycle.md and not from the table; every other pair is refused."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from closeflow.domain.model import Book, OrderStatus, PositionStatus, RequestStatus
from closeflow.domain.transitions import illegal_moves

from .builders import OTHER_ID, REQUEST_ID, a_book, a_position, a_request, an_order

POSITION_MOVES = """
    open             > closing closed
    closing          > open closed close_retryable close_failed
    closed           > open closing close_retryable
    close_retryable  > open closing closed close_failed
    close_failed     > open closing closed
"""
REQUEST_MOVES = """
    pending    > submitted completed failed
    submitted  > completed retryable failed
    completed  > submitted retryable
    retryable  > pending submitted completed failed
    failed     > completed
"""
ORDER_MOVES = """
    planned          > denied submit_unknown new partially_filled filled pending_cancel canceled expired rejected \
                       suspended done_for_day
    denied           > new partially_filled filled pending_cancel canceled expired rejected suspended done_for_day
    submit_unknown   > denied lost new partially_filled filled pending_cancel canceled expired rejected suspended \
                       done_for_day
    lost             > new partially_filled filled pending_cancel canceled expired rejected suspended done_for_day
    new              > lost partially_filled filled pending_cancel canceled expired rejected suspended done_for_day
    partially_filled > lost new filled pending_cancel canceled expired rejected suspended done_for_day
    filled           > new partially_filled pending_cancel canceled expired rejected suspended done_for_day
    pending_cancel   > lost new partially_filled filled canceled expired rejected suspended done_for_day
    canceled         > new partially_filled filled pending_cancel expired rejected suspended done_for_day
    expired          > new partially_filled filled pending_cancel canceled rejected suspended done_for_day
    rejected         > new partially_filled filled pending_cancel canceled expired suspended done_for_day
    suspended        > lost new partially_filled filled pending_cancel canceled expired rejected done_for_day
    done_for_day     > lost new partially_filled filled pending_cancel canceled expired rejected suspended
"""


def sentences(text: str) -> list[object]:
    rows = [line.split(">") for line in text.strip().splitlines()]
    moves = {was.strip(): set(after.split()) for was, after in rows}
    return [
        pytest.param(was, to, id=f"{was} goes to {', '.join(sorted(to)) or 'nothing'}") for was, to in moves.items()
    ]


def legal(before: Book, after: Iterable[Book]) -> list[Book]:
    return [book for book in after if not list(illegal_moves(before, book))]


def with_order(status: str) -> Book:
    return a_book(replace(an_order(), status=OrderStatus(status)))


@pytest.mark.parametrize(("was", "to"), sentences(POSITION_MOVES))
def test_a_position(was: str, to: set[str]) -> None:
    books = [a_book(position=a_position(status=status)) for status in PositionStatus]
    before = a_book(position=a_position(status=PositionStatus(was)))
    assert {book.position.status.value for book in legal(before, books)} == {was, *to}


@pytest.mark.parametrize(("was", "to"), sentences(REQUEST_MOVES))
def test_a_close_request(was: str, to: set[str]) -> None:
    books = [a_book(status=status) for status in RequestStatus]
    before = a_book(status=RequestStatus(was))
    assert {book.requests[REQUEST_ID].status.value for book in legal(before, books)} == {was, *to}


@pytest.mark.parametrize(("was", "to"), sentences(ORDER_MOVES))
def test_an_order(was: str, to: set[str]) -> None:
    found = legal(with_order(was), [with_order(status) for status in OrderStatus])
    assert {book.orders_of(REQUEST_ID)[0].status.value for book in found} == {was, *to}


def test_the_lists_above_name_every_status() -> None:
    named = [
        [line.split(">")[0].strip() for line in text.strip().splitlines()]
        for text in (POSITION_MOVES, REQUEST_MOVES, ORDER_MOVES)
    ]
    assert named == [list(PositionStatus), list(RequestStatus), list(OrderStatus)]


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (
            a_book(status=RequestStatus.SUBMITTED),
            a_book(status=RequestStatus.PENDING),
            f"close request {REQUEST_ID}: submitted -> pending",
        ),
        (a_book(), a_book(position=a_position(status=PositionStatus.OPEN, version=6)), ""),
        (
            a_book(position=a_position(status=PositionStatus.CLOSED)),
            a_book(position=a_position(status=PositionStatus.CLOSE_FAILED)),
            "position 41: closed -> close_failed",
        ),
        (with_order("filled"), with_order("lost"), f"order {an_order().client_order_id}: filled -> lost"),
    ],
    ids=["submitted never goes back to pending", "a legal move", "a closed position", "a filled order"],
)
def test_an_illegal_move_says_what_it_is(before: Book, after: Book, text: str) -> None:
    assert [str(move) for move in illegal_moves(before, after)] == ([f"{text} is not a legal move"] if text else [])


def test_what_stays_or_is_new_has_not_moved() -> None:
    before = a_book(an_order())
    new = a_request(id=OTHER_ID, status=RequestStatus.FAILED)
    after = replace(before, requests={**before.requests, OTHER_ID: new})
    after = replace(after, orders={**after.orders, "new": replace(an_order(attempt=2), status=OrderStatus.FILLED)})
    assert legal(before, [before, after]) == [before, after]
