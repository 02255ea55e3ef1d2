"""Time as each part sees it: one true time, wall clocks that jump, and a monotonic clock per process."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

START: Final = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)


@dataclass(slots=True)
class Clock:
    """`elapsed` is true time in seconds, and what monotonic clocks show. Wall clocks are named by who reads them."""

    elapsed: float = 0.0
    off: dict[str, timedelta] = field(default_factory=dict)

    def now(self, whose: str) -> datetime:
        return START + timedelta(seconds=self.elapsed) + self.off.get(whose, timedelta())

    def advance(self, seconds: float) -> None:
        self.elapsed = round(self.elapsed + seconds, 6)

    def jump(self, whose: str, by: timedelta) -> None:
        self.off[whose] = by

    def heal(self) -> None:
        self.off.clear()
