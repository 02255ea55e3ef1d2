"""What a refused cancel counts as, by what the broker then says of the order."""

from __future__ import annotations

import pytest

from closeflow.domain.model import BrokerStatus, BrokerUpdate, ExecType, SendAnswer
from closeflow.domain.orders import status as order_status
from closeflow.domain.sending.broker_answers import (
    Acknowledged,
    LookUpAnswer,
    NotAccepted,
    NotFound,
    NotSent,
    Unanswered,
    refused_cancel,
)

from .builders import an_update, applied, at, working

LIVES = {
    BrokerStatus.NEW,
    BrokerStatus.PARTIALLY_FILLED,
    BrokerStatus.PENDING_CANCEL,
    BrokerStatus.SUSPENDED,
    BrokerStatus.DONE_FOR_DAY,
}


@pytest.mark.parametrize("status", BrokerStatus)
def test_only_the_refusal_of_an_order_that_lives_is_one(status: BrokerStatus) -> None:
    expected = SendAnswer.REJECTED if status in LIVES else SendAnswer.ACCEPTED
    assert refused_cancel(Acknowledged(an_update(ExecType.ORDER_STATUS, status))) is expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (NotFound(), SendAnswer.REJECTED),
        (NotAccepted("rate limited", 1.0), SendAnswer.UNKNOWN),
        (NotSent("no connection"), SendAnswer.UNKNOWN),
        (Unanswered("time-out"), SendAnswer.UNKNOWN),
    ],
)
def test_without_a_word_on_the_order_nothing_is_proven(found: LookUpAnswer, expected: SendAnswer) -> None:
    assert refused_cancel(found) is expected


HOURS = [-3600, 0, 3600]


def refusal(stated: float, heard: float) -> BrokerUpdate:
    """Without a sequence, so that only times tell it from what was before."""
    return an_update(ExecType.CANCEL_REJECTED, BrokerStatus.NEW, transact_time=at(stated), received_at=at(heard))


@pytest.mark.parametrize("ahead", HOURS)
def test_whether_it_came_after_our_cancel_is_told_by_the_database(ahead: float) -> None:
    """The broker's clock may be an hour off, in either direction."""
    asked = working(cancel_requested_at=at(20))
    assert not order_status.cancel_pending(applied(asked, refusal(25 + ahead, 25)))
    assert order_status.cancel_pending(applied(asked, refusal(15 + ahead, 15))), "it was of an earlier cancel"


@pytest.mark.parametrize("ahead", HOURS)
def test_whether_it_came_after_the_brokers_own_word_is_told_by_the_broker(ahead: float) -> None:
    canceling = an_update(ExecType.PENDING_CANCEL, BrokerStatus.PENDING_CANCEL, transact_time=at(20 + ahead))
    order = applied(working(statements=()), canceling)
    assert order_status.cancel_pending(order)
    assert not order_status.cancel_pending(applied(order, refusal(25 + ahead, 5)))
    assert order_status.cancel_pending(applied(order, refusal(15 + ahead, 30)))
