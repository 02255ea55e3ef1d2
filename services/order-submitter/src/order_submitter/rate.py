"""A token bucket: at most `rate_per_s` sends a second, a second's worth of them at once."""

from __future__ import annotations


class TokenBucket:
    """The caller reads the monotonic clock."""

    def __init__(self, rate_per_s: float, *, now: float) -> None:
        self._rate = rate_per_s
        self._most = max(1.0, rate_per_s)
        self._tokens = self._most
        self._at = now

    def take(self, now: float) -> bool:
        self._tokens = min(self._most, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def owe(self, now: float) -> float:
        """Take a token even if there is none; returns how many seconds the caller has to wait for it."""
        self._tokens = min(self._most, self._tokens + (now - self._at) * self._rate) - 1
        self._at = now
        return max(0.0, -self._tokens / self._rate)
