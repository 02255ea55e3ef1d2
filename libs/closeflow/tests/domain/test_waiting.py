"""What a close waits for, who acts next, and the command that is safe: one row for each way to stand still."""

from __future__ import annotations

import shlex
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import pytest

from closeflow.domain.enums import OrderStatus, RequestStatus
from closeflow.domain.operator.waiting import (
    AT_WORK,
    NEEDS_A_PERSON,
    CloseSeen,
    OpenIncident,
    OrderSeen,
    Owner,
    Wait,
    WaitsFor,
    waiting,
)

from .builders import NOW, REQUEST_ID, a_request, at

PENDING: Final = {"status": RequestStatus.PENDING, "submitted_at": None}
RETRYABLE: Final = {"status": RequestStatus.RETRYABLE, "next_attempt_at": at(20)}
SHOW: Final = f"closectl show {REQUEST_ID}"
RETRY: Final = f"closectl requests retry {REQUEST_ID} --reason REASON"
CANCEL: Final = f"closectl requests cancel {REQUEST_ID} --reason REASON"


def order(status: OrderStatus, **changes: Any) -> OrderSeen:
    sent = {} if status is OrderStatus.PLANNED else {"first_sent_at": at(1), "last_sent_at": at(2)}
    return OrderSeen(client_order_id="cf-1", status=status, created_at=NOW, **{**sent, **changes})


def wait_of(request: dict[str, Any], **seen: Any) -> Wait:
    return waiting(CloseSeen(request=a_request(**request), **seen))


Row = tuple[dict[str, Any], dict[str, Any], WaitsFor, Owner, datetime | None, str]
OPERATOR, BROKER, SUBMITTER = Owner.OPERATOR, Owner.BROKER, Owner.ORDER_SUBMITTER


def pending(reason: str, waits_for: WaitsFor, owner: Owner, command: str = SHOW) -> Row:
    """A deferral, which is looked at again at its time."""
    request = {**PENDING, "reason": reason, "deferred_since": at(3), "next_attempt_at": at(9)}
    return request, {}, waits_for, owner, at(9), command


ROWS: Final[dict[str, Row]] = {
    "nobody has planned it": (PENDING, {}, WaitsFor.SERVICE, SUBMITTER, at(30), SHOW),
    "the market is closed": pending("market_closed", WaitsFor.MARKET_HOURS, Owner.MARKET),
    **{
        f"no price: {reason}": pending(reason, WaitsFor.QUOTE, Owner.MARKET)
        for reason in ("no_fresh_quote", "no_bid", "no_ask", "wide_quote", "quote_off_last_trade", "crossed_quote")
    },
    "the breaker is open": pending("broker_unavailable", WaitsFor.BROKER, BROKER),
    "no market clock": pending("no_market_clock", WaitsFor.BROKER, BROKER),
    "an earlier order lives": pending("earlier_order_not_done", WaitsFor.BROKER, BROKER),
    "the window is full": pending("submit_limit_reached", WaitsFor.ACCOUNT_LIMIT, SUBMITTER, "closectl limits show"),
    "no limits": pending("limits_missing", WaitsFor.OPERATOR, OPERATOR, "closectl limits show"),
    "a halt that is over": pending("trading_halted", WaitsFor.SERVICE, SUBMITTER),
    "nothing is owed yet": pending("nothing_owed", WaitsFor.SERVICE, SUBMITTER),
    "halted": (PENDING, {"halted": True}, WaitsFor.OPERATOR, OPERATOR, None, "closectl controls show"),
    "planned under a halt": (
        {},
        {"order": order(OrderStatus.PLANNED), "halted": True},
        WaitsFor.OPERATOR,
        OPERATOR,
        None,
        "closectl controls show",
    ),
    "planned, the breaker open": (
        {},
        {"order": order(OrderStatus.PLANNED), "sends_resume_at": at(7)},
        WaitsFor.BROKER,
        BROKER,
        at(7),
        SHOW,
    ),
    "planned": (
        {},
        {"order": order(OrderStatus.PLANNED, next_send_at=at(1))},
        WaitsFor.SERVICE,
        SUBMITTER,
        at(1),
        SHOW,
    ),
    "never answered": (
        {},
        {"order": order(OrderStatus.SUBMIT_UNKNOWN, next_send_at=at(5))},
        WaitsFor.UNKNOWN_OUTCOME,
        SUBMITTER,
        at(5),
        SHOW,
    ),
    "not found at the broker": (
        {},
        {
            "order": order(OrderStatus.SUBMIT_UNKNOWN),
            "incidents": [OpenIncident(7, "order_not_found", at(60))],
        },
        WaitsFor.UNKNOWN_OUTCOME,
        OPERATOR,
        None,
        "closectl incidents show 7",
    ),
    "at work": ({}, {"order": order(OrderStatus.NEW)}, WaitsFor.BROKER, BROKER, at(62), SHOW),
    "partly filled": ({}, {"order": order(OrderStatus.PARTIALLY_FILLED)}, WaitsFor.BROKER, BROKER, at(62), SHOW),
    "until its deadline": (
        {"deadline_at": at(40)},
        {"order": order(OrderStatus.NEW)},
        WaitsFor.BROKER,
        BROKER,
        at(40),
        SHOW,
    ),
    "suspended": ({}, {"order": order(OrderStatus.SUSPENDED)}, WaitsFor.BROKER, BROKER, at(62), CANCEL),
    "done for the day": (
        {},
        {"order": order(OrderStatus.DONE_FOR_DAY)},
        WaitsFor.BROKER,
        BROKER,
        at(2) + timedelta(days=1),
        CANCEL,
    ),
    "its cancel is not sent": (
        {},
        {"order": order(OrderStatus.PENDING_CANCEL, cancel_requested_at=at(9))},
        WaitsFor.SERVICE,
        SUBMITTER,
        None,
        SHOW,
    ),
    "its cancel is out": (
        {},
        {"order": order(OrderStatus.PENDING_CANCEL, cancel_requested_at=at(9), cancel_sent_at=at(10))},
        WaitsFor.BROKER,
        BROKER,
        None,
        SHOW,
    ),
    "a fill has no name": ({}, {"unnamed": Decimal(3)}, WaitsFor.BROKER, Owner.RECONCILER, None, SHOW),
    "its order is over": ({}, {}, WaitsFor.SERVICE, Owner.FILL_PROCESSOR, None, SHOW),
    "cancelled, no order": (
        {**PENDING, "cancel_requested_at": at(4)},
        {},
        WaitsFor.SERVICE,
        Owner.RECONCILER,
        None,
        SHOW,
    ),
    "its next attempt": (RETRYABLE, {}, WaitsFor.NEXT_ATTEMPT, Owner.RECONCILER, at(20), SHOW),
    "refused: hours": ({**RETRYABLE, "reason": "symbol_halted"}, {}, WaitsFor.MARKET_HOURS, Owner.MARKET, at(20), SHOW),
    "refused: held": ({**RETRYABLE, "reason": "held_for_orders"}, {}, WaitsFor.BROKER, BROKER, at(20), SHOW),
    "a retry, the breaker open": (RETRYABLE, {"sends_resume_at": at(7)}, WaitsFor.BROKER, BROKER, at(7), SHOW),
    "retried by hand": ({**RETRYABLE, "auto_retry": False}, {}, WaitsFor.OPERATOR, OPERATOR, None, RETRY),
    "frozen": (
        {},
        {"frozen_reason": "poison", "incidents": [OpenIncident(3, "gap", NOW), OpenIncident(5, "poison", at(1))]},
        WaitsFor.OPERATOR,
        OPERATOR,
        None,
        "closectl incidents show 5",
    ),
    "frozen, its incident is not seen": ({}, {"frozen_reason": "poison"}, WaitsFor.OPERATOR, OPERATOR, None, SHOW),
    **{
        kind: (
            {},
            {"order": order(OrderStatus.NEW), "incidents": [OpenIncident(8, kind, at(1))]},
            WaitsFor.OPERATOR,
            OPERATOR,
            None,
            "closectl incidents show 8",
        )
        for kind in NEEDS_A_PERSON
        if kind != "order_not_found"
    },
}


