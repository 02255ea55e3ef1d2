"""What a refused cancel counts as, by what the broker then says of the order."""

from __future__ import annotations

import pytest

from closeflow.domain.answers import (
    Acknowledged,
    LookUpAnswer,
    NotAccepted,
    NotFound,
    NotSent,
    Unanswered,
    refused_cancel,
)
from closeflow.domain.model import BrokerStatus, ExecType, SendAnswer

from .builders import an_update

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
