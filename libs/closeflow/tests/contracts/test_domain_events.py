"""What the domain publishes through the outbox is what the contracts promise."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args, get_type_hints
from uuid import UUID

import pytest

from closeflow.contracts import ExecutionEvent, ExecutionEventType, PositionEvent, SubmitOrder, WireModel, decode
from closeflow.contracts.outbox import event_value
from closeflow.contracts.topics import TOPIC_MODELS
from closeflow.domain.ids import client_order_id
from closeflow.domain.model import (
    AssetType,
    CloseRequest,
    Event,
    Execution,
    Order,
    OrderStatus,
    OrderType,
    Payload,
    Position,
    PositionCause,
    PositionStatus,
    RequestStatus,
    Side,
    TimeInForce,
    Topic,
    UpdateSource,
)
from closeflow.domain.orders.execution_ledger import Recorded
from closeflow.domain.outbox.events import ledger_event, position_event, submit_event
from closeflow.domain.outbox.payloads import ExecutionPayload, PositionPayload, SubmitOrderPayload

EXAMPLES = Path(__file__).parents[4] / "schemas" / "examples"
NOW = datetime(2026, 3, 2, 14, 30, 5, 120000, UTC)
REQUEST_ID = UUID("01932f4e-8a10-7c3b-9d21-5f0f7e6a1b22")

REQUEST = CloseRequest(
    id=REQUEST_ID,
    position_id=41,
    account_id="PA3XYZ",
    idempotency_key="k",
    fingerprint="f",
    requested_by="desk",
    status=RequestStatus.PENDING,
    symbol="AAPL",
    side=Side.SELL,
    asset_type=AssetType.STOCK,
    target_quantity=Decimal("100.500"),
    filled_quantity=Decimal(0),
    order_type=OrderType.LIMIT,
    time_in_force=TimeInForce.DAY,
    working_timeout_s=60,
    max_retries=3,
    created_at=NOW,
    limit_price=Decimal("189.12"),
    max_slippage_bps=50,
    deadline_at=NOW,
)
POSITION = Position(
    id=41,
    account_id="PA3XYZ",
    symbol="AAPL",
    asset_type=AssetType.STOCK,
    multiplier=Decimal(1),
    currency="USD",
    opening_quantity=Decimal("100.5"),
    quantity=Decimal("100.5"),
    status=PositionStatus.OPEN,
    version=1,
)
ORDER = Order(
    client_order_id=client_order_id(REQUEST_ID, 1),
    close_request_id=REQUEST_ID,
    attempt=1,
    position_id=41,
    account_id="PA3XYZ",
    symbol="AAPL",
    side=Side.SELL,
    quantity=Decimal("100.5"),
    order_type=OrderType.LIMIT,
    time_in_force=TimeInForce.DAY,
    status=OrderStatus.NEW,
    created_at=NOW,
)
EXECUTION = Execution(
    broker="alpaca",
    exec_id="e-1",
    client_order_id=ORDER.client_order_id,
    side=Side.SELL,
    quantity=Decimal("40.25"),
    price=Decimal("189.12"),
    occurred_at=NOW,
    source=UpdateSource.STREAM,
)


def _value(event: Event) -> bytes:
    return json.dumps(event_value(event)).encode()


def _types(hint: Any) -> tuple[type, ...]:
    return get_args(hint) or (hint,)


PAYLOADS: dict[Topic, type[Payload]] = {
    one.TOPIC: one for one in (SubmitOrderPayload, PositionPayload, ExecutionPayload)
}


def test_every_topic_of_ours_has_a_payload() -> None:
    assert set(PAYLOADS) == set(Topic)


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_a_payload_has_the_fields_of_its_contract_and_their_types(payload: type[Payload]) -> None:
    model = TOPIC_MODELS[payload.TOPIC]
    names = {one.name for one in fields(payload)}
    assert names == set(model.model_fields)
    written, read = get_type_hints(payload), get_type_hints(model)  # Without the rules that pydantic has beside them.
    for name in names:
        # What is one of a few texts in the contract may be text in the payload.
        assert all(any(issubclass(one, given) for one in _types(read[name])) for given in _types(written[name])), name


def test_a_submit_event_is_read_as_submit_order() -> None:
    event = submit_event(REQUEST, Decimal("100.5"), at=NOW)
    read = decode(SubmitOrder, _value(event))
    assert (read.event_id, read.close_request_id, read.attempt) == (event.event_id, REQUEST_ID, 1)
    assert (read.quantity, read.limit_price, read.deadline) == (Decimal("100.5"), Decimal("189.12"), NOW)


def test_a_position_event_is_read_with_and_without_a_request() -> None:
    closing = replace(POSITION, status=PositionStatus.CLOSING, version=2, active_close_request_id=REQUEST_ID)
    event = position_event(POSITION, closing, REQUEST, cause=PositionCause.CLOSE_ACCEPTED, at=NOW)
    read = decode(PositionEvent, _value(event))
    assert (read.position_version, read.position_status) == (2, PositionStatus.CLOSING)
    assert (read.close_request_status, read.target_qty) == (RequestStatus.PENDING, Decimal("100.5"))
    event = position_event(closing, replace(POSITION, version=3), None, cause=PositionCause.CLOSE_MOVED, at=NOW)
    alone = decode(PositionEvent, _value(event))
    assert (alone.close_request_id, alone.quantity) == (None, Decimal("100.5"))


def test_an_execution_event_is_balanced() -> None:
    read = decode(ExecutionEvent, _value(ledger_event(POSITION, REQUEST, ORDER, Recorded(EXECUTION))))
    assert (read.event_type, read.cash_amount) == (ExecutionEventType.RECORDED, Decimal("7612.08"))
    bought = replace(EXECUTION, side=Side.BUY)
    assert decode(
        ExecutionEvent, _value(ledger_event(POSITION, REQUEST, ORDER, Recorded(bought)))
    ).cash_amount == Decimal("-7612.08")


@pytest.mark.parametrize("model", [SubmitOrder, PositionEvent, ExecutionEvent])
def test_an_event_is_read_however_often_it_was_emitted(model: type[WireModel]) -> None:
    topic = next(name for name, one in TOPIC_MODELS.items() if one is model)
    example = next((EXAMPLES / topic).glob("*.json"))
    for emission in (1_000_000, 2**40):
        value = json.dumps({**json.loads(example.read_text()), "emission": emission}).encode()
        assert decode(model, value).model_dump()["emission"] == emission
