"""The calls that arrive, a limit on them, and what a refused one is told about when to come again.

The limit is that of an account: calls to every endpoint count, those that are refused too.
"""

import math
import time
from collections import Counter, deque
from collections.abc import Mapping
from email.utils import formatdate
from typing import Annotated, Literal

from pydantic import Field

from .behaviour import Spec

Hint = Literal["seconds", "fraction", "date", "reset", "none", "zero", "past_date", "past_reset"]
_HOUR_S = 3600.0
_WINDOW_S = 60.0


def hint_headers(hint: Hint, retry_after_s: float) -> Mapping[str, str]:
    """`seconds` are whole ones, rounded up: a header may not be sooner than what was meant."""
    match hint:
        case "seconds":
            return {"Retry-After": str(math.ceil(retry_after_s))}
        case "fraction":
            return {"Retry-After": f"{retry_after_s:.3f}"}
        case "date":
            return {"Retry-After": formatdate(time.time() + retry_after_s + 1, usegmt=True)}
        case "reset":
            return {"X-RateLimit-Reset": str(math.ceil(time.time() + retry_after_s))}
        case "none":
            return {}
        case "zero":
            return {"Retry-After": "0"}
        case "past_date":
            return {"Retry-After": formatdate(time.time() - _HOUR_S, usegmt=True)}
        case "past_reset":
            return {"X-RateLimit-Reset": str(int(time.time() - _HOUR_S))}


class CallLimit(Spec):
    """So many calls in any 60 seconds (`sliding`), or in each minute since the limit was set (`fixed`)."""

    per_minute: Annotated[int, Field(ge=1, le=1_000_000)]
    window: Literal["sliding", "fixed"] = "sliding"
    hint: Hint = "seconds"


class CallsSeen(Spec):
    """Since the start or the last reset, by method and path; an order's id is left out of its path."""

    taken: dict[str, int]
    refused: dict[str, int]

    @property
    def total(self) -> int:
        """How many calls arrived, refused ones included."""
        return sum(self.taken.values()) + sum(self.refused.values())


class Calls:
    """Counts what arrives at Alpaca's routes, and refuses what is above the limit, if there is one."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget counts and limit."""
        self.limit: CallLimit | None = None
        self._taken: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._recent: deque[float] = deque()

    def set_limit(self, limit: CallLimit | None) -> None:
        """Limit from now on, or no longer; calls made before do not count against it."""
        self.limit = limit
        self._recent.clear()

    def seen(self) -> CallsSeen:
        """The counts so far."""
        return CallsSeen(taken=dict(self._taken), refused=dict(self._refused))

    def arrives(self, method: str, path: str) -> Mapping[str, str] | None:
        """Count a call; the headers of its refusal when it is one too many."""
        name = f"{method} {_endpoint(path)}"
        left_s = self._left_s()
        if self.limit is None or left_s is None:
            self._taken[name] += 1
            return None
        self._refused[name] += 1
        return hint_headers(self.limit.hint, left_s)

    def _left_s(self) -> float | None:
        """None when there is room for the call, else after how long there is."""
        if self.limit is None:
            return None
        now = time.monotonic()
        if self.limit.window == "sliding":
            while self._recent and self._recent[0] <= now - _WINDOW_S:
                self._recent.popleft()
        elif self._recent and self._recent[0] <= now - _WINDOW_S:
            self._recent.clear()
        self._recent.append(now)
        if len(self._recent) <= self.limit.per_minute:
            return None
        if self.limit.window == "sliding":
            self._recent.popleft()  # What is refused counts, but the list stays as long as the limit.
        return self._recent[0] + _WINDOW_S - now


def _endpoint(path: str) -> str:
    for prefix in ("/v2/orders/", "/v2/positions/"):
        if path.startswith(prefix):
            return f"{prefix}{{id}}"
    return path
