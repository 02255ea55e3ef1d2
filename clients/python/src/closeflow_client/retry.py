"""Whether a call is made again, and after how long: one pure function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from closeflow_client.errors import TEMPORARY, AnswerUnreadable, CloseflowError

ONLY_IF_TOLD: Final = frozenset({"trading_halted"})
"""Codes that are retried only where the server says that it may help."""
_NOT_KNOWN: Final[frozenset[int | str | None]] = frozenset(
    {500, 502, 503, 504, "UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN", "CANCELLED"}
)
_NOTHING_DONE: Final = frozenset({"overloaded", "trading_halted"})
_FIRST_WAIT_S: Final = 0.1
_LONGEST_WAIT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Unanswered:
    """No answer came. `sent` says that the server may have the call; `hopeless` that the next attempt would fail alike
    (a certificate that is not trusted)."""

    message: str
    sent: bool
    hopeless: bool = False


Failure = CloseflowError | Unanswered
"""How an attempt failed: what the server refused, or that it gave no answer."""


def wait_before_retry(
    failure: Failure, *, attempts: int, elapsed_s: float, retry_for_s: float, chance: float
) -> float | None:
    """Seconds until the same call is made again, or None when it is not, after `attempts` (at least 1) that failed.

    The wait is what the server asks for (Retry-After) plus a random part, `chance` (0 to 1) of a bound that doubles
    from 0.1 s to 5 s: exponential back-off with full jitter. None begins later than `retry_for_s` after the first.
    """
    if isinstance(failure, Unanswered):
        again, at_least_s = not failure.hopeless, 0.0
    else:
        told = failure.should_retry
        again = failure.status in TEMPORARY and (told is True if failure.code in ONLY_IF_TOLD else told is not False)
        at_least_s = failure.retry_after_s or 0.0
    bound_s = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** min(attempts - 1, 20))
    wait_s = at_least_s + chance * bound_s
    return wait_s if again and elapsed_s + wait_s <= retry_for_s else None


def may_be_accepted(failure: Failure) -> bool:
    """Whether the server may have accepted what failed so."""
    if isinstance(failure, Unanswered):
        return failure.sent
    if isinstance(failure, AnswerUnreadable):
        return True
    return failure.status in _NOT_KNOWN and failure.code not in _NOTHING_DONE
