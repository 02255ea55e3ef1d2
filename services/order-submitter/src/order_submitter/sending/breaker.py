"""The circuit breaker of one broker account: pure, and shared through `broker_breakers`.

It looks at the answers to orders only: a broker whose reads work while orders time out is not well. So is one that
refuses order after order: each refusal may be right, but a storm of them uses up the retries of every close.

Times are the process's own monotonic seconds; what is written are durations, and the database makes times of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from closeflow.domain.frozen import replace
from closeflow.domain.retry import FARTHEST
from closeflow.domain.sending.broker_answers import (
    Acknowledged,
    DuplicateId,
    NotAccepted,
    NotSent,
    Refused,
    SubmitAnswer,
    Unanswered,
)
from closeflow.storage.broker_breakers import BreakerRow


class BreakerState(StrEnum):
    """Closed: orders go. Open: none goes. Half-open: one was let through, and its answer decides."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerRules:
    """When it opens, and how often one order is let through then."""

    failures: int
    """So many sends in a row without an answer about the order open it."""
    refusals: int
    """So do so many refused orders in a row."""
    probe_s: float
    """So long after it opened, and again after each probe, one order is let through."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """What was seen of late; `probe_at` (monotonic seconds) is when the next order may go while it is not closed."""

    state: BreakerState = BreakerState.CLOSED
    failures: int = 0
    refusals: int = 0
    probe_at: float | None = None

    def resumes_at(self, now: float) -> float | None:
        """None when an order may go now."""
        if self.state is BreakerState.CLOSED or self.probe_at is None or self.probe_at <= now:
            return None
        return self.probe_at


CLOSED: Final = Breaker()
_RATE_LIMITED_S: Final = 1.0
_LONGEST_S: Final = FARTHEST.total_seconds()


def admitted(breaker: Breaker, *, now: float, rules: BreakerRules) -> Breaker:
    """After one order was let through: while it is not closed, that one is the probe and the next has to wait."""
    if breaker.state is BreakerState.CLOSED:
        return breaker
    return replace(breaker, state=BreakerState.HALF_OPEN, probe_at=now + rules.probe_s)


def shared(mine: Breaker, known: Breaker) -> Breaker:
    """What to go by when the database says `known`. A probe that is under way is only in memory: as long as nothing
    later was written, the next order waits for its answer or for the probe after it."""
    if mine.state is not BreakerState.HALF_OPEN or known.state is BreakerState.CLOSED or mine.probe_at is None:
        return known
    return known if known.probe_at is not None and known.probe_at >= mine.probe_at else mine


def after_answer(breaker: Breaker, answer: SubmitAnswer, *, now: float, rules: BreakerRules) -> Breaker:
    """The breaker after the answer to a send. What says nothing of the broker changes nothing."""
    match answer:
        case Acknowledged() | DuplicateId():
            return CLOSED
        case Refused():
            refusals = breaker.refusals + 1
            if refusals < rules.refusals:
                return Breaker(refusals=refusals)  # The broker answers, whatever it was opened for.
            return _opened(replace(breaker, failures=0, refusals=refusals), now, rules.probe_s)
        case NotAccepted(retry_after_s=asked_s, credentials=key, account_wide=all_orders):
            # What the broker asks for may be nothing at all, and of a rate limit's growing pauses the adapter knows.
            return _opened(breaker, now, max(asked_s or 0.0, rules.probe_s if key or all_orders else _RATE_LIMITED_S))
        case NotSent(withheld=True):
            return breaker  # A busy host is no broker that is away.
        case NotSent() | Unanswered():
            failures = breaker.failures + 1
            if breaker.state is BreakerState.CLOSED and failures < rules.failures:
                return replace(breaker, failures=failures)
            return _opened(replace(breaker, failures=failures), now, rules.probe_s)


def after_judged(breaker: Breaker, *, rules: BreakerRules) -> Breaker:
    """After a refusal in unknown words that is not its order's alone: an answer, but it holds back no other order."""
    return Breaker(refusals=breaker.refusals) if breaker.refusals < rules.refusals else breaker


def _opened(breaker: Breaker, now: float, wait_s: float) -> Breaker:
    return replace(breaker, state=BreakerState.OPEN, probe_at=now + min(wait_s, _LONGEST_S))


def from_row(row: BreakerRow | None, *, now: float) -> Breaker:
    """As it was read `now`. A probe that is further ahead than any pause was written by a database's clock that was
    ahead, and is due (ADR 0011)."""
    if row is None:
        return CLOSED
    return Breaker(
        state=BreakerState(row.state),
        failures=row.failures,
        refusals=row.refusals,
        probe_at=None if row.probe_in_s is None else now + (row.probe_in_s if row.probe_in_s <= _LONGEST_S else 0.0),
    )


def to_row(breaker: Breaker, *, now: float) -> BreakerRow:
    """With the time of the probe as seconds from now: a monotonic clock is no other process's."""
    return BreakerRow(
        state=breaker.state.value,
        failures=breaker.failures,
        refusals=breaker.refusals,
        probe_in_s=None if breaker.probe_at is None else breaker.probe_at - now,
    )
