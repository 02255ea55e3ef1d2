"""How many closes each subject may ask for: a token bucket, known by the one time at which it will be full again."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from math import ceil, floor
from typing import Final

from close_api.errors import Code, Problem
from closeflow.clock import monotonic

POLICY: Final = "closes"
_ROUNDING: Final = 1e-6
"""Of a close: what sums of floats may lack to a whole one."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Of `limit` closes in `window_s` a subject may ask for `remaining` within the next `reset_s`."""

    limit: int
    remaining: int
    reset_s: int
    window_s: int

    def headers(self) -> dict[str, str]:
        """The fields of the IETF draft "RateLimit header fields for HTTP" (draft-ietf-httpapi-ratelimit-headers-11)."""
        return {
            "ratelimit-policy": f'"{POLICY}";q={self.limit};w={self.window_s}',
            "ratelimit": f'"{POLICY}";r={self.remaining};t={self.reset_s}',
        }


class RateLimited(Problem):
    """`rate_limited`, with where the subject stands; nothing was counted."""

    def __init__(self, rate: Rate) -> None:
        super().__init__(Code.RATE_LIMITED, headers=rate.headers(), retry_after_s=rate.reset_s)
        self.rate = rate


@dataclass(frozen=True, slots=True)
class Taken:
    """The closes are counted; the bucket will be full again at `full_at`."""

    full_at: float
    rate: Rate


@dataclass(frozen=True, slots=True)
class TooMany:
    """Not so many at present."""

    rate: Rate


def take(full_at: float, closes: int, *, limit: int, window_s: int, now: float) -> Taken | TooMany:
    """Take `closes` out of a bucket of `limit` that fills within `window_s`, and is full at `full_at`.

    What is more than a full bucket holds is let through when it is full, and owed afterwards: refused, it could never
    pass. Times are seconds of one monotonic clock.
    """
    close_s = window_s / limit
    full_at = max(full_at, now)
    available = limit - (full_at - now) / close_s
    wanted = min(closes, limit)
    if closes > 0 and available + _ROUNDING < wanted:
        wait_s = (wanted - available) * close_s
        return TooMany(Rate(limit, _whole(available), _seconds(wait_s), window_s))
    available -= closes
    remaining = _whole(available)
    return Taken(
        full_at + closes * close_s, Rate(limit, remaining, _seconds((remaining + 1 - available) * close_s), window_s)
    )


class RateLimits:
    """The buckets of at most `subjects` subjects, forgotten in the order of their last close.

    A subject that was forgotten gains nothing by it: whoever is not known is taken to have used as much as any of the
    forgotten can still have used. As long as no more than `subjects` close within a window, that is nothing.
    """

    def __init__(self, *, limit: int, window_s: int, subjects: int = 10_000) -> None:
        self._limit = limit
        self._window_s = window_s
        self._subjects = subjects
        self._full_at: OrderedDict[str, float] = OrderedDict()
        self._others_full_at = float("-inf")

    def take(self, subject: str, closes: int) -> Rate:
        """Count the closes and say what is left; 0 only looks. Raises RateLimited, and counts nothing then."""
        full_at = self._full_at.get(subject, self._others_full_at)
        decision = take(full_at, closes, limit=self._limit, window_s=self._window_s, now=monotonic())
        if isinstance(decision, TooMany):
            raise RateLimited(decision.rate)
        if closes > 0:
            self._full_at[subject] = decision.full_at
            self._full_at.move_to_end(subject)
            if len(self._full_at) > self._subjects:
                _, forgotten = self._full_at.popitem(last=False)
                self._others_full_at = max(self._others_full_at, forgotten)
        return decision.rate


def _whole(available: float) -> int:
    return max(0, floor(available + _ROUNDING))


def _seconds(wait_s: float) -> int:
    """Whole seconds, as the field has them, and never too early."""
    return max(1, ceil(wait_s - _ROUNDING))
