"""How long a close that cannot be planned waits before it is asked about again, and when a person has to know (C3).

`deferred_since` is when it began to wait for what nobody knows the end of, whatever the reason is called meanwhile. A
wait with an end that is known (the market opens, the switch is released, the window of submits is over) is none of it.
A refusal that passes by itself (`passing_refusals`) is: its request is then retryable, and tried again as rarely.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from closeflow.domain.account_limits import LIMITS_MISSING, WINDOW_FULL
from closeflow.domain.model import CloseRequest
from closeflow.domain.retry import fraction, pause
from closeflow.domain.trading_controls import TRADING_HALTED

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
