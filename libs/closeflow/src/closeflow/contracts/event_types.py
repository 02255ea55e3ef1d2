"""Every `ce_type` that a producer of ours writes, by topic, and what each says; and what `ce_time` means in all.

A value's own times say when what it tells of happened: `occurred_at` and `requested_at`, and `transact_time` by the
broker's clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from closeflow.contracts.topics import BROKER_FILL, EXECUTION_EVENTS, POSITION_EVENTS, SUBMIT_ORDER
from closeflow.domain.enums import ExecType
from closeflow.domain.outbox import events

CE_TIME: Final = (
    "When the producer recorded the event: of the outbox's topics the database's time of the transaction that made it "
    "true, or of the later emission; of broker-fill the time at which the producer heard it from the broker."
)


def broker_event_type(exec_type: ExecType) -> str:
    """The `ce_type` of a record of broker-fill."""
    return f"BROKER_{exec_type.upper()}"


_OF_EXEC_TYPE: Final[Mapping[ExecType, str]] = {
    ExecType.NEW: "The broker took the order.",
    ExecType.TRADE: "An execution of the order.",
    ExecType.CANCELED: "The order was cancelled; what had filled by then stays.",
    ExecType.REJECTED: "The order was refused.",
    ExecType.EXPIRED: "The order's time in force ended.",
    ExecType.REPLACED: "Somebody replaced the order by another one.",
    ExecType.PENDING_CANCEL: "The broker works on a cancel of the order.",
    ExecType.CANCEL_REJECTED: "The cancel of the order was refused; the order lives.",
    ExecType.SUSPENDED: "The order was suspended.",
    ExecType.DONE_FOR_DAY: "Nothing more of the order is executed today.",
    ExecType.TRADE_CANCEL: "An execution was taken back (a bust).",
    ExecType.TRADE_CORRECT: "An execution has another quantity or price.",
    ExecType.CHARGE: "A commission or fee of an execution, listed by itself.",
    ExecType.ORDER_STATUS: "What the order is, when the broker was asked.",
    ExecType.NOT_FOUND: "The broker does not know the order it was asked for.",
    ExecType.ABSENT: "The broker does not list the order among those it was asked for.",
}

EVENT_TYPES: Final[Mapping[str, Mapping[str, str]]] = {
    SUBMIT_ORDER: {events.SUBMIT_CLOSE_ORDER: "A close has an attempt to plan."},
    BROKER_FILL: {broker_event_type(one): said for one, said in _OF_EXEC_TYPE.items()},
    POSITION_EVENTS: {
        events.POSITION_OPEN: "The position is open, and no close of it is under way.",
        events.POSITION_CLOSING: "A close of the position was accepted, or goes on.",
        events.POSITION_REDUCED: "Its quantity changed, and it is not closed.",
        events.POSITION_CLOSED: "Nothing of it is left.",
        events.POSITION_REOPENED: "It was closed, and holds something again.",
        events.CLOSE_REQUEST_RETRYABLE: "Its close waits for another attempt.",
        events.CLOSE_REQUEST_FAILED: "Its close ended without closing it.",
    },
    EXECUTION_EVENTS: {
        events.EXECUTION_RECORDED: "An execution enters the books.",
        events.EXECUTION_REVERSED: "An execution is taken back.",
        events.EXECUTION_CORRECTED: "A corrected execution enters the books in the place of the one reversed.",
        events.EXECUTION_CHARGED: "Commission or fees of an execution enter the books after it.",
    },
}
