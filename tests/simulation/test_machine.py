"""The same steps under Hypothesis, which looks for a schedule that breaks a rule and makes it short."""

from __future__ import annotations

from collections import Counter
from math import ceil
from random import Random
from typing import ClassVar, Final

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.mutants.simulated import MUTANTS, planted
from tests.simulation.actions import ACTIONS, take, weights
from tests.simulation.drain import drain, heal
from tests.simulation.ending import check_ended
from tests.simulation.faults import Violation
from tests.simulation.world import World, make_world

PROFILE: Final = settings(
    max_examples=28,
    stateful_step_count=200,
    derandomize=True,
    database=None,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
MOST_DRAWS: Final = 8
SEARCH: Final = settings(PROFILE, max_examples=200, phases=[Phase.generate])
"""To find something wrong is enough; there is no need to make it short."""


class CloseMachine(RuleBasedStateMachine):
    """Safety is checked inside every step; at the end everything is mended, drained and compared.

    Hypothesis draws the steps, as often as a run has them, and a seed for all that chance decides inside them.
    """

    theme: ClassVar[str | None] = None
    before_heal: ClassVar[Counter[str]] = Counter()
    world: World
    names: st.SearchStrategy[str]

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        self.world = make_world(Random(seed), self.theme)
        frequent = zip(ACTIONS, weights(self.world), strict=True)
        self.names = st.sampled_from([name for name, weight in frequent for _ in range(ceil(weight))])

    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        """The first of a few that finds something to do."""
        for _ in range(MOST_DRAWS):
            if take(self.world, data.draw(self.names)):
                return

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.before_heal["orders"] += len(list(self.world.database.orders()))
            self.before_heal["fills"] += sum(len(order.fills) for order in self.world.exchange.orders)
            heal(self.world)
            drain(self.world)
            check_ended(self.world)


def machine(theme: str | None = None) -> type[CloseMachine]:
    return type("Machine", (CloseMachine,), {"theme": theme, "before_heal": Counter()})


def test_no_schedule_breaks_a_rule() -> None:
    real = machine()
    run_state_machine_as_test(real, settings=PROFILE)
    assert real.before_heal["orders"] >= PROFILE.max_examples
    assert real.before_heal["fills"] >= PROFILE.max_examples // 3


@pytest.mark.parametrize("name", ["an execution per message", "a new id when an order is not found"])
def test_a_wrong_decision_is_found(name: str) -> None:
    mutant = MUTANTS[name]
    with planted(mutant.edits), pytest.raises(Violation):
        run_state_machine_as_test(machine(mutant.theme), settings=SEARCH)
