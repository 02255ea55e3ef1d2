"""A subject gets its closes and no more, and is told how many are left; being forgotten gains it nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from token_signing import Still

from close_api.auth.rate_limit import Rate, RateLimited, RateLimits, Taken, TooMany, take
from close_api.errors import Code
from closeflow.clock import driven_by

LONG_AGO: Final = float("-inf")


@pytest.fixture
def clock() -> Iterator[Still]:
    still = Still()
    with driven_by(still):
        yield still


def refused(limits: RateLimits, subject: str, closes: int = 1) -> RateLimited:
    with pytest.raises(RateLimited) as raised:
        limits.take(subject, closes)
    return raised.value


def test_a_full_bucket_can_be_used_at_once_and_then_fills_evenly(clock: Still) -> None:
    limits = RateLimits(limit=10, window_s=60)
    assert [limits.take("a", 1).remaining for _ in range(10)] == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    assert refused(limits, "a").retry_after_s == 6
    clock.by = 5.9
    refused(limits, "a")
    clock.by = 6
    assert limits.take("a", 1).remaining == 0
    clock.by = 66
    assert limits.take("a", 0).remaining == 10


def test_subjects_do_not_share(clock: Still) -> None:
    limits = RateLimits(limit=1, window_s=60)
    limits.take("a", 1)
    refused(limits, "a")
    assert limits.take("b", 1).remaining == 0


def test_a_refusal_says_when_and_counts_nothing(clock: Still) -> None:
    limits = RateLimits(limit=100, window_s=50)
    limits.take("a", 60)
    problem = refused(limits, "a", 50)
    assert (problem.code, problem.retry_after_s) == (Code.RATE_LIMITED, 5)
    assert problem.rate == Rate(limit=100, remaining=40, reset_s=5, window_s=50)
    assert problem.headers == {"ratelimit-policy": '"closes";q=100;w=50', "ratelimit": '"closes";r=40;t=5'}
    assert limits.take("a", 40).remaining == 0
    clock.by = 25
    assert limits.take("a", 50).remaining == 0


def test_looking_costs_nothing_and_is_never_refused(clock: Still) -> None:
    limits = RateLimits(limit=2, window_s=10)
    assert [limits.take("a", 0) for _ in range(5)] == [Rate(2, 2, 5, 10)] * 5
    limits.take("a", 2)
    assert limits.take("a", 0) == Rate(2, 0, 5, 10)
    clock.by = 4
    assert limits.take("a", 0) == Rate(2, 0, 1, 10)


def test_more_than_the_limit_at_once_is_owed_afterwards(clock: Still) -> None:
    limits = RateLimits(limit=100, window_s=10)
    assert limits.take("a", 500) == Rate(100, 0, 41, 10)
    assert limits.take("a", 0).remaining == 0
    assert refused(limits, "a").retry_after_s == 41
    clock.by = 50
    assert limits.take("a", 100).remaining == 0
    assert refused(limits, "a", 500).retry_after_s == 10


def test_who_is_forgotten_gains_nothing(clock: Still) -> None:
    limits = RateLimits(limit=10, window_s=60, subjects=2)
    limits.take("a", 10)
    for other in "bcd":
        try:
            limits.take(other, 1)
        except RateLimited:
            continue
    assert refused(limits, "a").retry_after_s == 6


def test_forgetting_who_was_away_for_a_window_costs_nobody(clock: Still) -> None:
    limits = RateLimits(limit=10, window_s=60, subjects=2)
    limits.take("a", 10)
    limits.take("b", 10)
    clock.by = 60
    assert [limits.take(other, 1).remaining for other in "cd"] == [9, 9]


def test_the_subject_that_closed_last_is_forgotten_last(clock: Still) -> None:
    limits = RateLimits(limit=10, window_s=60, subjects=2)
    limits.take("a", 4)
    limits.take("b", 2)
    limits.take("a", 4)
    limits.take("c", 1)  # Of b, with 2 used, nothing is known any more.
    assert limits.take("a", 0).remaining == 2
    assert limits.take("c", 0).remaining == 9
    assert limits.take("b", 0).remaining == 8
    assert limits.take("new", 0).remaining == 8


@given(
    st.integers(1, 1000),
    st.integers(1, 3600),
    st.lists(st.tuples(st.floats(0, 100), st.integers(0, 1500)), max_size=40),
)
def test_no_window_has_more_than_what_was_there_and_what_came_in(
    limit: int, window_s: int, calls: list[tuple[float, int]]
) -> None:
    now, full_at, taken, largest = 0.0, LONG_AGO, 0, 0
    for pause_s, closes in calls:
        now += pause_s
        decision = take(full_at, closes, limit=limit, window_s=window_s, now=now)
        assert 0 <= decision.rate.remaining <= limit
        assert decision.rate.reset_s >= 1
        match decision:
            case Taken(full_at=full_at):
                taken, largest = taken + closes, max(largest, closes - limit)
            case TooMany(rate=rate):
                later = take(full_at, closes, limit=limit, window_s=window_s, now=now + rate.reset_s)
                assert isinstance(later, Taken)
        assert taken <= limit + now * limit / window_s + largest + 0.01
