"""The kill switch and the limits of an account: what they say, and when an order would break them (invariants 18, 19).

Both are read in the transaction that decides and never kept: whoever reads a switch once has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Final

from closeflow.domain.text import decimal_text

GLOBAL: Final = "global"
"""The scope of `trading_controls` that is over every account; the other scopes are account ids."""
WINDOW: Final = timedelta(minutes=1)
"""Over how long `submits_per_minute` counts. A window begins with its first submit."""
TRADING_HALTED: Final = "trading_halted"
LIMITS_MISSING: Final = "limits_missing"
WINDOW_FULL: Final = "submit_limit_reached"
OVER_QUANTITY: Final = "over_max_order_qty"
OVER_NOTIONAL: Final = "over_max_order_notional"
BREACHES: Final = frozenset({OVER_QUANTITY, OVER_NOTIONAL})


class TradingState(StrEnum):
    """From the mildest to the strictest."""

    ACTIVE = "active"
    REDUCING = "reducing"
    """Only what makes a position smaller may be sent. Every close does, so closes pass."""
    HALTED = "halted"


_STRICTNESS: Final = tuple(TradingState)


def effective_state(states: Mapping[str, str], account_id: str) -> TradingState:
    """The stricter of the global state and the account's, from the rows of `trading_controls` by scope.

    Without a global row, or with a state that is not known here, trading is halted: a switch that cannot be read is a
    halt. An account without a row of its own has only the global state.
    """
    stated = [states.get(GLOBAL), states.get(account_id, TradingState.ACTIVE)]
    known = [TradingState(one) if one in _STRICTNESS else TradingState.HALTED for one in stated]
    return max(known, key=_STRICTNESS.index)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountLimits:
    """`max_order_notional` is in the currency of the position: price × quantity × multiplier."""

    max_order_quantity: Decimal
    max_order_notional: Decimal
    submits_per_minute: int
    window_started_at: datetime | None = None
    window_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """What holds for one account at the moment of a decision. Without limits nothing may be sent."""

    account_id: str
    state: TradingState
    limits: AccountLimits | None

    @property
    def halted(self) -> bool:
        """Whether no new order of the account may leave (invariant 18)."""
        return self.state is TradingState.HALTED


@dataclass(frozen=True, slots=True)
class Breach:
    """An order that the account's limits do not allow; a person has to split it or raise the limit."""

    code: str
    detail: str


def breach(limits: AccountLimits, *, quantity: Decimal, price: Decimal, multiplier: Decimal) -> Breach | None:
    """Whether one order is too large. `price` is the one that it is likely to trade at, or the worse of two."""
    if quantity > limits.max_order_quantity:
        most = decimal_text(limits.max_order_quantity)
        return Breach(OVER_QUANTITY, f"a quantity of {decimal_text(quantity)} is more than max_order_qty, {most}")
    notional = quantity * price * multiplier
    if notional > limits.max_order_notional:
        most = decimal_text(limits.max_order_notional)
        return Breach(OVER_NOTIONAL, f"a notional of {decimal_text(notional)} is more than max_order_notional, {most}")
    return None


def room_at(limits: AccountLimits, *, now: datetime) -> datetime | None:
    """None while the window has room for a submit, else when the next one begins."""
    if _window_over(limits, now) or limits.window_count < limits.submits_per_minute:
        return None
    assert limits.window_started_at is not None, "a window that is not over has begun"
    return limits.window_started_at + WINDOW


def counted(controls: Controls, *, now: datetime) -> Controls:
    """After one more submit, which was claimed while there was room for it."""
    limits = controls.limits
    assert limits is not None, "nothing is claimed without limits"
    if _window_over(limits, now):
        limits = replace(limits, window_started_at=now, window_count=0)
    return replace(controls, limits=replace(limits, window_count=limits.window_count + 1))


def _window_over(limits: AccountLimits, now: datetime) -> bool:
    """A window may begin a little later than `now`, because clocks are set a little. One that begins more than a window
    later was written before the clock was set back."""
    began = limits.window_started_at
    return began is None or not began - WINDOW <= now < began + WINDOW
