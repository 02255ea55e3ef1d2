"""Whatever the bytes are, a reader gets a model or `Undecodable`."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import RFC_4122

import pytest
from hypothesis import given
from hypothesis import strategies as st

from closeflow.contracts import (
    BrokerFillV1,
    ErrorClass,
    ExecutionEventType,
    Undecodable,
    broker_fill_key,
    decode,
    encode,
    new_close_request_id,
    peek,
)
from closeflow.contracts.wire import MAX_BYTES
from closeflow.domain.model import Side
from closeflow.domain.outbox.events import cash_amount

EXAMPLES = Path(__file__).parents[4] / "schemas" / "examples"
TRADE: dict[str, Any] = json.loads((EXAMPLES / "broker-fill" / "partial_fill.json").read_text())
NOW = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)


def _decode_trade(**changes: object) -> BrokerFillV1:
    return decode(BrokerFillV1, json.dumps({**TRADE, **changes}).encode())


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_undecodable(value: bytes) -> None:
    with pytest.raises(Undecodable):
        decode(BrokerFillV1, value)


@given(
    field=st.sampled_from(sorted(TRADE)),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=5,
    ),
)
def test_no_value_of_a_field_raises_anything_but_undecodable(field: str, value: object) -> None:
    try:
        read = _decode_trade(**{field: value})
    except Undecodable:
        return
    assert decode(BrokerFillV1, encode(read)) == read


@given(st.decimals(min_value=0, max_value=10**14, places=18).filter(lambda value: value > 0))
def test_decimals_survive_the_wire_digit_for_digit(quantity: Decimal) -> None:
    fill = _decode_trade().model_copy(update={"last_qty": quantity, "cum_qty": None})
    assert json.loads(encode(fill))["last_qty"] == format(quantity, "f")
    assert decode(BrokerFillV1, encode(fill)).last_qty == quantity


@pytest.mark.parametrize(
    ("value", "error_class"),
    [
        (b"[" * 100_000, ErrorClass.BAD_JSON),
        (b'{"event_id":' * 5_000, ErrorClass.BAD_JSON),
        (b'{"event_id":' + b"9" * 10_000 + b"}", ErrorClass.BAD_JSON),
        (b"x" * (MAX_BYTES + 1), ErrorClass.TOO_LARGE),
        (b"null", ErrorClass.BAD_VALUE),
    ],
    ids=["deep array", "deep object", "long number", "huge", "null"],
)
def test_hostile_json_is_refused_in_bounded_time(value: bytes, error_class: ErrorClass) -> None:
    with pytest.raises(Undecodable) as refused:
        decode(BrokerFillV1, value)
    assert refused.value.error_class is error_class
    assert len(refused.value.reason) <= 500


def test_times_are_read_in_any_offset_and_written_in_utc() -> None:
    read = _decode_trade(transact_time="2026-03-02T09:30:00.123456789-05:00")
    assert read.transact_time == datetime(2026, 3, 2, 14, 30, 0, 123456, UTC)
    assert json.loads(encode(read))["transact_time"] == "2026-03-02T14:30:00.123456Z"


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-12:00", "2026-02-30T00:00:00Z", 7])
def test_impossible_times_are_refused(time: object) -> None:
    with pytest.raises(Undecodable):
        _decode_trade(received_at=time)


def test_a_comment_never_costs_a_fill() -> None:
    assert _decode_trade(reason="bad\x00\n" + "x" * 9_000).reason == ("bad " + "x" * 9_000)[:500]


def test_numbers_and_flags_are_not_taken_for_each_other() -> None:
    for changes in ({"broker_seq": True}, {"broker_seq": "5"}, {"broker_seq": 1.5}, {"broker_seq": 2**63}):
        with pytest.raises(Undecodable):
            _decode_trade(**changes)


def test_a_newer_writers_value_beside_a_real_fault_is_a_fault() -> None:
    with pytest.raises(Undecodable) as refused:
        _decode_trade(exec_type="restated", last_px="-1")
    assert refused.value.error_class is ErrorClass.BAD_VALUE


@pytest.mark.parametrize(
    "name", [b"urn:closeflow:broker-fill.v1", b"broker-fill.v1", b"https://schemas.example/json/broker-fill.v1.json"]
)
def test_the_schema_header_may_be_a_urn_a_url_or_the_bare_name(name: bytes) -> None:
    assert decode(BrokerFillV1, json.dumps(TRADE).encode(), [("ce_dataschema", name)])


def test_a_null_schema_header_counts_as_none() -> None:
    assert decode(BrokerFillV1, json.dumps(TRADE).encode(), [("ce_dataschema", None), ("id", b"7")])


def test_peek_finds_the_order_of_an_unreadable_message_and_never_raises() -> None:
    assert peek(json.dumps({**TRADE, "last_qty": "NaN"}).encode())["client_order_id"] == TRADE["client_order_id"]
    for value in (None, b"", b"[1]", b"\xff", b"[" * 100_000, b"x" * (MAX_BYTES + 1)):
        assert peek(value) == {}


def test_a_broker_update_survives_the_way_to_the_wire_and_back() -> None:
    for path in sorted((EXAMPLES / "broker-fill").glob("*.json")):
        read = decode(BrokerFillV1, path.read_bytes())
        assert BrokerFillV1.from_domain(read.to_domain()) == read


def test_a_writer_cannot_make_what_no_reader_accepts() -> None:
    good = _decode_trade()
    for changes in (
        {"last_qty": Decimal("NaN")},
        {"last_px": Decimal("Infinity")},
        {"cum_qty": Decimal(1)},
        {"received_at": datetime(2026, 3, 2)},  # noqa: DTZ001  # Naive is the point.
    ):
        with pytest.raises(ValueError):
            BrokerFillV1(**{**dict(good), **changes})


def test_the_key_is_the_close_request_of_an_id_of_ours_and_else_the_id() -> None:
    assert broker_fill_key(TRADE["client_order_id"]) == b"01932f4e-8a10-7c3b-9d21-5f0f7e6a1b22"
    assert broker_fill_key("my-desk-4711") == b"my-desk-4711"


def test_cash_is_exact_beyond_the_default_precision() -> None:
    fine = Decimal("999999999999999.999999999999999999")
    paid = cash_amount(ExecutionEventType.RECORDED, side=Side.BUY, quantity=fine, price=fine, multiplier=fine)
    assert len(paid.as_tuple().digits) == 99
    assert paid < 0
    assert cash_amount(ExecutionEventType.REVERSED, side=Side.BUY, quantity=fine, price=fine, multiplier=fine) > 0


def test_a_close_request_id_is_a_uuid_of_version_7_ordered_by_time() -> None:
    ids = [new_close_request_id(NOW + timedelta(milliseconds=n), bytes([255 - n] * 10)) for n in range(200)]
    assert ids == sorted(ids)
    assert {(made.version, made.variant) for made in ids} == {(7, RFC_4122)}
    assert int.from_bytes(ids[0].bytes[:6]) == int(NOW.timestamp() * 1000)
    assert new_close_request_id(NOW.astimezone(timezone(timedelta(hours=9))), b"0123456789") == new_close_request_id(
        NOW, b"0123456789"
    )
    for bad_now, bad_bytes in ((NOW, b"short"), (NOW.replace(tzinfo=None), b"0123456789")):
        with pytest.raises(ValueError):
            new_close_request_id(bad_now, bad_bytes)
