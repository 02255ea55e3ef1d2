"""A freeze (rule R11) holds the whole position, also when the frozen close is over: what froze it may be a fill that is
not booked, and a new close would sell it again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from closeflow.domain.close.accept import Accepted, CloseCommand, Decision, ExposureUnproven, accept_close
from closeflow.domain.close.deferral import Defer
from closeflow.domain.close.plan_order import Plan
from closeflow.domain.model import Book, OrderStatus, PositionStatus, RequestStatus
from closeflow.domain.sending.send_check import Clear, Hold, recheck
from closeflow.domain.trading_controls import TradingState

from .builders import CONTROLS, NOW, OTHER_ID, a_book, a_position, a_request, an_order, canceled
from .test_plan_order import pending, planned

OVER = [RequestStatus.FAILED, RequestStatus.COMPLETED]


def with_frozen(book: Book, status: RequestStatus = RequestStatus.FAILED, **changes: Any) -> Book:
    """The book with another request of its position, that is over and frozen unless `changes` say otherwise."""
    frozen = a_request(id=OTHER_ID, status=status, **{"frozen_reason": "contradicts_order", **changes})
    return replace(book, requests={**book.requests, OTHER_ID: frozen})


def a_new_close(book: Book) -> Decision:
    command = CloseCommand(request_id=OTHER_ID, position_id=41, idempotency_key="new", requested_by="desk")
    return accept_close(book, command, None, trading=TradingState.ACTIVE, now=NOW)


@pytest.mark.parametrize("status", OVER)
@pytest.mark.parametrize("where", [PositionStatus.OPEN, PositionStatus.CLOSE_FAILED])
def test_no_close_is_accepted_while_an_earlier_one_is_frozen(status: RequestStatus, where: PositionStatus) -> None:
    position = a_position(status=where, active_close_request_id=None)
    book = a_book(canceled(request_id=OTHER_ID), position=position, requests=[])
    assert a_new_close(with_frozen(book, status)) == ExposureUnproven(41)
    assert isinstance(a_new_close(with_frozen(book, status, frozen_reason=None)), Accepted)


@pytest.mark.parametrize("status", OVER)
def test_an_order_is_not_sent_while_another_close_of_its_position_is_frozen(status: RequestStatus) -> None:
    book = a_book(an_order(sends=()))
    (order,) = book.orders.values()
    assert recheck(with_frozen(book, status), order, controls=CONTROLS, now=NOW) == Hold("frozen")
    assert recheck(book, order, controls=CONTROLS, now=NOW) == Clear()


def test_nothing_is_planned_while_another_close_of_the_position_is_frozen() -> None:
    decided: Plan = planned(with_frozen(pending()))
    assert isinstance(decided, Defer)
    assert decided.reason == "frozen"


@pytest.mark.parametrize("changes", [{"cancel_requested_at": NOW}, {"deadline_at": NOW}], ids=["user", "deadline"])
def test_a_frozen_close_does_not_end_before_it_was_looked_at(changes: dict[str, Any]) -> None:
    denied = an_order(sends=(), status=OrderStatus.DENIED)
    for decided in (
        planned(pending(frozen_reason="poison", **changes)),
        planned(pending(denied, attempt=2, frozen_reason="poison", **changes), attempt=2),
    ):
        assert isinstance(decided, Defer)
        assert decided.reason == "frozen"
