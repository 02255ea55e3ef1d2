"""A position and its close requests that disagree are brought in line by legal moves, or by a person."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from closeflow.domain.close.repair import InLine, NotRepaired, Repaired, repair, repair_batch
from closeflow.domain.incidents import IncidentKind
from closeflow.domain.model import Book, CloseRequest, Order, PositionStatus, RequestStatus
from closeflow.domain.transitions import illegal_moves

from .builders import NOW, OTHER_ID, REQUEST_ID, a_book, a_position, a_request, canceled, filled, refused, working

P, R = PositionStatus, RequestStatus


def book_of(
    status: PositionStatus,
    *orders: Order,
    names: object = None,
    quantity: int | None = None,
    requests: tuple[CloseRequest, ...] = (),
) -> Book:
    position = a_position(status=status, active_close_request_id=names)
    book = a_book(*orders, position=position, requests=requests)
    held = book.ledger_quantity if quantity is None else Decimal(quantity)
    return replace(book, position=replace(position, quantity=held))


def asked(status: RequestStatus, **changes: Any) -> CloseRequest:
    return a_request(status=status, **changes)


@pytest.mark.parametrize(
    ("book", "status", "active"),
    [
        pytest.param(book_of(P.CLOSING), P.OPEN, None, id="P3: closing, and nothing asks for it"),
        pytest.param(book_of(P.CLOSE_RETRYABLE), P.OPEN, None, id="P10: to be retried, and nothing asks for it"),
        pytest.param(
            book_of(P.CLOSING, working(), requests=(asked(R.FAILED),)),
            P.CLOSE_FAILED,
            None,
            id="P7: closing, nothing asks for it, and an order may still fill",
        ),
        pytest.param(
            book_of(P.CLOSING, filled(), requests=(asked(R.COMPLETED),)), P.CLOSED, None, id="P2: it is closed"
        ),
        pytest.param(
            book_of(P.CLOSING, canceled(100, 40), names=REQUEST_ID, requests=(asked(R.FAILED),)),
            P.CLOSE_FAILED,
            None,
            id="P7: it names a request that failed",
        ),
        pytest.param(
            book_of(P.CLOSE_RETRYABLE, canceled(100, 40), names=REQUEST_ID, requests=(asked(R.FAILED),)),
            P.CLOSE_FAILED,
            None,
            id="P6: between attempts it names a request that failed",
        ),
        pytest.param(
            book_of(P.CLOSING, canceled(100, 40), names=REQUEST_ID, requests=(asked(R.COMPLETED, target=40),)),
            P.OPEN,
            None,
            id="P3: it names a request that completed",
        ),
        pytest.param(book_of(P.CLOSING, names=OTHER_ID), P.OPEN, None, id="P3: it names a request that is not there"),
        pytest.param(
            book_of(P.OPEN, working(), requests=(asked(R.SUBMITTED),)),
            P.CLOSING,
            REQUEST_ID,
            id="P1: a request that it does not name is at work",
        ),
        pytest.param(
            book_of(P.CLOSE_FAILED, requests=(asked(R.PENDING),)),
            P.CLOSING,
            REQUEST_ID,
            id="P8: a request that it does not name is pending",
        ),
        pytest.param(
            book_of(P.CLOSING, canceled(100, 40), requests=(asked(R.RETRYABLE),)),
            P.CLOSE_RETRYABLE,
            REQUEST_ID,
            id="P4: the request that it does not name is to be retried",
        ),
        pytest.param(
            book_of(P.OPEN, names=REQUEST_ID, requests=(asked(R.PENDING),)),
            P.CLOSING,
            REQUEST_ID,
            id="P1: it is open although the request that it names is pending",
        ),
        pytest.param(
            book_of(P.CLOSING, canceled(100, 40), names=REQUEST_ID, requests=(asked(R.RETRYABLE),)),
            P.CLOSE_RETRYABLE,
            REQUEST_ID,
            id="P4: it is closing although the request that it names waits to be retried",
        ),
        pytest.param(
            book_of(
                P.CLOSING,
                names=OTHER_ID,
                requests=(asked(R.PENDING), replace(asked(R.FAILED), id=OTHER_ID)),
            ),
            P.CLOSING,
            REQUEST_ID,
            id="it names the one that is over instead of the one that is pending",
        ),
    ],
)
def test_it_is_brought_in_line(book: Book, status: PositionStatus, active: object) -> None:
    found = repair(book, now=NOW)

    assert isinstance(found, Repaired)
    position = found.book.position
    assert (position.status, position.active_close_request_id) == (status, active)
    assert list(illegal_moves(book, found.book)) == []
    assert (found.incident.kind, found.incident.position_id) == (IncidentKind.REPAIRED, position.id)
    (event,) = found.events
    assert event.position_version == position.version == book.position.version + 1
    assert repair(found.book, now=NOW) == InLine()


def test_a_request_whose_position_is_gone_completes_with_it() -> None:
    book = book_of(P.OPEN, quantity=0, requests=(asked(R.PENDING),))
    found = repair(book, now=NOW)

    assert isinstance(found, Repaired)
    request = found.book.requests[REQUEST_ID]
    assert (request.status, request.reason) == (R.COMPLETED, "externally_closed")
    assert found.book.position.status is P.CLOSED


def test_an_order_that_may_still_fill_leaves_the_exposure_unproven() -> None:
    found = repair(book_of(P.CLOSING, working(), requests=(asked(R.FAILED),)), now=NOW)
    assert isinstance(found, Repaired)
    assert found.book.position.exposure_unproven


@pytest.mark.parametrize(
    ("book", "why"),
    [
        pytest.param(
            book_of(P.OPEN, refused(), names=REQUEST_ID, requests=(asked(R.FAILED),)),
            "open -> close_failed is not a legal move",
            id="an open position cannot have failed to close",
        ),
        pytest.param(
            book_of(P.OPEN, canceled(100, 40), requests=(asked(R.RETRYABLE),)),
            "open -> close_retryable is not a legal move",
            id="nor can it be between two attempts",
        ),
    ],
)
def test_a_person_has_to_mend_what_no_legal_move_does(book: Book, why: str) -> None:
    found = repair(book, now=NOW)
    assert isinstance(found, NotRepaired)
    assert found.incident.kind == IncidentKind.NOT_REPAIRED
    assert why in found.incident.detail


@pytest.mark.parametrize(
    "book",
    [
        pytest.param(a_book(working()), id="closing, by an order at work"),
        pytest.param(a_book(status=R.PENDING), id="closing, about to be planned"),
        pytest.param(book_of(P.OPEN), id="open"),
        pytest.param(book_of(P.CLOSE_FAILED, requests=(asked(R.FAILED),)), id="failed"),
        pytest.param(book_of(P.CLOSED, filled(), requests=(asked(R.COMPLETED),)), id="closed"),
    ],
)
def test_what_agrees_is_left_alone(book: Book) -> None:
    assert repair(book, now=NOW) == InLine()


def test_of_a_batch_only_what_was_found_is_repaired_and_told() -> None:
    fine, wrong, other = book_of(P.OPEN), book_of(P.CLOSING), book_of(P.CLOSING)
    result = repair_batch({1: fine, wrong.position.id: wrong, 99: other}, [1, wrong.position.id], now=NOW)
    assert [before for before, _ in result.changes] == [wrong]
    assert [one.kind for one in result.incidents] == [IncidentKind.REPAIRED]
    assert result.events
