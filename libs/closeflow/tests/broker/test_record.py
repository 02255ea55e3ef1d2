"""A broker update on its way to `broker-fill`."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest

from closeflow.broker.record import broker_fill_record
from closeflow.contracts import BrokerFillV1
from closeflow.contracts.codec import Undecodable, decode, peek
from closeflow.domain.model import BrokerUpdate, ExecType, Side, UpdateSource

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
    record = broker_fill_record(UPDATE, producer="broker-gateway")
    assert decode(BrokerFillV1, record.value, record.headers).to_domain() == UPDATE
    assert record.key == b"0190a1b2-c3d4-7e5f-8091-a2b3c4d5e6f7"
    headers = dict(record.headers)
    assert headers["ce_source"] == b"/broker-gateway"
    assert headers["ce_type"] == b"BROKER_TRADE"


def test_a_foreign_order_is_its_own_key() -> None:
    record = broker_fill_record(replace(UPDATE, client_order_id="by-hand"), producer="broker-gateway")
    assert record.key == b"by-hand"


@pytest.mark.parametrize(
    "update",
    [
        replace(UPDATE, last_quantity=Decimal(0)),
        replace(UPDATE, last_price=Decimal(-1)),
        replace(UPDATE, exec_type=ExecType.TRADE_CANCEL),
    ],
)
def test_what_breaks_the_contract_is_passed_on_under_its_orders_name_for_the_reader_to_refuse(
    update: BrokerUpdate,
) -> None:
    record = broker_fill_record(update, producer="broker-gateway")
    with pytest.raises(Undecodable):
        decode(BrokerFillV1, record.value, record.headers)
    assert peek(record.value)["client_order_id"] == UPDATE.client_order_id
