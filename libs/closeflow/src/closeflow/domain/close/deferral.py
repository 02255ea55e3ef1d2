"""What a close waits for that cannot be planned now, for how long, and when a person has to know (C3).

`deferred_since` is when it began to wait for what nobody knows the end of, whatever the reason is called meanwhile. A
wait with an end that is known (the market opens, the switch is released, the window of submits is over) is none of it.
A refusal that passes by itself (`passing_refusals`) is: its request is then retryable, and tried again as rarely.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from closeflow.domain.account_limits import LIMITS_MISSING, WINDOW_FULL, room_at
from closeflow.domain.close.pricing import market_hours
from closeflow.domain.frozen import replace
from closeflow.domain.market_data import MarketClock
from closeflow.domain.model import (
    AssetType,
    Book,
    CloseRequest,
)
from closeflow.domain.orders import status as order_status
from closeflow.domain.position import freeze
from closeflow.domain.retry import fraction, look_again_by, pause
from closeflow.domain.trading_controls import TRADING_HALTED, Controls

MARKET_CLOSED: Final = "market_closed"
BROKER_UNAVAILABLE: Final = "broker_unavailable"
NO_MARKET_CLOCK: Final = "no_market_clock"
WAITS_FOR_ITS_TIME: Final = frozenset({MARKET_CLOSED, TRADING_HALTED, WINDOW_FULL})

INCIDENT_AFTER: Final[Mapping[str, timedelta]] = {
    MARKET_CLOSED: timedelta(days=4),  # A long weekend.
    TRADING_HALTED: timedelta(minutes=15),
    BROKER_UNAVAILABLE: timedelta(minutes=1),
    NO_MARKET_CLOCK: timedelta(minutes=1),
}
"""How long a reason lasts before it is an incident."""
INCIDENT_AFTER_OTHERS: Final = timedelta(minutes=2)
OF_THE_ACCOUNT: Final = frozenset(
    {MARKET_CLOSED, TRADING_HALTED, WINDOW_FULL, BROKER_UNAVAILABLE, NO_MARKET_CLOCK, LIMITS_MISSING}
)
"""Reasons that hold for every close of an account alike: one incident tells of them all."""


def incident_kind(reason: str) -> str:
    """Of the incident that tells of closes which wait for this reason too long."""
    return f"deferred_{reason}"


def deferred(request: CloseRequest, until: datetime, reason: str, *, now: datetime) -> CloseRequest:
    """C3: to be asked about again at `until`; since when it waits stays, where it goes on waiting."""
    return replace(request, next_attempt_at=until, reason=reason, deferred_since=_since(request, reason, now))


def ask_again_at(request: CloseRequest, reason: str, first: timedelta, *, now: datetime) -> datetime:
    """Ever more rarely, by the time that it has waited so far."""
    waited = now - _since(request, reason, now)
    return now + pause(waited, first=first, jitter=fraction(request.id, request.emission))


def _since(request: CloseRequest, reason: str, now: datetime) -> datetime:
    """Since when it waits for this reason or one like it; a clock that was set back starts it anew."""
    goes_on = request.reason == reason or not {request.reason, reason} & WAITS_FOR_ITS_TIME
    return min(request.deferred_since, now) if goes_on and request.deferred_since is not None else now


@dataclass(frozen=True, slots=True)
class Defer:
    """C3: not now. The request stays pending; no retry is used up."""

    until: datetime
    reason: str


def held_by_controls(controls: Controls, *, now: datetime, halted_s: float) -> Defer | None:
    """The kill switch, which is looked at again after `halted_s`, and room in the account's window of submits."""
    if controls.halted:
        return Defer(now + timedelta(seconds=halted_s), TRADING_HALTED)
    free_at = None if controls.limits is None else room_at(controls.limits, now=now)
    return None if free_at is None else Defer(free_at, WINDOW_FULL)


def waits_for_orders(book: Book, request: CloseRequest, soon: datetime) -> Defer | None:
    """A freeze, fills that nobody has named (rule R4: what is owed is not known yet), an earlier order that lives."""
    if freeze.is_frozen(book):
        return Defer(soon, "frozen")
    if not all(order_status.is_named(order) for order in book.orders.values()):
        return Defer(soon, "fills_not_named")
    if not all(order_status.is_done(order) for order in book.orders_of(request.id)):
        return Defer(soon, "earlier_order_not_done")
    return None


def waits_for_market(
    asset_type: AssetType, clock: MarketClock | None, sends_resume_at: datetime | None, soon: datetime, *, now: datetime
) -> Defer | None:
    """The circuit breaker, a market clock that cannot be had, a market that is closed."""
    if sends_resume_at is not None:
        return Defer(max(soon, sends_resume_at), BROKER_UNAVAILABLE)
    if not market_hours(asset_type):
        return None
    if clock is None:
        return Defer(soon, NO_MARKET_CLOCK)
    if clock.is_open:
        return None
    opens_at = now + (clock.next_open - clock.at)
    return Defer(look_again_by(max(soon, opens_at), now), MARKET_CLOSED)