@pytest.mark.parametrize(("request_", "seen", "waits_for", "owner", "next_at", "command"), ROWS.values(), ids=ROWS)
def test_what_it_waits_for(
    request_: dict[str, Any],
    seen: dict[str, Any],
    waits_for: WaitsFor,
    owner: Owner,
    next_at: datetime | None,
    command: str,
) -> None:
    wait = wait_of(request_, **seen)
    assert (wait.waits_for, wait.owner, wait.next_at, wait.command) == (waits_for, owner, next_at, command)
    # Whoever waits for a person is promised nothing else, and everybody else is told what happens by itself.
    assert (wait.next_step is None) == (owner is OPERATOR and command != "closectl limits show")


def test_every_kind_of_wait_has_a_row() -> None:
    assert {row[2] for row in ROWS.values()} == set(WaitsFor)
    assert {row[3] for row in ROWS.values()} == set(Owner)


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_command_is_one_of_closectl(row: Row) -> None:
    program, *words = shlex.split(wait_of(row[0], **row[1]).command)
    assert program == "closectl"
    assert words[0] in {"show", "incidents", "requests", "controls", "limits"}


def test_what_is_only_at_work_is_not_stuck() -> None:
    assert wait_of({}, order=order(OrderStatus.NEW)).stuck_from == at(62)
    assert wait_of(PENDING).stuck_from == NOW + AT_WORK
    assert wait_of(RETRYABLE).stuck_from == at(20) + AT_WORK


def test_what_nobody_of_us_can_end_is_stuck_at_once() -> None:
    closed = {**PENDING, "reason": "market_closed", "deferred_since": at(3)}
    for wait in (wait_of(closed), wait_of({}, order=order(OrderStatus.SUBMIT_UNKNOWN)), wait_of(PENDING, halted=True)):
        assert wait.stuck_from == wait.since


def test_a_close_that_was_never_answered_tells_when_it_is_given_up() -> None:
    step = wait_of({}, order=order(OrderStatus.SUBMIT_UNKNOWN)).next_step
    assert step is not None
    assert step.endswith("14:45:01 UTC")
