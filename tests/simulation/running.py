"""One seed is one schedule: the same seed takes the same steps and meets the same faults."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final

from tests.simulation.actions import schedule, take
from tests.simulation.drain import drain, heal
from tests.simulation.ending import check_ended
from tests.simulation.faults import Fault
from tests.simulation.themes import THEMES
from tests.simulation.world import make_world

STEPS: Final = (120, 320)
LAST_ACTIONS: Final = 25
Tell = Callable[[str], None]


@dataclass(slots=True)
class Ran:
    """What one seed came to. `violation` is None when everything held."""

    seed: int
    theme: str | None = None
    drawn: str = ""
    """The theme it ran under, whether named or drawn."""
    steps: int = 0
    actions: Counter[str] = field(default_factory=Counter)
    faults: Counter[Fault] = field(default_factory=Counter)
    incidents: set[str] = field(default_factory=set)
    closes: int = 0
    fills: int = 0
    violation: str | None = None
    last: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_ACTIONS))

    @property
    def replay(self) -> str:
        """The command that takes the same steps again and tells them."""
        theme = f" --theme {self.theme}" if self.theme else ""
        return f".venv/bin/python -m tests.simulation --seed {self.seed}{theme} --trace"


def run_seed(seed: int, *, theme: str | None = None, tell: Tell | None = None) -> Ran:
    """`tell` gets a line for every step, for a person who replays a seed."""
    random = Random(seed)
    world = make_world(random, theme or THEMES[seed % len(THEMES)].name)
    draw, wanted, ran = schedule(world), random.randint(*STEPS) * (2 if world.theme.slow else 1), Ran(seed, theme)
    try:
        while ran.steps < wanted:
            name = draw()
            if take(world, name):
                ran.steps += 1
                ran.actions[name] += 1
                ran.last.append(name)
                if tell is not None:
                    tell(f"{ran.steps:4} {world.clock.elapsed:9.2f}s {name}")
        heal(world)
        if tell is not None:
            tell("everything is mended; draining")
        drain(world)
        check_ended(world)
    except Exception as error:
        ran.violation = f"{type(error).__name__}: {error}"
        if tell is not None:
            raise
    finally:
        ran.drawn = world.theme.name
        ran.faults = world.faults.seen
        ran.incidents = world.database.raised
        ran.closes = len(list(world.database.requests()))
        ran.fills = sum(len(order.fills) for order in world.exchange.orders)
    return ran
