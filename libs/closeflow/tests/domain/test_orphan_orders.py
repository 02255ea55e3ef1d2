"""An order that outlives its request is cancelled once if the broker has it, and told as long as it is an orphan."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from closeflow.domain.close.orphan_orders import OrphansResult, cancel_orphans
from closeflow.domain.incidents import IncidentKind
from closeflow.domain.model import (
    BrokerStatus,
    ExecType,
    Order,
    OrderRef,
    OrderStatus,
    PositionStatus,
    RequestStatus,
)
from closeflow.domain.sending.broker_answers import Acknowledged, LookUpAnswer, NotFound, Unanswered
from closeflow.domain.transitions import illegal_moves

from .builders import NOW, REQUEST_ID, a_book, a_position, an_order, an_update, filled, working


def unknown(**changes: Any) -> Order:
    return an_order(status=OrderStatus.SUBMIT_UNKNOWN, **changes)


def ended(order: Order, answer: LookUpAnswer | None = None, **request: Any) -> OrphansResult:
    position = a_position(status=PositionStatus.CLOSE_FAILED, active_close_request_id=None)
    book = a_book(order, position=position, **{"status": RequestStatus.FAILED, "reason": "submit_unknown", **request})
    answers = {} if answer is None else {order.client_order_id: answer}
    ref = OrderRef(order.client_order_id, order.position_id, REQUEST_ID)
    result = cancel_orphans({position.id: book}, [ref], answers, now=NOW)
    assert [move for before, after in result.changes for move in illegal_moves(before, after)] == []
    return result


def has(status: BrokerStatus) -> Acknowledged:
    return Acknowledged(an_update(ExecType.ORDER_STATUS, status))


@pytest.mark.parametrize(
    ("order", "answer", "canceled"),
    [
        pytest.param(unknown(), has(BrokerStatus.NEW), True, id="the broker has it"),
        pytest.param(unknown(), NotFound(), False, id="the broker does not find it"),
        pytest.param(unknown(), Unanswered("away"), False, id="the broker gives no answer"),
        pytest.param(unknown(), None, False, id="the broker was not asked"),
        pytest.param(unknown(), has(BrokerStatus.CANCELED), False, id="it takes no cancel any more"),
        pytest.param(working(), None, True, id="the broker stated before to have it"),
        pytest.param(replace(working(), cancel_requested_at=NOW), None, False, id="its cancel was asked for"),
    ],
)
def test_it_is_cancelled_if_it_lives_and_told_either_way(
    order: Order, answer: LookUpAnswer | None, canceled: bool
) -> None:
    result = ended(order, answer)
    assert result.canceled == [order.client_order_id] * canceled
    assert bool(result.changes) is canceled
    (incident,) = result.incidents
    assert (incident.kind, incident.client_order_id) == (IncidentKind.ORDER_OUTLIVES_REQUEST, order.client_order_id)


@pytest.mark.parametrize(
    ("order", "request_"),
    [
        pytest.param(filled(), {}, id="it is done"),
        pytest.param(working(), {"status": RequestStatus.SUBMITTED}, id="its request lives again"),
    ],
)
def test_one_that_is_no_orphan_by_now_is_left_alone(order: Order, request_: dict[str, Any]) -> None:
    result = ended(order, has(BrokerStatus.NEW), **request_)
    assert (result.canceled, result.changes, result.incidents) == ([], [], [])
