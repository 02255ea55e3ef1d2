"""A short run of the simulation; `make simulate` is the long one."""

from __future__ import annotations

from typing import Final

import pytest

from tests.simulation.running import run_seed
from tests.simulation.summary import Summary

SEEDS: Final = range(1, 141)
SELDOM: Final = {
    "silence": range(1, 31),
    "cancels": range(1, 31),
    "publication": range(1, 31),
    "close only": range(58, 88),
}
"""More seeds of the themes that meet what is seldom: an id sent again, a cancel refused, a lost slot, an excess."""


@pytest.fixture(scope="module")
def summary() -> Summary:
    """Every seed's result; a violation says how to replay it."""
    summary = Summary()
    runs = [(seed, None) for seed in SEEDS] + [(seed, theme) for theme, seeds in SELDOM.items() for seed in seeds]
    for seed, theme in runs:
        ran = run_seed(seed, theme=theme)
        assert ran.violation is None, f"{ran.violation}\n{ran.replay}"
        summary.add(ran)
    return summary


def test_every_seed_keeps_the_invariants_and_ends(summary: Summary) -> None:
    assert summary.violations == 0
    assert summary.steps >= 100 * len(SEEDS)
    assert summary.fills >= len(SEEDS)


def test_the_run_met_every_fault_and_took_every_action(summary: Summary) -> None:
    assert summary.missing() == []


def test_one_seed_is_one_schedule() -> None:
    once, again = run_seed(7), run_seed(7)
    assert (once.steps, once.actions, once.faults, once.incidents) == (
        again.steps,
        again.actions,
        again.faults,
        again.incidents,
    )
