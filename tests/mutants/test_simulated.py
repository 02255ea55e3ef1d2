"""The simulation finds wrong decisions: without this, that it finds nothing would prove nothing."""

from __future__ import annotations

from typing import Final

import pytest

from tests.mutants.simulated import MUTANTS, Mutant, planted
from tests.simulation.faults import Violation
from tests.simulation.running import run_seed

MOST_SEEDS: Final = 200


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
def test_a_wrong_decision_is_found(mutant: Mutant) -> None:
    with planted(mutant.edits):
        runs = (run_seed(seed, theme=mutant.theme) for seed in range(mutant.first, mutant.first + MOST_SEEDS))
        assert any((ran.violation or "").startswith(Violation.__name__) for ran in runs)
