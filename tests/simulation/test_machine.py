"""The same steps under Hypothesis, which looks for a schedule that breaks a rule and makes it short."""

from __future__ import annotations

from random import Random

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.simulation.actions import ACTIONS, take
from tests.simulation.drain import drain, heal
from tests.simulation.ending import check_ended
from tests.simulation.world import World, make_world

PROFILE = settings(
    max_examples=12,
    stateful_step_count=60,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


class CloseMachine(RuleBasedStateMachine):
    """Safety is checked inside every step; at the end everything is mended, drained and compared."""

    world: World

    @initialize(random=st.randoms(use_true_random=False))
    def begin(self, random: Random) -> None:
        self.world = make_world(random)

    @rule(name=st.sampled_from(list(ACTIONS)))
    def step(self, name: str) -> None:
        take(self.world, name)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            heal(self.world)
            drain(self.world)
            check_ended(self.world)


def test_no_schedule_breaks_a_rule() -> None:
    run_state_machine_as_test(CloseMachine, settings=PROFILE)
