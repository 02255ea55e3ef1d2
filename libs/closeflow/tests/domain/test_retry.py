"""A moment that was written by a clock that was ahead is not waited for (invariant 20)."""

from __future__ import annotations

from datetime import timedelta

import pytest

from closeflow.domain.retry import FARTHEST, is_due, look_again_by

from .builders import NOW


@pytest.mark.parametrize(
    ("ahead", "due"),
    [
        pytest.param(timedelta(seconds=-1), True, id="a moment that has passed"),
        pytest.param(timedelta(0), True, id="this very moment"),
        pytest.param(timedelta(milliseconds=1), False, id="a moment to come"),
        pytest.param(FARTHEST, False, id="the longest pause"),
        pytest.param(timedelta(hours=1), True, id="longer than any pause: the clock was an hour ahead"),
    ],
)
def test_a_moment_is_due(ahead: timedelta, due: bool) -> None:
    assert is_due(NOW + ahead, NOW) is due


def test_what_waits_for_longer_looks_again_meanwhile() -> None:
    assert look_again_by(NOW + timedelta(hours=9), NOW) == NOW + FARTHEST
    assert look_again_by(NOW + timedelta(seconds=9), NOW) == NOW + timedelta(seconds=9)
