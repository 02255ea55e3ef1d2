"""What a caller may ask for: exact numbers, times with an offset, keys that the server takes."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from closeflow_client import Client, Close, key_in_batch, new_key
from closeflow_client.calls import cancel_call, close_call, close_requests_call, plan_call, positions_call
from closeflow_client.close import check_request_id, with_keys

from .scripted_http import nobody

NAIVE = datetime(2026, 3, 2, 15, 0)  # noqa: DTZ001


@pytest.mark.parametrize("name", ["quantity", "percentage", "limit_price", "expected_quantity"])
def test_a_float_is_refused_with_the_decimal_to_give_instead(name: str) -> None:
    with pytest.raises(TypeError, match=rf"^{name} is a float, which is not exact: give Decimal\('0.1'\)$"):
        Close(7, **{name: 0.1})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("terms", "error", "message"),
    [
        ({"quantity": "10"}, TypeError, "quantity must be a Decimal or an int, not str"),
        ({"quantity": True}, TypeError, "quantity must be a Decimal or an int, not bool"),
        ({"quantity": Decimal("NaN")}, ValueError, "quantity must be a number"),
        ({"limit_price": Decimal("Infinity")}, ValueError, "limit_price must be a number"),
        ({"limit_price": Decimal("1E+999999")}, ValueError, "limit_price must be a number"),
        ({"quantity": 10**50}, ValueError, "quantity must be a number"),
        ({"deadline": NAIVE}, ValueError, "deadline must have an offset"),
        ({"deadline": "2026-03-02T15:00:00Z"}, TypeError, "deadline must be a datetime, not str"),
        ({"max_slippage_bps": 1.5}, TypeError, "max_slippage_bps must be an int, not float"),
        ({"max_slippage_bps": -1}, ValueError, "max_slippage_bps must be from 0"),
        ({"working_timeout_seconds": 2**31}, ValueError, "working_timeout_seconds must be from 0"),
        ({"if_version": True}, TypeError, "if_version must be an int"),
        ({"order_type": "stop"}, ValueError, "order_type must be one of limit, market, not 'stop'"),
        ({"time_in_force": "gtd"}, ValueError, "time_in_force must be one of day, gtc, ioc, not 'gtd'"),
        ({"reason": 5}, TypeError, "reason must be a str, not int"),
        ({"reason": "\ud800"}, ValueError, "surrogates"),
        ({"key": ""}, ValueError, "a key must be 1 to 100 printable ASCII characters"),
        ({"key": "x" * 101}, ValueError, "a key must be"),
        ({"key": "line\nend"}, ValueError, "a key must be"),
        ({"key": b"bytes"}, TypeError, "a key must be a str, not bytes"),
        ({"qty": 5}, TypeError, "qty"),
    ],
)
def test_what_cannot_be_sent_is_refused_before_it_is(
    terms: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Close(7, **terms)
    with Client(f"http://{nobody()}", retry_for=0) as client, pytest.raises(error, match=message):
        client.close(7, **terms)


@pytest.mark.parametrize("position_id", [0, -1, 2**63, None, "7", 7.0, True])
def test_a_position_id_is_a_whole_number(position_id: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="position_id must be"):
        Close(position_id)


def test_terms_are_what_was_given() -> None:
    given = {
        "quantity": Decimal("0.5"),
        "order_type": "limit",
        "limit_price": 3,
        "max_slippage_bps": 0,
        "deadline": datetime(2026, 3, 2, tzinfo=UTC),
        "expected_quantity": Decimal(0),
    }
    assert Close(7, key="k", if_version=3, **given).terms() == given  # type: ignore[arg-type]
    assert Close(7, key="k").terms() == {}


def test_every_close_has_a_new_key_unless_it_is_given_one() -> None:
    keys = {close_call(Close(7)).key for _ in range(1000)} | {new_key() for _ in range(1000)}
    assert len(keys) == 2000
    assert all(key is not None and key.startswith("cfk-") and len(key) == 36 for key in keys)
    assert close_call(Close(7, key="mine")).key == "mine"


def test_a_dry_run_takes_no_key() -> None:
    with pytest.raises(ValueError, match="a dry run keeps nothing"):
        plan_call(Close(7, key="k"))


def test_keys_of_a_batch_are_the_same_every_time_and_fit() -> None:
    assert key_in_batch("rebalance", 7) == "rebalance/7"
    assert key_in_batch("x" * 98, 7) == "x" * 98 + "/7"
    long = key_in_batch("x" * 99, 7)
    assert long == key_in_batch("x" * 99, 7) != key_in_batch("x" * 99, 8)
    assert len(long) == 71
    assert [one.key for one in with_keys([Close(7), Close(8, key="own")], "b")] == ["b/7", "own"]
    first, second = with_keys([Close(7), Close(8)], None)
    assert first.key != second.key


def test_two_closes_of_a_batch_never_become_one_by_accident() -> None:
    with pytest.raises(ValueError, match="two closes of position 7 have the key 'b/7'"):
        with_keys([Close(7, quantity=1), Close(7, quantity=2)], "b")
    assert len(with_keys([Close(7, key="same"), Close(8, key="same")], None)) == 2


def test_a_batch_refuses_what_it_cannot_carry() -> None:
    with pytest.raises(ValueError, match="a batch takes no if_version"):
        with_keys([Close(7, if_version=3)], None)


def test_other_arguments_are_checked_too() -> None:
    with pytest.raises(ValueError, match="badly formed"):
        check_request_id("7/../8")
    with pytest.raises(TypeError, match="the id of a close request must be a UUID, not int"):
        check_request_id(7)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="reason must be a str"):
        cancel_call("0192f1c0-0000-7000-8000-000000000001", 5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="created_after must have an offset"):
        close_requests_call(None, None, None, NAIVE, 0)
    with pytest.raises(TypeError, match="account must be a str"):
        positions_call(5, None, None, 0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="page_size must be from 0"):
        positions_call(None, None, None, -1)
