"""When the circuit breaker opens, lets a probe through, and closes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from closeflow.domain.model import RejectClass
from closeflow.domain.sending.broker_answers import DuplicateId, NotAccepted, NotSent, Refused, SubmitAnswer, Unanswered
from order_submitter.sending.breaker import (
    CLOSED,
    Breaker,
    BreakerRules,
    BreakerState,
    admitted,
    after_answer,
    from_row,
    shared,
    to_row,
)

NOW = 1000.0
"""Monotonic seconds."""
RULES = BreakerRules(failures=3, refusals=4, probe_s=5)
TIMED_OUT = Unanswered("no whole answer within 5 s")
REFUSED = Refused("market_closed", RejectClass.RETRYABLE, "market is closed")


def later(seconds: float) -> float:
    return NOW + seconds


def after(*answers: SubmitAnswer, breaker: Breaker = CLOSED) -> Breaker:
    for answer in answers:
        breaker = after_answer(breaker, answer, now=NOW, rules=RULES)
    return breaker


OPENED = after(*[TIMED_OUT] * 3)


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    assert after(TIMED_OUT, NotSent("connection refused")).resumes_at(NOW) is None
    breaker = after(TIMED_OUT, NotSent("connection refused"), TIMED_OUT)
    assert (breaker.state, breaker.resumes_at(NOW)) == (BreakerState.OPEN, later(5))


@pytest.mark.parametrize("answer", [REFUSED, DuplicateId()])
def test_any_answer_about_an_order_starts_the_count_of_failures_anew(answer: SubmitAnswer) -> None:
    breaker = after(TIMED_OUT, TIMED_OUT, answer)
    assert (breaker.state, breaker.failures) == (BreakerState.CLOSED, 0)


def test_what_was_withheld_here_says_nothing_of_the_broker() -> None:
    late = NotSent("no connection within 0.7 s", withheld=True)
    assert after(*[late] * 10) == CLOSED
    assert after(TIMED_OUT, late, TIMED_OUT).failures == 2


def test_it_opens_after_so_many_refused_orders_in_a_row() -> None:
    assert after(REFUSED, REFUSED, REFUSED).resumes_at(NOW) is None
    breaker = after(REFUSED, REFUSED, REFUSED, REFUSED)
    assert (breaker.state, breaker.resumes_at(NOW)) == (BreakerState.OPEN, later(5))


def test_a_refusal_and_a_failure_do_not_add_up_and_an_order_that_is_taken_ends_both_rows() -> None:
    assert after(REFUSED, REFUSED, TIMED_OUT, REFUSED).state is BreakerState.CLOSED
    assert after(REFUSED, REFUSED, REFUSED, DuplicateId()) == CLOSED


def test_a_probe_that_is_refused_like_all_before_it_keeps_it_open() -> None:
    probing = admitted(after(*[REFUSED] * 4), now=later(5), rules=RULES)
    refused = after_answer(probing, REFUSED, now=later(6), rules=RULES)
    assert (refused.state, refused.probe_at) == (BreakerState.OPEN, later(11))
    assert after_answer(probing, DuplicateId(), now=later(6), rules=RULES) == CLOSED


AT_ONCE = {
    "a refused key": (NotAccepted("401", None, credentials=True), 5),
    "a refused key with a hint of nothing": (NotAccepted("401", 0.0, credentials=True), 5),
    "an account that may not trade": (NotAccepted("new orders are rejected", None, account_wide=True), 5),
    "a rate limit with a hint of nothing": (NotAccepted("rate limited", 0.0), 1),
    "a rate limit": (NotAccepted("rate limited", None), 1),
    "a rate limit with the broker's delay": (NotAccepted("rate limited", 42.0), 42),
}


@pytest.mark.parametrize(("answer", "seconds"), AT_ONCE.values(), ids=AT_ONCE)
def test_it_opens_at_once(answer: SubmitAnswer, seconds: float) -> None:
    assert after(answer).resumes_at(NOW) == later(seconds)


def test_one_probe_goes_through_and_the_next_has_to_wait() -> None:
    breaker = after(NotAccepted("401", None, credentials=True))
    assert breaker.resumes_at(later(5)) is None
    probing = admitted(breaker, now=later(5), rules=RULES)
    assert (probing.state, probing.resumes_at(later(5))) == (BreakerState.HALF_OPEN, later(10))


def test_a_probe_that_fails_opens_it_again_and_one_that_is_answered_closes_it() -> None:
    probing = admitted(after(NotAccepted("401", None, credentials=True)), now=later(5), rules=RULES)
    failed = after_answer(probing, TIMED_OUT, now=later(6), rules=RULES)
    assert (failed.state, failed.probe_at) == (BreakerState.OPEN, later(11))
    assert after_answer(probing, REFUSED, now=later(6), rules=RULES).state is BreakerState.CLOSED


def test_a_probe_under_way_is_not_forgotten_for_what_the_database_says() -> None:
    opened = after(*[TIMED_OUT] * 3)
    mine, let_through = opened, 0
    for tenth in range(50, 100):
        now = later(tenth / 10)
        if tenth % 10 == 0:
            mine = shared(mine, opened)
        if mine.resumes_at(now) is None:
            let_through += 1
            mine = admitted(mine, now=now, rules=RULES)
    assert let_through == 1


PROBING = admitted(after(*[TIMED_OUT] * 3), now=later(5), rules=RULES)
TOLD: dict[str, tuple[Breaker, Breaker]] = {
    "it was closed": (CLOSED, CLOSED),
    "it opened anew, or another's probe failed": (replace(OPENED, probe_at=later(10.5)),) * 2,
    "nothing new": (OPENED, PROBING),
}


@pytest.mark.parametrize(("known", "expected"), TOLD.values(), ids=TOLD)
def test_what_others_wrote_counts(known: Breaker, expected: Breaker) -> None:
    assert shared(PROBING, known) == expected


def test_a_closed_breaker_lets_everything_through() -> None:
    assert admitted(CLOSED, now=NOW, rules=RULES) is CLOSED


def test_it_survives_the_database() -> None:
    for breaker in (after(NotAccepted("rate limited", 42.0)), after(REFUSED), after(*[REFUSED] * 4)):
        assert from_row(to_row(breaker, now=later(1)), now=later(1)) == breaker
    assert from_row(None, now=NOW) == CLOSED


def test_a_probe_further_ahead_than_any_pause_is_due() -> None:
    """The database's clock was an hour ahead when it made a time of it."""
    row = replace(to_row(OPENED, now=NOW), probe_in_s=3605.0)
    assert from_row(row, now=NOW).resumes_at(NOW) is None


def test_no_broker_holds_an_account_back_for_longer_than_any_pause() -> None:
    assert after(NotAccepted("rate limited", 900.0)).resumes_at(NOW) == later(600)
