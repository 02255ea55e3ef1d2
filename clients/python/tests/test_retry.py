"""Whether a call is made again, row by row."""

from __future__ import annotations

from typing import Any

import pytest

from closeflow_client.errors import CloseflowError, error_of
from closeflow_client.retry import Failure, Unanswered, may_be_accepted, wait_before_retry


def refused(status: int | str, code: str = "unknown", **facts: Any) -> CloseflowError:
    return error_of(code, "", status=status, **facts)


def waits(failure: Failure, *, attempts: int = 1, elapsed_s: float = 0, chance: float = 1.0) -> float | None:
    return wait_before_retry(failure, attempts=attempts, elapsed_s=elapsed_s, retry_for_s=30, chance=chance)


@pytest.mark.parametrize(
    ("failure", "wait_s"),
    [
        (Unanswered("refused", sent=False), 0.1),
        (Unanswered("lost", sent=True), 0.1),
        (Unanswered("not trusted", sent=False, hopeless=True), None),
        (refused(503, "unavailable"), 0.1),
        (refused(503, "unavailable", retry_after_s=2.0), 2.1),
        (refused(503, "unavailable", retry_after_s=2.0, should_retry=True), 2.1),
        (refused(503, "unavailable", should_retry=False), None),
        (refused(503, "overloaded", retry_after_s=1.0, should_retry=True), 1.1),
        (refused(503, "unavailable", retry_after_s=29.95), None),
        (refused(429, "rate_limited", retry_after_s=5.0), 5.1),
        (refused(429, "rate_limited", should_retry=False), None),
        (refused(503, "trading_halted", retry_after_s=1.0), None),
        (refused(503, "trading_halted", retry_after_s=1.0, should_retry=True), 1.1),
        (refused(408, "body_too_slow", should_retry=True), 0.1),
        (refused(502), 0.1),
        (refused(503), 0.1),
        (refused(504), 0.1),
        (refused("UNAVAILABLE", "unavailable"), 0.1),
        (refused("UNAVAILABLE", "trading_halted"), None),
        (refused("RESOURCE_EXHAUSTED", "rate_limited", retry_after_s=1.0), 1.1),
        (refused("RESOURCE_EXHAUSTED", "overloaded"), 0.1),
        *[
            (refused(status, should_retry=told), None)
            for status in (400, 401, 403, 404, 405, 409, 411, 412, 413, 415, 417, 422, 500, 501, 200, 307)
            for told in (None, True, False)
        ],
        *[
            (refused(status, should_retry=told), None)
            for status in ("INVALID_ARGUMENT", "UNAUTHENTICATED", "PERMISSION_DENIED", "NOT_FOUND", "ABORTED")
            for told in (None, True, False)
        ],
        (refused("FAILED_PRECONDITION", "position_already_closing", should_retry=True), None),
        (refused("INTERNAL", "internal_error", should_retry=True), None),
    ],
)
def test_only_what_is_safe_is_retried(failure: Failure, wait_s: float | None) -> None:
    assert waits(failure) == (None if wait_s is None else pytest.approx(wait_s))


@pytest.mark.parametrize(
    ("attempts", "bound_s"), [(1, 0.1), (2, 0.2), (3, 0.4), (6, 3.2), (7, 5.0), (8, 5.0), (10_000, 5.0)]
)
def test_the_random_part_doubles_up_to_five_seconds(attempts: int, bound_s: float) -> None:
    failure = Unanswered("lost", sent=True)
    for chance in (0.0, 0.25, 1.0):
        assert waits(failure, attempts=attempts, chance=chance) == pytest.approx(chance * bound_s)


def test_what_the_server_asks_for_is_the_least_wait() -> None:
    asked = refused(503, "overloaded", retry_after_s=3.0)
    assert waits(asked, chance=0.0) == 3.0
    assert waits(asked, attempts=5, chance=1.0) == pytest.approx(3.0 + 1.6)


@pytest.mark.parametrize(("elapsed_s", "again"), [(0.0, True), (29.9, True), (29.91, False), (31.0, False)])
def test_no_attempt_begins_after_the_limit(elapsed_s: float, again: bool) -> None:
    assert (waits(Unanswered("lost", sent=True), elapsed_s=elapsed_s) is not None) == again


@pytest.mark.parametrize(
    ("failure", "possible"),
    [
        (Unanswered("refused", sent=False), False),
        (Unanswered("lost", sent=True), True),
        (refused(503, "overloaded"), False),
        (refused(503, "trading_halted"), False),
        (refused(503, "unavailable"), True),
        (refused(503), True),
        (refused(502), True),
        (refused(504), True),
        (refused(500, "internal_error"), True),
        (refused("UNAVAILABLE", "unavailable"), True),
        (refused("INTERNAL", "internal_error"), True),
        (refused("RESOURCE_EXHAUSTED", "overloaded"), False),
        (refused(200, "answer_unreadable"), True),
        (refused(429, "rate_limited"), False),
        (refused(409, "position_already_closing"), False),
        (refused(401, "unauthenticated"), False),
        (refused(307), False),
    ],
)
def test_it_is_known_which_failures_may_have_been_accepted(failure: Failure, possible: bool) -> None:
    assert may_be_accepted(failure) is possible
