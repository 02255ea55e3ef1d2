"""What a close may ask for: each field against the position, and the fingerprint of them all."""

from __future__ import annotations

from datetime import timedelta, timezone
from decimal import Decimal
from hashlib import sha256
from typing import Final

import pytest

from closeflow.domain.close.accept import (
    ExpectationFailed,
    FieldInvalid,
    accept_close,
    fingerprint,
)
from closeflow.domain.model import (
    AssetType,
    OrderType,
    TimeInForce,
)

from .accepting import ACTIVE, NOW, STOCK, book, command, request_of


@pytest.mark.parametrize(
    ("asset_type", "position", "percentage", "target"),
    [
        (AssetType.STOCK, "10", "50", "5"),
        (AssetType.STOCK, "-10", "25", "2.5"),
        (AssetType.STOCK, "10", "33.333333333333333333", "3.333333333"),
        (AssetType.OPTION, "10", "99", "9"),
        (AssetType.OPTION, "3", "100", "3"),
        (AssetType.CRYPTO, "0.3000000019", "100", "0.300000001"),
        (AssetType.STOCK, "99999999999999.999999999", "100", "99999999999999.999999999"),
    ],
)
def test_a_percentage_is_of_the_position_rounded_down_to_the_lot(
    asset_type: AssetType, position: str, percentage: str, target: str
) -> None:
    asked = command(percentage=Decimal(percentage))
    assert request_of(asked, book(position, asset_type=asset_type)).target_quantity == Decimal(target)


WHAT_FITS_NOT: Final = [
    ("percentage", AssetType.OPTION, {"percentage": Decimal(10)}),
    ("time_in_force", AssetType.OPTION, {"time_in_force": TimeInForce.GTC}),
    ("time_in_force", AssetType.CRYPTO, {"time_in_force": TimeInForce.DAY}),
    ("time_in_force", AssetType.STOCK, {"quantity": Decimal("0.5"), "time_in_force": TimeInForce.GTC}),
    ("deadline", AssetType.STOCK, {"deadline_at": NOW}),
    ("deadline", AssetType.STOCK, {"deadline_at": NOW - timedelta(days=1)}),
]


@pytest.mark.parametrize(("field", "asset_type", "asked"), WHAT_FITS_NOT)
def test_a_field_that_does_not_fit_the_position_is_refused_by_its_name(
    field: str, asset_type: AssetType, asked: dict[str, object]
) -> None:
    before = book("3", asset_type=asset_type)
    found = accept_close(before, command(**asked), None, trading=ACTIVE, now=NOW)
    assert isinstance(found, FieldInvalid)
    assert found.field == field


def test_what_is_asked_for_is_kept_with_the_request() -> None:
    asked = command(
        max_slippage_bps=25,
        time_in_force=TimeInForce.IOC,
        working_timeout_s=7,
        deadline_at=NOW + timedelta(hours=1),
        reason="the desk asked",
    )
    kept = request_of(asked)
    assert (kept.max_slippage_bps, kept.time_in_force, kept.working_timeout_s) == (25, TimeInForce.IOC, 7)
    assert (kept.deadline_at, kept.requested_reason) == (NOW + timedelta(hours=1), "the desk asked")


@pytest.mark.parametrize(
    ("expected", "refused"),
    [
        ({"expected_quantity": Decimal("-10.0")}, False),
        ({"expected_quantity": Decimal(10)}, True),
        ({"expected_version": 4}, False),
        ({"expected_version": 3}, True),
        ({"expected_version": 4, "expected_quantity": Decimal(1)}, True),
    ],
)
def test_a_position_that_is_not_as_expected_is_not_closed(expected: dict[str, object], refused: bool) -> None:
    found = accept_close(book("-10"), command(**expected), None, trading=ACTIVE, now=NOW)
    assert isinstance(found, ExpectationFailed) is refused
    if isinstance(found, ExpectationFailed):
        assert (found.quantity, found.version) == (Decimal(-10), 4)


def test_a_fingerprint_is_taken_after_defaults_and_of_values_not_of_their_spelling() -> None:
    assert fingerprint(command(), STOCK) == fingerprint(command(order_type=OrderType.LIMIT), STOCK)
    assert fingerprint(command(), STOCK) == fingerprint(command(only=AssetType.OPTION, requested_by="other"), STOCK)
    assert len({fingerprint(command(text), STOCK) for text in ("10", "10.0", "1E+1")}) == 1
    spelled = command(percentage=Decimal("1E+2"), working_timeout_s=60, time_in_force=TimeInForce.DAY)
    assert fingerprint(spelled, STOCK) == fingerprint(command(), STOCK)
    assert fingerprint(command(time_in_force=TimeInForce.GTC), AssetType.CRYPTO) == fingerprint(command(), STOCK)
    berlin = NOW.astimezone(timezone(timedelta(hours=1)))
    assert fingerprint(command(deadline_at=berlin), STOCK) == fingerprint(command(deadline_at=NOW), STOCK)


def test_what_the_caller_knew_of_the_version_is_no_part_of_what_is_asked_for() -> None:
    assert fingerprint(command(expected_version=3), STOCK) == fingerprint(command(expected_version=4), STOCK)


def test_a_fingerprint_differs_whenever_something_else_is_asked_for() -> None:
    asked = [
        command(),
        command("10"),
        command("1"),
        command(order_type=OrderType.MARKET),
        command(limit_price=Decimal(10)),
        command("10", limit_price=Decimal(10)),
        command(percentage=Decimal(10)),
        command(max_slippage_bps=10),
        command(max_slippage_bps=0),
        command(time_in_force=TimeInForce.GTC),
        command(working_timeout_s=61),
        command(deadline_at=NOW),
        command(expected_quantity=Decimal(10)),
        command(reason="the desk asked"),
    ]
    assert len({fingerprint(one, STOCK) for one in asked}) == len(asked)


def test_todays_fingerprints_stay_what_they_are() -> None:
    """They are stored for as long as positions exist: a change of the form would turn replays into 422."""
    nothing, all_three = sha256(b""), sha256(b"limit_price=1.1\norder_type=market\nquantity=2.5")
    asked = command("2.50", order_type=OrderType.MARKET, limit_price=Decimal("1.10"))
    assert (fingerprint(command(), STOCK), fingerprint(asked, STOCK)) == (nothing.hexdigest(), all_three.hexdigest())
