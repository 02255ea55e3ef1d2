"""Orders that the broker has and the database lost: what is held, and what goes on."""

from __future__ import annotations

from typing import Final

import pytest

from closeflow.domain.batch import BatchResult
from closeflow.domain.close.unrecorded_orders import hold_positions
from closeflow.domain.ids import client_order_id
from closeflow.domain.incidents import IncidentKind
from closeflow.domain.model import Book, PositionStatus, RequestStatus

from .builders import NOW, OTHER_ID, REQUEST_ID, a_book, a_position

MINE: Final = client_order_id(REQUEST_ID, 1)
LOST: Final = client_order_id(OTHER_ID, 1)
OPEN: Final = a_position(status=PositionStatus.OPEN, active_close_request_id=None)


def hold(book: Book, *orders: str, forever: bool) -> BatchResult:
    before = {book.position.id: book}
    return hold_positions(before, {book.position.id: orders}, ids_are_taken_for_ever=forever, now=NOW)


@pytest.mark.parametrize("forever", [True, False])
def test_a_position_that_is_in_no_close_has_its_exposure_unproven(forever: bool) -> None:
    book = a_book(position=OPEN, requests=[])
    result = hold(book, LOST, forever=forever)
    after = result.books[book.position.id].position
    assert after.exposure_unproven
    assert len(result.events) == 1
    assert after.version == book.position.version + 1
    (incident,) = result.incidents
    assert (incident.kind, incident.position_id, incident.close_request_id) == (
        IncidentKind.ORDER_NOT_RECORDED,
        book.position.id,
        None,
    )
    assert LOST in incident.detail


@pytest.mark.parametrize("forever", [True, False])
def test_a_close_is_frozen_by_an_order_of_another_one(forever: bool) -> None:
    book = a_book(status=RequestStatus.PENDING)
    result = hold(book, LOST, forever=forever)
    assert result.books[book.position.id].requests[REQUEST_ID].frozen_reason == IncidentKind.ORDER_NOT_RECORDED
    assert [one.close_request_id for one in result.incidents] == [REQUEST_ID]
    assert result.events == []


def test_a_close_whose_own_order_is_lost_is_frozen_unless_its_id_is_taken_for_ever() -> None:
    book = a_book(status=RequestStatus.PENDING)
    frozen = hold(book, MINE, forever=False)
    assert frozen.books[book.position.id].requests[REQUEST_ID].frozen_reason == IncidentKind.ORDER_NOT_RECORDED
    assert len(frozen.incidents) == 1

    goes_on = hold(book, MINE, forever=True)
    assert (goes_on.changes, goes_on.incidents) == ([], [])


def test_a_close_that_is_over_uses_no_id_again() -> None:
    book = a_book(status=RequestStatus.FAILED, position=OPEN)
    result = hold(book, MINE, forever=True)
    assert result.books[book.position.id].position.exposure_unproven
    assert len(result.incidents) == 1
