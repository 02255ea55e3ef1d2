"""How often one process calls its broker: one budget for calls of every kind, the urgent ones first (ADR 0020).

A broker's rate limit counts every call of an account, from whatever process. Each process has its share as a setting;
what the shares do not know, the broker says by refusing a call, and then every call of this process waits.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from enum import IntEnum
from typing import Final

from closeflow.telemetry.metrics import gauge

RATE_TOKENS: Final = gauge("closeflow_broker_rate_tokens")
FLOOR_S: Final = 1.0
FLOOR_CAP_S: Final = 30.0
FORGET_S: Final = 60.0
"""A minute without a refusal ends a row of them: limits are per minute."""
TAKEN_ENDS: Final = 20
"""So do so many calls that the broker took: a refusal now and then is no reason to pause for ever longer, or to stay
slow."""
SLOWEST_PER_S: Final = 5.0
"""Refusals make a process no slower than this: the pauses between them do the rest."""
DOUBLES_IN_S: Final = 30.0
AGED_S: Final = 0.2
"""So long a call that is no send waits behind sends."""
_RESERVED: Final = 0.1
_STAGGER_S: Final = 1.0


class Urgency(IntEnum):
    """What goes first. Each step down leaves a tenth of the bucket to the calls above, and waits a second longer after
    a refusal, so that the sends of another process come before it."""

    SEND = 0
    LOOK_UP = 1
    LIST = 2
    MARKET = 3


class CallBudget:
    """A token bucket with a second's worth of calls, which the broker's refusals stop for a while and slow down.

    The pause after a refusal is what the broker asks for, but at least a floor that doubles while refusals go on: a
    hint may be zero, in the past by a clock that is wrong, or not there at all.
    """

    def __init__(self, rate_per_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rate_limit = rate_per_s
        self._slowed_to = rate_per_s
        self._refilled_at = clock()
        self._tokens = max(1.0, rate_per_s)
        self._held_until = -math.inf
        self._floor_s = 0.0
        self._taken = 0
        self._aged = 0
        """Calls that are no sends and have waited for so long that sends leave a token for each."""

    def held_s(self) -> float:
        """How long the broker wants no call at all."""
        return max(0.0, self._held_until - self._clock())

    def tokens(self) -> float:
        """How many calls may go at once; 0 while the broker wants none."""
        self._refill()
        return 0.0 if self.held_s() > 0 else max(0.0, self._tokens)

    @property
    def is_tight(self) -> bool:
        """Whether the broker refused calls within the last minute: what can be left out should be."""
        return self._clock() < self._held_until + FORGET_S

    def wait_s(self, urgency: Urgency, *, ahead: int = 0) -> float:
        """How long a call has to wait when `ahead` others go before it; 0 when it may go now."""
        self._refill()
        wait = self._held_until + urgency * _STAGGER_S - self._clock() if self.is_tight else 0.0
        most = max(1.0, self._rate())
        before = ahead + (self._aged if urgency is Urgency.SEND else 0)
        missing = min(1 + urgency * _RESERVED * most, most) + before - self._tokens
        return max(0.0, wait, missing / self._rate())

    def room(self) -> int:
        """How many sends may go now."""
        return int(self._tokens) - self._aged if self.wait_s(Urgency.SEND) == 0 else 0

    def take(self, urgency: Urgency) -> bool:
        """Take the token of a call that goes now, if it may."""
        if self.wait_s(urgency) > 0:
            return False
        self._tokens -= 1
        return True

    async def turn(self, urgency: Urgency, *, patience_s: float) -> float:
        """Wait for a token; 0 when the call may go. Else it would take longer than `patience_s`: for how long not to
        ask again. Sends that never end would leave it none, though they need what it asks: after `AGED_S` they leave
        one for it, unless the broker has refused calls of late."""
        began = self._clock()
        give_up_at, ages_at = began + patience_s, began + AGED_S
        while not self.take(urgency):
            now, wait, ages = self._clock(), self.wait_s(urgency), not self.is_tight and ages_at < give_up_at
            if ages and now >= ages_at:
                return await self._kept_turn(give_up_at)
            if ages:
                wait = min(wait, ages_at - now)
            if now + wait > give_up_at:
                return wait
            await asyncio.sleep(wait)
        return 0.0

    async def _kept_turn(self, give_up_at: float) -> float:
        self._aged += 1
        try:
            while (wait := self._kept_wait_s()) > 0:
                if self._clock() + wait > give_up_at:
                    return wait
                await asyncio.sleep(wait)
            self._tokens -= 1
            return 0.0
        finally:
            self._aged -= 1

    def _kept_wait_s(self) -> float:
        self._refill()
        return max(0.0, self.held_s(), (1 - self._tokens) / self._rate())

    def taken(self) -> None:
        """The broker took a call, whatever it answered. Those that it took before the pause, and answers only now, are
        too few to matter."""
        self._taken += 1

    def refused(self, asked_s: float | None) -> float:
        """The broker took no call because there were too many; returns how long all calls wait now. Calls that were on
        their way when an earlier one was refused tell nothing new."""
        now = self._clock()
        self._refill()
        if now >= self._held_until:
            goes_on = self.is_tight and self._taken < TAKEN_ENDS
            self._floor_s = min(FLOOR_CAP_S, 2 * self._floor_s) if goes_on else FLOOR_S
            self._slowed_to = max(min(SLOWEST_PER_S, self._rate_limit), self._rate() / 2)
            self._held_until = now + self._floor_s
            self._tokens = 0.0
            self._taken = 0
        self._held_until = max(self._held_until, now + (asked_s or 0.0))
        return self._held_until - now

    def _rate(self) -> float:
        doubled = (self._clock() - self._held_until) / DOUBLES_IN_S + self._taken / TAKEN_ENDS
        grown = math.exp2(max(0.0, min(doubled, 64.0)))
        return min(self._rate_limit, self._slowed_to * grown)

    def _refill(self) -> None:
        now = self._clock()
        rate = self._rate()
        self._tokens = min(max(1.0, rate), self._tokens + (now - self._refilled_at) * rate)
        self._refilled_at = now


def show_tokens(budget: CallBudget) -> None:
    """Let the metrics of this process tell what is left of its budget, counted when somebody asks."""
    RATE_TOKENS.set_function(budget.tokens)
