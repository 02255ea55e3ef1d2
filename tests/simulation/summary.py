"""What many seeds came to, and whether they met enough trouble to mean anything."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import ClassVar

from tests.simulation.actions import ACTIONS
from tests.simulation.faults import Fault
from tests.simulation.running import Ran
from tests.simulation.themes import THEMES


@dataclass(slots=True)
class Summary:
    ENOUGH_SEEDS: ClassVar[int] = 100
    """From so many seeds on, every action and every fault has to have happened."""
    ENOUGH_OF_A_THEME: ClassVar[int] = 50
    """From so many seeds of a theme on, each of its faults has to have hit work in flight under it."""

    seeds: int = 0
    steps: int = 0
    closes: int = 0
    fills: int = 0
    violations: int = 0
    actions: Counter[str] = field(default_factory=Counter)
    faults: Counter[Fault] = field(default_factory=Counter)
    themes: Counter[str] = field(default_factory=Counter)
    hits: Counter[tuple[str, Fault]] = field(default_factory=Counter)
    """By theme and fault, how often."""
    incidents: Counter[str] = field(default_factory=Counter)
    began: float = field(default_factory=time.monotonic)

    def add(self, ran: Ran) -> None:
        self.seeds += 1
        self.steps += ran.steps
        self.closes += ran.closes
        self.fills += ran.fills
        self.violations += ran.violation is not None
        self.actions += ran.actions
        self.faults += ran.faults
        self.incidents.update(ran.incidents)
        self.themes[ran.drawn] += 1
        self.hits.update({(ran.drawn, fault): count for fault, count in ran.faults.items()})

    def missing(self) -> list[str]:
        """The faults and actions that never happened, and the themes without one of theirs."""
        faults = [fault.value for fault in Fault if not self.faults[fault]]
        often = [one for one in THEMES if self.themes[one.name] >= self.ENOUGH_OF_A_THEME]
        spared = [(one.name, fault) for one in often for fault in sorted(one.often) if not self.hits[one.name, fault]]
        actions = [name for name in ACTIONS if not self.actions[name]]
        return [*faults, *(f"{fault.value} (theme {name})" for name, fault in spared), *actions]

    def lines(self) -> list[str]:
        return [
            f"actions: {_counts(self.actions)}",
            f"faults: {_counts(self.faults)}",
            f"runs with incident: {_counts(self.incidents)}",
        ]

    def last_line(self) -> str:
        seconds = time.monotonic() - self.began
        return (
            f"simulation: {self.seeds} seeds, {self.steps} steps, {self.closes} closes, {self.fills} fills, "
            f"{sum(self.faults.values())} faults of {len(self.faults)} kinds, {seconds:.0f} s, "
            f"{self.violations} violations"
        )


def _counts(of: Counter[str] | Counter[Fault]) -> str:
    return ", ".join(f"{name} {count}" for name, count in of.most_common()) or "none"
