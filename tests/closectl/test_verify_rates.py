"""Submits per minute: what the account's window allowed, whenever it began, is no violation; one more is."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

import pytest

from closectl.verifying.controls import ControlChecks
from closeflow.domain.account_limits import AccountLimits, room_at
from closeflow.domain.trading_controls import Controls, TradingState, counted
from closeflow.storage.verify.controls import ControlsHistory, Limits

START: Final = datetime(2026, 3, 2, 14, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def limits(most: int, until: datetime | None = None) -> Limits:
    amount = Decimal(9)
    return Limits(until=until, max_order_quantity=amount, max_order_notional=amount, submits_per_minute=most)


def told(submits: list[datetime], *in_force: Limits) -> list[str]:
    checks = ControlChecks(ControlsHistory(halts=(), limits={"main": in_force}))
    checks.submits["main"] = submits
    return [one.detail for part in checks.findings() for one in part.violations]


class Account:
    """The account's own window, asked and counted in the order of the commits."""

    def __init__(self, most: int) -> None:
        amount = Decimal(9)
        self._controls = Controls(
            account_id="main",
            state=TradingState.ACTIVE,
            limits=AccountLimits(max_order_quantity=amount, max_order_notional=amount, submits_per_minute=most),
        )
        self.submits: list[datetime] = []

    def submit(self, seconds: float) -> bool:
        assert self._controls.limits is not None
        if room_at(self._controls.limits, now=at(seconds)) is not None:
            return False
        self._controls = counted(self._controls, now=at(seconds))
        self.submits.append(at(seconds))
        return True


def test_a_window_that_did_not_begin_with_the_earliest_submit_is_not_held_against_it() -> None:
    account = Account(10)
    assert account.submit(100.5)
    assert account.submit(100.0)  # It began earlier, and waited for the lock.
    assert account.submit(160.2)
    assert all(account.submit(160.6 + number) for number in range(10))
    assert told(account.submits, limits(10)) == []


@pytest.mark.parametrize("seed", range(40))
def test_what_the_window_let_through_is_never_reported_and_as_much_again_is(seed: int) -> None:
    chosen = random.Random(seed)
    most = chosen.choice([1, 2, 5, 30])
    account, now = Account(most), 0.0
    for _ in range(400):
        now += chosen.choice([0.0, 0.01, 0.3, 2.0, 20.0])
        account.submit(now - chosen.choice([0.0, 0.0, 0.2, 0.9]))
    assert told(account.submits, limits(most)) == []
    extra = [account.submits[0] + timedelta(seconds=40, milliseconds=number) for number in range(most)]
    assert told(account.submits + extra, limits(most)) != []


def test_one_more_than_a_minute_allows_is_told_once_for_each_minute() -> None:
    first = [at(number) for number in range(4)]
    second = [at(120 + number) for number in range(5)]
    assert told(first + second, limits(3)) == [
        f"more than 3 submits in the minute from {at(0).isoformat()} on",
        f"more than 3 submits in the minute from {at(120).isoformat()} on",
    ]
    assert told(first + second, limits(5)) == []
    assert told([], limits(3)) == []


def test_the_wider_limit_of_the_minute_counts() -> None:
    submits = [at(number) for number in range(10)]
    assert told(submits, limits(10, until=at(5)), limits(2)) == []
    assert told(submits, limits(10, until=at(-5)), limits(2)) != []
