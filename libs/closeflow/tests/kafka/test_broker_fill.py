"""A broker update on its way to `broker-fill`."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import pytest

from closeflow.contracts import BrokerFillV1
from closeflow.contracts.codec import Undecodable, decode, peek
from closeflow.domain.model import BrokerUpdate, ExecType, Side, UpdateSource
from closeflow.kafka.broker_fill import broker_fill_record

AT = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
UPDATE = BrokerUpdate(
    event_id=UUID(int=7),
    broker="alpaca",
    account_id="acc-1",
    symbol="AAPL",
    client_order_id="cf-0190a1b2c3d47e5f8091a2b3c4d5e6f7-1",
    exec_type=ExecType.TRADE,
    side=Side.SELL,
    source=UpdateSource.STREAM,
    transact_time=AT,
    received_at=AT,
    exec_id="exec-1",
    last_quantity=Decimal("1.5"),
    last_price=Decimal(100),
)


def test_a_record_reads_back_as_the_update_under_its_requests_key() -> None:
    record = broker_fill_record(UPDATE, service="broker-gateway")
    assert decode(BrokerFillV1, record.value, record.headers).to_domain() == UPDATE
    assert record.key == b"0190a1b2-c3d4-7e5f-8091-a2b3c4d5e6f7"
    headers = dict(record.headers)
    assert headers["ce_source"] == b"/broker-gateway"
    assert headers["ce_type"] == b"BROKER_TRADE"
    assert "traceparent" not in headers


def test_the_trace_of_a_send_goes_along_with_its_answer() -> None:
    record = broker_fill_record(UPDATE, service="order-submitter", traceparent="00-a-b-01")
    assert dict(record.headers)["traceparent"] == b"00-a-b-01"


@pytest.mark.parametrize("stated", [AT - timedelta(hours=3), datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5)))])
def test_an_update_is_dated_by_when_it_was_heard_whatever_the_broker_s_time_is(stated: datetime) -> None:
    record = broker_fill_record(replace(UPDATE, transact_time=stated), service="reconciler")
    assert dict(record.headers)["ce_time"] == b"2026-03-02T15:00:00.000000Z"


@pytest.mark.parametrize(("client_order_id", "key"), [("by-hand", b"by-hand"), ("\ud800", b"\\ud800")])
def test_a_foreign_order_is_its_own_key(client_order_id: str, key: bytes) -> None:
    record = broker_fill_record(replace(UPDATE, client_order_id=client_order_id), service="broker-gateway")
    assert record.key == key


@pytest.mark.parametrize(
    "update",
    [
        replace(UPDATE, last_quantity=Decimal(0)),
        replace(UPDATE, last_price=Decimal(-1)),
        replace(UPDATE, exec_type=ExecType.TRADE_CANCEL),
        replace(UPDATE, transact_time=datetime(1, 1, 1, tzinfo=UTC), received_at=datetime(1, 1, 2, tzinfo=UTC)),
    ],
)
def test_what_breaks_the_contract_is_passed_on_under_its_orders_name_for_the_reader_to_refuse(
    update: BrokerUpdate,
) -> None:
    record = broker_fill_record(update, service="broker-gateway")
    with pytest.raises(Undecodable):
        decode(BrokerFillV1, record.value, record.headers)
    assert peek(record.value)["client_order_id"] == UPDATE.client_order_id
