"""What we publish about requests, positions and executions."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from closeflow.contracts.outbox import event_value
from closeflow.domain.ids import execution_event_id, position_event_id, submit_event_id
from closeflow.domain.model import PositionCause, PositionStatus, RequestStatus, Side, Topic
from closeflow.domain.orders.execution_ledger import Recorded
from closeflow.domain.outbox.events import ledger_event, position_event, submit_event
from closeflow.domain.text import decimal_text, time_text

from .builders import BROKER, NOW, REQUEST_ID, a_position, a_request, an_execution, working

P, R = PositionStatus, RequestStatus


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("100", "100"),
        ("1E+2", "100"),
        ("100.500", "100.5"),
        ("0.000000001", "0.000000001"),
        ("1E-9", "0.000000001"),
        ("0E-9", "0"),
        ("-12.30", "-12.3"),
    ],
)
def test_decimals_go_out_without_an_exponent_or_trailing_zeros(value: str, text: str) -> None:
    assert decimal_text(Decimal(value)) == text


def test_times_go_out_in_utc() -> None:
    paris = timezone(timedelta(hours=1))
    assert time_text(datetime(2026, 3, 2, 15, 30, 0, 5, tzinfo=paris)) == "2026-03-02T14:30:00.000005Z"


def test_both_times_of_an_hour_that_comes_twice_are_told_apart() -> None:
    at = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Paris"))
    assert [time_text(at.replace(fold=fold)) for fold in (0, 1)] == ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"]


def test_an_attempt_is_asked_for_under_an_id_that_a_repetition_keeps() -> None:
    request = a_request(attempt=2, emission=3, limit_price=Decimal("189.120"))
    event = submit_event(request, Decimal(60), at=NOW)
    assert (event.topic, event.key, event.emission) == (Topic.SUBMIT_ORDER, "41", 3)
    assert event.event_id == submit_event_id(REQUEST_ID, 2)
    assert event_value(event) == {
        "event_id": str(event.event_id),
        "emission": 3,
        "close_request_id": str(REQUEST_ID),
        "attempt": 2,
        "position_id": 41,
        "account_id": "PA3XYZ",
        "symbol": "AAPL",
        "asset_type": "stock",
        "side": "sell",
        "quantity": "60",
        "order_type": "limit",
        "limit_price": "189.12",
        "time_in_force": "day",
        "requested_at": "2026-03-02T14:30:00Z",
    }


TYPES: dict[str, tuple[dict[str, Any], dict[str, Any], RequestStatus | None, str]] = {
    "a close is accepted": ({"status": P.OPEN}, {"status": P.CLOSING}, R.PENDING, "POSITION_CLOSING"),
    "a fill that leaves a rest": ({}, {"quantity": Decimal(60)}, R.SUBMITTED, "POSITION_REDUCED"),
    "the last fill": ({}, {"quantity": Decimal(0), "status": P.CLOSED}, R.COMPLETED, "POSITION_CLOSED"),
    "a partial close is complete": (
        {},
        {"quantity": Decimal(60), "status": P.OPEN},
        R.COMPLETED,
        "POSITION_REDUCED",
    ),
    "a retry is due later": ({}, {"status": P.CLOSE_RETRYABLE}, R.RETRYABLE, "CLOSE_REQUEST_RETRYABLE"),
    "a failure": ({}, {"status": P.CLOSE_FAILED}, R.FAILED, "CLOSE_REQUEST_FAILED"),
    "a withdrawal": ({}, {"status": P.OPEN}, R.FAILED, "CLOSE_REQUEST_FAILED"),
    "a failed one whose exposure is proven by now": (
        {"status": P.CLOSE_FAILED, "exposure_unproven": True},
        {"status": P.CLOSE_FAILED},
        R.FAILED,
        "CLOSE_REQUEST_FAILED",
    ),
    "an open one whose exposure is proven by now": (
        {"status": P.OPEN, "exposure_unproven": True},
        {"status": P.OPEN},
        None,
        "POSITION_OPEN",
    ),
    "a closed one whose exposure is proven by now": (
        {"status": P.CLOSED, "exposure_unproven": True},
        {"status": P.CLOSED},
        R.COMPLETED,
        "POSITION_CLOSED",
    ),
}


@pytest.mark.parametrize(("was", "now", "request_status", "event_type"), TYPES.values(), ids=TYPES.keys())
def test_the_type_of_a_position_event_names_the_main_point(
    was: dict[str, Any], now: dict[str, Any], request_status: RequestStatus | None, event_type: str
) -> None:
    request = None if request_status is None else a_request(status=request_status)
    after = a_position(**{"version": 6, **now})
    event = position_event(a_position(**was), after, request, cause=PositionCause.EXECUTION, at=NOW)
    assert event.event_type == event_type
    assert (event.event_id, event.position_version) == (position_event_id(41, 6), 6)
    assert event_value(event)["position_status"] == after.status.value
    assert event_value(event)["exposure_unproven"] is False
    assert ("close_request_id" in event_value(event)) == (request is not None)


@pytest.mark.parametrize(("side", "cash"), [(Side.SELL, "4137.5"), (Side.BUY, "-4137.5")])
def test_an_execution_says_what_the_account_receives(side: Side, cash: str) -> None:
    position = replace(a_position(), multiplier=Decimal(100))
    execution = an_execution("e-1", 5, side=side, price=Decimal("8.275"))
    event = ledger_event(position, a_request(), working(), Recorded(execution))
    assert (
        event_value(event)["cash_amount"],
        event_value(event)["quantity"],
        event_value(event)["side"],
    ) == (cash, "5", side.value)
    assert event.event_id == execution_event_id(BROKER, "PA3XYZ", "e-1")
    assert (event.topic, event.key, event.attempt) == (Topic.EXECUTION_EVENTS, "41", 1)


def test_a_cash_amount_is_exact() -> None:
    execution = replace(
        an_execution("e-1", 1), quantity=Decimal("0.123456789012345678"), price=Decimal("64123.123456789")
    )
    event = ledger_event(a_position(), a_request(), working(), Recorded(execution))
    assert event_value(event)["cash_amount"] == "7916.434923417393625072763907942"


def test_every_event_of_a_request_carries_its_trace() -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    request = a_request(traceparent=trace)
    moved = replace(a_position(), version=6)

    submit = submit_event(request, Decimal(1), at=NOW)
    position = position_event(a_position(), moved, request, cause=PositionCause.CLOSE_MOVED, at=NOW)
    execution = ledger_event(a_position(), request, working(), Recorded(an_execution("e-1", 5)))

    assert {one.traceparent for one in (submit, position, execution)} == {trace}
