"""How often a close that cannot be planned is asked about again."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from closeflow.domain.close.deferral import ask_again_at, deferred
from closeflow.domain.model import CloseRequest, RequestStatus

from .builders import NOW, a_request, at

FIRST = timedelta(seconds=1)


def pauses(request: CloseRequest, within: timedelta, reason: str = "no_fresh_quote") -> list[float]:
    """In seconds, of a close that is deferred for the same reason again and again."""
    found: list[float] = []
    now = NOW
    while now < NOW + within:
        until = ask_again_at(request, reason, FIRST, now=now)
        found.append((until - now).total_seconds())
        request = replace(deferred(request, until, reason, now=now), emission=request.emission + 1)
        now = until
    return found


def test_pauses_double_up_to_half_a_minute_and_grow_on_after_that() -> None:
    found = pauses(a_request(status=RequestStatus.PENDING), timedelta(hours=1))
    assert len(found) <= 26, "with its first event and the position's an hour writes 28 rows at most"
    assert 1 <= found[0] <= 1.5
    assert sum(found[:8]) > 60
    assert max(found) <= 450
    assert found[-2] > 100


def test_closes_that_are_deferred_together_do_not_ask_again_together() -> None:
    requests = [a_request(id=UUID(int=number << 64 | number), status=RequestStatus.PENDING) for number in range(1, 61)]
    due = {ask_again_at(one, "no_fresh_quote", FIRST, now=NOW) for one in requests}
    assert len(due) > 50
    assert max(due) - min(due) > timedelta(seconds=0.3)


@pytest.mark.parametrize(
    ("was", "reason", "since"),
    [
        ("no_fresh_quote", "no_fresh_quote", -100),
        ("no_fresh_quote", "broker_unavailable", -100),
        ("market_closed", "market_closed", -100),
        ("market_closed", "no_fresh_quote", 0),
        ("no_fresh_quote", "trading_halted", 0),
        ("submit_limit_reached", "no_fresh_quote", 0),
    ],
)
def test_a_wait_whose_end_is_known_does_not_count_for_another_reason(was: str, reason: str, since: int) -> None:
    request = a_request(status=RequestStatus.PENDING, reason=was, deferred_since=at(-100))
    assert deferred(request, at(1), reason, now=NOW).deferred_since == at(since)


def test_a_clock_that_was_set_back_starts_it_anew() -> None:
    request = a_request(status=RequestStatus.PENDING, reason="no_fresh_quote", deferred_since=at(3600))
    assert ask_again_at(request, "no_fresh_quote", FIRST, now=NOW) <= at(1.5)
    assert deferred(request, at(1), "no_fresh_quote", now=NOW).deferred_since == NOW
