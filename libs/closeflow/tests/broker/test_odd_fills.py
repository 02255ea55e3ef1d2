"""A good fill is booked whatever stands in the fields that decide nothing, from the broker's JSON to its reader. One
that cannot be booked keeps what the broker said."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import pytest

from closeflow.broker.alpaca import parse
from closeflow.contracts import BrokerFillV1
from closeflow.contracts.codec import Undecodable, decode, peek
from closeflow.domain.model import BrokerUpdate, ExecType
from closeflow.kafka.broker_fill import broker_fill_record

from .test_parse import ACTIVITY, AT, FILL, NAME, OF, of_event, of_order

LONG: Final = "189.1234567890123456789012345678901234567890123456789"


def read_back(update: BrokerUpdate) -> BrokerFillV1:
    record = broker_fill_record(update, service="broker-gateway")
    return decode(BrokerFillV1, record.value, record.headers)


@pytest.mark.parametrize(
    ("order", "changes"),
    [
        ({"filled_avg_price": LONG}, {}),
        ({"filled_avg_price": "1.891E+2"}, {}),
        ({"filled_avg_price": "0.0000000000000000000000000000000000000000000000001"}, {}),
        ({"filled_avg_price": "-1"}, {}),
        ({"filled_avg_price": "NaN"}, {}),
        ({"filled_avg_price": "1e999999"}, {}),
        ({"filled_avg_price": ["1"]}, {}),
        ({"filled_avg_price": True}, {}),
        ({"filled_avg_price": "n/a"}, {}),
        ({"updated_at": "0001-01-01T00:00:00Z"}, {}),
        ({"updated_at": "0001-01-01T00:00:00+05:00"}, {}),
        ({"updated_at": 0}, {}),
        ({"updated_at": None, "submitted_at": "0001-01-01T00:00:00Z"}, {"timestamp": "0001-01-01T00:00:00Z"}),
        ({}, {"timestamp": "0001-01-01T00:00:00Z"}),
        ({}, {"timestamp": "soon"}),
        ({}, {"timestamp": 0}),
        ({}, {"position_qty": LONG}),
        ({}, {"position_qty": "many"}),
        ({}, {"position_qty": "1e40"}),
        ({}, {"reason": {"code": 7}}),
        ({}, {"reason": "\ud800 x\x00" * 500}),
        ({}, {"qty": "4.0000000000000000000000000000"}),
        ({}, {"qty": "0.4E1"}),
        ({}, {"qty": 4}),
        ({"qty": "10.00000000000000000000", "filled_qty": "4.00000000000000000000000"}, {}),
    ],
)
def test_a_fill_is_read_whatever_else_is_odd(order: dict[str, object], changes: dict[str, Any]) -> None:
    read = read_back(of_event("partial_fill", order, **changes))
    assert (read.last_qty, read.last_px, read.cum_qty) == (Decimal(4), Decimal("189.2"), Decimal(4))
    assert read.exec_type is ExecType.TRADE
    assert read.transact_time.year == 2026


@pytest.mark.parametrize(
    "changes",
    [
        {"transaction_time": "0001-01-01T00:00:00Z"},
        {"transaction_time": None},
        {"transaction_time": "2026-03-02 15:00:01.200000000123+00:00"},
        {"leaves_qty": "-0.5"},
        {"leaves_qty": "lots"},
        {"qty": "4.00000000000000000000000"},
        {"cum_qty": None},
    ],
)
def test_an_activity_is_read_whatever_else_is_odd(changes: dict[str, Any]) -> None:
    read = read_back(parse.fill_activity(ACTIVITY | changes, of=OF, order=NAME, received_at=AT))
    assert (read.last_qty, read.last_px) == (Decimal(4), Decimal("189.2"))
    assert read.transact_time.year == 2026


@pytest.mark.parametrize("price", ["0", "0.00", 0, "0E-30"])
def test_a_fill_may_be_for_nothing(price: object) -> None:
    for update in (
        of_event("partial_fill", price=price),
        parse.fill_activity(ACTIVITY | {"price": price}, of=OF, order=NAME, received_at=AT),
    ):
        assert read_back(update).last_px == 0


def test_a_price_of_more_digits_than_are_kept_is_rounded() -> None:
    assert read_back(of_event("partial_fill", price=LONG)).last_px == Decimal("189.123456789012345679")


@pytest.mark.parametrize(
    "stated",
    [
        1_772_463_601,
        "1772463601",
        "1772463601.0",
        1_772_463_601_000,
        "1772463601000",
        1_772_463_601_000_000,
        "1772463601000000000",
        "2026-03-02T15:00:01Z",
        "2026-03-02T15:00:01.000000000000Z",
        "2026-03-02 10:00:01-05:00",
        "20260302T150001Z",
    ],
)
def test_a_time_is_read_in_every_form(stated: object) -> None:
    found = of_order(updated_at=stated)
    assert found.transact_time == datetime(2026, 3, 2, 15, 0, 1, tzinfo=UTC)
    assert found.broker_seq == 1_772_463_601_000_000


@pytest.mark.parametrize("stated", ["2026-03-02T15:00:01", "later", "9" * 40, True, ["2026"], "2026"])
def test_what_orders_the_statements_is_not_guessed(stated: object) -> None:
    with pytest.raises(parse.Malformed, match="updated_at"):
        of_order(updated_at=stated)


@pytest.mark.parametrize(
    ("broken", "name"),
    [
        ({"last_quantity": Decimal("4.0000000000000000001")}, "last_qty"),
        ({"last_price": Decimal("-1.5")}, "last_px"),
        ({"order_quantity": Decimal(0)}, "order_qty"),
        ({"cum_quantity": Decimal("1E+20"), "leaves_quantity": None}, "cum_qty"),
        ({"broker_order_id": "x" * 200}, "broker_order_id"),
        ({"received_at": datetime(1, 1, 2, tzinfo=UTC)}, "received_at"),
    ],
)
def test_a_fill_that_breaks_the_contract_keeps_what_was_said_and_says_what_is_wrong(
    broken: dict[str, Any], name: str
) -> None:
    good = of_event("partial_fill")
    record = broker_fill_record(replace(good, **broken), service="broker-gateway")
    with pytest.raises(Undecodable) as refused:
        decode(BrokerFillV1, record.value, record.headers)
    assert refused.value.reason.startswith(f"{name}: ")
    kept: dict[str, Any] = dict(peek(record.value))
    assert kept["broker_message"]["execution_id"] == FILL["execution_id"]
    assert kept["broker_message"]["order"]["filled_avg_price"] == "189.2"
    mended = {**kept, name: peek(broker_fill_record(good, service="x").value)[name]}
    assert decode(BrokerFillV1, json.dumps(mended).encode()).last_qty == 4


@pytest.mark.parametrize(
    ("field", "value", "kept"),
    [
        ("avg_px", LONG, Decimal("189.123456789012345679")),
        ("avg_px", "189.12000000000000000000000", Decimal("189.12")),
        ("avg_px", "1e2", None),
        ("avg_px", "-1", None),
        ("avg_px", "NaN", None),
        ("avg_px", 1.5, None),
        ("avg_px", "1" * 20, None),
        ("avg_px", {}, None),
        ("currency", "usd", "USD"),
        ("currency", " eur ", "EUR"),
        ("currency", "US Dollar", None),
        ("currency", "", None),
        ("currency", 840, None),
        ("reject_code", "", None),
        ("reject_code", 40310000, "40310000"),
        ("reject_code", "a\x00b", "a b"),
        ("reject_code", "x" * 500, "x" * 128),
        ("reject_class", "", None),
        ("reject_class", "newer", None),
        ("reason", "", None),
        ("reason", 7, "7"),
        ("reason", "x" * 5000, "x" * 500),
        ("position_qty", "-60." + "1" * 30, Decimal("-60.111111111111111111")),
        ("position_qty", "many", None),
        ("commission", "-0.0000000000000000000049", Decimal(0)),
        ("commission", "0.35 USD", None),
        ("commission", [], None),
        ("exec_ref_id", "", None),
        ("exec_ref_id", "x" * 999, None),
        ("leaves_qty", "", None),
        ("leaves_qty", "60.00000000000000000000000", Decimal(60)),
        ("cum_qty", "40.00000000000000000000000", Decimal(40)),
        ("last_px", "0", Decimal(0)),
        ("order_status", "", None),
        ("broker_message", {"any": "thing"}, "absent"),
    ],
)
def test_no_optional_field_that_decides_nothing_refuses_a_fill(field: str, value: object, kept: object) -> None:
    trade = dict(peek(broker_fill_record(of_event("partial_fill"), service="x").value))
    trade |= {"order_qty": "100", "cum_qty": "40", "leaves_qty": "60", field: value}
    read = decode(BrokerFillV1, json.dumps(trade).encode())
    assert read.last_qty == 4
    assert getattr(read, field, "absent") == kept


@pytest.mark.parametrize(
    "time",
    [
        *("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000Z", "0001-01-01T00:00:00+05:00", "1969-12-31T23:59:59Z"),
        *("2026-03-02T15:00:60Z", "2026-03-02T15:00:00+0000", "2026-03-02T15:00:00.1234567890Z", "2026-03-02"),
        *("", "yesterday", 0, 1772463600, None),
    ],
)
def test_a_time_on_the_wire_that_is_none_is_the_time_of_receipt(time: object) -> None:
    trade = dict(peek(broker_fill_record(of_event("partial_fill"), service="x").value))
    read = decode(BrokerFillV1, json.dumps({**trade, "transact_time": time}).encode())
    assert read.transact_time == read.received_at


@pytest.mark.parametrize("kind", ["new", "canceled", "order_status", "expired", "cancel_rejected", "trade_cancel"])
def test_last_quantity_and_price_are_read_of_a_trade_alone(kind: str) -> None:
    said = dict(peek(broker_fill_record(of_event("new", {"filled_qty": "0"}), service="x").value))
    said |= {"exec_type": kind, "last_qty": "0", "last_px": "0", "exec_id": "e", "exec_ref_id": "f"}
    read = decode(BrokerFillV1, json.dumps(said).encode())
    assert (read.last_qty, read.last_px) == (None, None)
