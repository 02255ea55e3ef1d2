"""When something is tried again (rule R8): every back-off, and whether a moment that was written down has come."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from closeflow.domain.model import CloseRequest, Order
from closeflow.domain.orders import status as order_status

BACK_OFF_CAP_S: Final = 30.0
DONE_FOR_DAY_WITHIN: Final = timedelta(hours=24)
"""An order that is done for its day ends with it; one that is not over a day after it was sent, nobody expects."""
FARTHEST: Final = timedelta(minutes=10)
"""No pause is longer; what has to wait longer looks again meanwhile."""


def is_due(at: datetime, now: datetime) -> bool:
    """A moment beyond the longest pause was written by a clock that was ahead, and is not waited for (invariant 20)."""
    return not now < at <= now + FARTHEST


def look_again_by(until: datetime, now: datetime) -> datetime:
    """The next moment to look at something that has to wait until then."""
    return min(until, now + FARTHEST)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Exponential back-off with full jitter, never shorter than the settle delay (seconds)."""

    settle_delay_s: float = 1.0
    base_s: float = 1.0
    cap_s: float = 30.0

    def next_attempt_at(self, request: CloseRequest, now: datetime) -> datetime:
        """When the next attempt is due. The jitter is a function of the request and attempt, so a replay agrees."""
        ceiling = min(self.cap_s, self.base_s * 2.0 ** min(request.retry_count, 16))
        jitter = fraction(request.id, request.attempt)
        return now + timedelta(seconds=max(self.settle_delay_s, jitter * ceiling))

    def asks_again_at(self, request: CloseRequest, since: datetime, now: datetime) -> datetime:
        """The same for a request whose orders have been refused since then for what passes by itself."""
        first = timedelta(seconds=self.settle_delay_s)
        return now + pause(now - min(since, now), first=first, jitter=fraction(request.id, request.attempt))


_DOUBLES_UP_TO: Final = timedelta(seconds=30)
_LONGEST: Final = timedelta(minutes=5)


def pause(waited: timedelta, *, first: timedelta, jitter: float) -> timedelta:
    """Pauses begin with `first`, double up to half a minute, and are a third of the time waited so far after that, up
    to five minutes: an hour of them is about 20. `jitter` (0 to 1) makes one up to a half longer, so that closes which
    began to wait together do not ask together."""
    growing = max(first, min(waited, _DOUBLES_UP_TO), min(waited / 3, _LONGEST))
    return growing * (1 + jitter / 2)


def fraction(request_id: UUID, attempt: int) -> float:
    """A fixed number in [0, 1) that differs between requests and attempts."""
    return ((request_id.int ^ (attempt * 0x9E3779B97F4A7C15)) % 1_000_003) / 1_000_003


def look_up_again_at(order: Order, *, now: datetime) -> datetime:
    """Half as long again as it has been silent: at first quickly, later at most every 30 seconds."""
    times = [one.answered_at or one.started_at for one in order_status.submits(order)]
    silent = (now - max(times)).total_seconds() if times else 0.0
    return now + timedelta(seconds=min(BACK_OFF_CAP_S, max(0.5, silent / 2)))


def retry_in_s(order: Order, *, jitter: float, asked_s: float | None = None) -> float:
    """In how many seconds a send that the broker did not take is due again: when the broker asked for, else, or if it
    asked for no pause, within 2ⁿ seconds, n being such answers in a row, with full jitter (`jitter` in [0, 1))."""
    if asked_s:
        return min(asked_s, 10 * BACK_OFF_CAP_S)
    in_a_row = 0
    for one in reversed(order_status.submits(order)):
        if one.counts and one.answer is not None:
            break
        in_a_row += 1
    ceiling = min(BACK_OFF_CAP_S, 2.0 ** min(in_a_row, 10))
    return max(0.1, jitter * ceiling)
