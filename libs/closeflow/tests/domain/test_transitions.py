"""The legal moves, written by hand from lifecycle.md and not from the table; every other pair is refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest

from closeflow.domain.model import Book, OrderStatus, PositionStatus, RequestStatus
from closeflow.domain.transitions import illegal_moves

from .builders import OTHER_ID, a_book, a_position, a_request, an_order

POSITION_MOVES = """
    open             > closing closed
    closing          > open closed close_retryable close_failed
    closed           >
    close_retryable  > open closing closed close_failed
    close_failed     > open closing closed
"""
REQUEST_MOVES = """
    pending    > submitted completed failed
    submitted  > completed retryable failed
    completed  >
    retryable  > pending completed failed
    failed     > completed
"""
ORDER_MOVES = """
    planned          > denied submit_unknown new partially_filled filled pending_cancel canceled expired rejected \
                       suspended done_for_day
    denied           > new partially_filled filled pending_cancel canceled expired rejected suspended done_for_day
    submit_unknown   > new partially_filled filled pending_cancel canceled expired rejected suspended done_for_day
    lost             >
    new              > partially_filled filled pending_cancel canceled expired rejected suspended done_for_day
    partially_filled > filled pending_cancel canceled expired suspended done_for_day
    filled           >
    pending_cancel   > new partially_filled filled canceled expired rejected suspended done_for_day
    canceled         > new partially_filled filled pending_cancel expired rejected suspended done_for_day
    expired          > new partially_filled filled pending_cancel canceled rejected suspended done_for_day
    rejected         > new partially_filled filled pending_cancel canceled expired suspended done_for_day
    suspended        > new partially_filled filled pending_cancel canceled expired rejected done_for_day
    done_for_day     > new partially_filled filled pending_cancel canceled expired rejected suspended
"""


def moves(text: str) -> set[tuple[str, str]]:
    rows = (line.split(">") for line in text.strip().splitlines())
    return {(was.strip(), now) for was, after in rows for now in after.split()}


def sentences(text: str, statuses: list[str]) -> list[object]:
    legal = moves(text)
    assert {status for move in legal for status in move} <= set(statuses)
    return [
        pytest.param(was, now, (was, now) in legal, id=f"{was} to {now} is {'legal' if (was, now) in legal else 'not'}")
        for was, now in permutations(statuses, 2)
    ]


def refused(before: Book, after: Book) -> list[str]:
    return [f"{move.before} -> {move.after}" for move in illegal_moves(before, after)]


@pytest.mark.parametrize(("was", "now", "legal"), sentences(POSITION_MOVES, list(PositionStatus)))
def test_position_moves(was: PositionStatus, now: PositionStatus, legal: bool) -> None:
    before, after = (a_book(position=a_position(status=status)) for status in (was, now))
    assert refused(before, after) == ([] if legal else [f"{was} -> {now}"])


@pytest.mark.parametrize(("was", "now", "legal"), sentences(REQUEST_MOVES, list(RequestStatus)))
def test_request_moves(was: RequestStatus, now: RequestStatus, legal: bool) -> None:
    before, after = a_book(status=was), a_book(status=now)
    assert refused(before, after) == ([] if legal else [f"{was} -> {now}"])


@pytest.mark.parametrize(("was", "now", "legal"), sentences(ORDER_MOVES, list(OrderStatus)))
def test_order_moves(was: OrderStatus, now: OrderStatus, legal: bool) -> None:
    before, after = (a_book(replace(an_order(), status=status)) for status in (was, now))
    assert refused(before, after) == ([] if legal else [f"{was} -> {now}"])


def test_submitted_never_goes_back_to_pending() -> None:
    before, after = a_book(status=RequestStatus.SUBMITTED), a_book(status=RequestStatus.PENDING)
    (move,) = illegal_moves(before, after)
    assert str(move) == f"close request {a_request().id}: submitted -> pending is not a legal move"


def test_what_stays_or_is_new_has_not_moved() -> None:
    before = a_book(an_order())
    new = a_request(id=OTHER_ID, status=RequestStatus.FAILED)
    after = replace(before, requests={**before.requests, OTHER_ID: new})
    after = replace(after, orders={**after.orders, "new": replace(an_order(attempt=2), status=OrderStatus.FILLED)})
    assert refused(before, before) == []
    assert refused(before, after) == []
