"""How long a job may go on without finishing a cycle before somebody has to look."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

INTERVALS: Final = 5


LEAST_ALLOWED_S: Final = 30.0


def allowed_s(interval_s: float) -> float:
    """How long a job may go on without finishing a cycle before somebody has to look."""
    return max(LEAST_ALLOWED_S, INTERVALS * interval_s)


class Cycles:
    """When each job of this process last finished a cycle; one that only saw that another replica does it, too."""

    def __init__(self, intervals: Iterable[tuple[str, float]], *, now: float) -> None:
        self._allowed = {name: allowed_s(interval_s) for name, interval_s in intervals}
        self._finished = dict.fromkeys(self._allowed, now)

    @property
    def allowed(self) -> dict[str, float]:
        """By job, after how many seconds without a cycle it counts as stalled."""
        return dict(self._allowed)

    def finished(self, name: str, *, now: float) -> None:
        """The job ended a cycle `now` (monotonic seconds), or saw that another replica did."""
        self._finished[name] = now

    def trouble(self, *, now: float) -> str | None:
        """The jobs that stand still, if any do."""
        silent = {name: now - at for name, at in self._finished.items() if now - at >= self._allowed[name]}
        return ", ".join(f"{name} has not finished a cycle for {for_s:.0f} s" for name, for_s in silent.items()) or None
