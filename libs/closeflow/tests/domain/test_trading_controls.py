"""What the kill switch and an account's limits say."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from closeflow.domain.account_limits import AccountLimits, breach, room_at
from closeflow.domain.trading_controls import TradingState, counted, effective_state

from .builders import ACCOUNT, CONTROLS, LIMITS, NOW, at

STATES: dict[str, tuple[dict[str, str], str]] = {
    "active everywhere": ({"global": "active", ACCOUNT: "active"}, "active"),
    "an account without a row has the global state": ({"global": "reducing"}, "reducing"),
    "a halt of the account": ({"global": "active", ACCOUNT: "halted"}, "halted"),
    "a halt of all": ({"global": "halted", ACCOUNT: "active"}, "halted"),
    "the stricter of the two": ({"global": "reducing", ACCOUNT: "halted"}, "halted"),
    "the milder one does not lift it": ({"global": "reducing", ACCOUNT: "active"}, "reducing"),
    "a halt of another account": ({"global": "active", "other": "halted"}, "active"),
    "no row at all is a halt": ({}, "halted"),
    "no global row is a halt": ({ACCOUNT: "active"}, "halted"),
    "a state that nobody knows is a halt": ({"global": "actve"}, "halted"),
    "so is one of the account": ({"global": "active", ACCOUNT: ""}, "halted"),
}


@pytest.mark.parametrize(("rows", "state"), STATES.values(), ids=STATES)
def test_the_stricter_state_counts(rows: dict[str, str], state: str) -> None:
    assert effective_state(rows, ACCOUNT) is TradingState(state)


BREACHES: dict[str, tuple[dict[str, Any], str | None]] = {
    "at both limits": ({"quantity": Decimal(1000), "price": Decimal(10), "multiplier": Decimal(100)}, None),
    "a share too many": ({"quantity": Decimal("1000.1")}, "over_max_order_qty"),
    "a dollar too many": ({"price": Decimal("10000.01")}, "over_max_order_notional"),
    "by the multiplier": ({"price": Decimal(101), "multiplier": Decimal(100)}, "over_max_order_notional"),
}


@pytest.mark.parametrize(("order", "code"), BREACHES.values(), ids=BREACHES)
def test_an_order_breaks_a_limit_when_it_is_above_it(order: dict[str, Any], code: str | None) -> None:
    found = breach(LIMITS, **{"quantity": Decimal(100), "price": Decimal(10), "multiplier": Decimal(1), **order})
    assert (found.code if found else None) == code


def window(began: float | None, count: int) -> AccountLimits:
    return replace(LIMITS, window_started_at=None if began is None else at(began), window_count=count)


WINDOWS: dict[str, tuple[AccountLimits, float | None]] = {
    "none has begun": (window(None, 0), None),
    "one below the limit": (window(-59, 99), None),
    "at the limit": (window(-20, 100), 40),
    "over when a minute has passed": (window(-60, 100), None),
    "one from before the clock was set back": (window(3600, 100), None),
    "one begun while this transaction waited for it": (window(2, 100), 62),
}


@pytest.mark.parametrize(("limits", "free_after_s"), WINDOWS.values(), ids=WINDOWS)
def test_a_full_window_says_when_the_next_one_begins(limits: AccountLimits, free_after_s: float | None) -> None:
    assert room_at(limits, now=NOW) == (None if free_after_s is None else at(free_after_s))


def test_submits_are_counted_in_windows_of_a_minute() -> None:
    controls = replace(CONTROLS, limits=replace(LIMITS, submits_per_minute=2))
    first = counted(controls, now=NOW)
    second = counted(first, now=at(59))
    third = counted(second, now=at(60))
    windows = [(one.limits.window_started_at, one.limits.window_count) for one in (first, second, third) if one.limits]
    assert windows == [(NOW, 1), (NOW, 2), (at(60), 1)]
    assert second.limits is not None
    assert room_at(second.limits, now=at(59)) == at(60)
