"""What ended is started again, after pauses that grow, and it is said: here `make run` is the service manager."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from demo.services import Service

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 30.0
RAN_WELL_S: Final = 60.0
"""A service that ran for so long begins with the first pause again."""
OFTEN: Final = 5


@dataclass(slots=True)
class _Restart:
    started_at: float
    times: int = 0
    due_at: float | None = None


class Restarts:
    """Looks at the running services again and again; never gives one up."""

    def __init__(
        self,
        launch: Callable[[str], object],
        report: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._launch = launch
        self._report = report
        self._clock = clock
        self._known: dict[str, _Restart] = {}

    def look(self, running: Mapping[str, Service]) -> None:
        """Say what ended since the last look, and start what is due."""
        now = self._clock()
        for name, service in list(running.items()):
            one = self._known.setdefault(name, _Restart(now))
            if service.running:
                continue
            if one.due_at is None:
                self._put_down(name, service, one, now)
            elif now >= one.due_at:
                self._report(f"{name} is started again")
                one.started_at, one.due_at = now, None
                self._launch(name)

    def _put_down(self, name: str, service: Service, one: _Restart, now: float) -> None:
        one.times = 1 if now - one.started_at > RAN_WELL_S else one.times + 1
        pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(one.times - 1, 30))
        one.due_at = now + pause_s
        line = (
            f"{name} ended with {service.process.poll()} and is started again in {pause_s:.0f} s (log: {service.log})"
        )
        if one.times >= OFTEN:
            line = f"[red]{line}; it has now ended {one.times} times in a row, so something has to be repaired[/]"
        self._report(line)
