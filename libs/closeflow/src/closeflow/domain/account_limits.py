"""The limits of an account: how large an order may be, and how many are sent in a minute (invariant 19)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from closeflow.domain.text import decimal_text

WINDOW: Final = timedelta(minutes=1)
"""Over how long `submits_per_minute` counts. A window begins with its first submit."""
LIMITS_MISSING: Final = "limits_missing"
WINDOW_FULL: Final = "submit_limit_reached"
OVER_QUANTITY: Final = "over_max_order_qty"
OVER_NOTIONAL: Final = "over_max_order_notional"
BREACHES: Final = frozenset({OVER_QUANTITY, OVER_NOTIONAL})


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountLimits:
    """`max_order_notional` is in the currency of the position: price × quantity × multiplier."""

    max_order_quantity: Decimal
    max_order_notional: Decimal
    submits_per_minute: int
    window_started_at: datetime | None = None
    window_count: int = 0


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
    if is_window_over(limits, now) or limits.window_count < limits.submits_per_minute:
        return None
    assert limits.window_started_at is not None, "a window that is not over has begun"
    return limits.window_started_at + WINDOW


def is_window_over(limits: AccountLimits, now: datetime) -> bool:
    """A window may begin a little later than `now`, because clocks are set a little. One that begins more than a window
    later was written before the clock was set back."""
    began = limits.window_started_at
    return began is None or not began - WINDOW <= now < began + WINDOW
