"""How far the board has read, and up to which moment what it shows is whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

Place = tuple[str, int]
"""A topic and the number of one of its partitions."""


@dataclass(slots=True)
class Progress:
    """Told of each record that was read, and now and then of where the partitions end. What was there at such a moment
    and is read since makes the board whole as of that moment."""

    as_of: datetime | None = None
    """The last moment of which everything that Kafka had is shown; None before the first."""
    _next: dict[Place, int] = field(default_factory=dict)
    _first: Mapping[Place, int] = field(default_factory=dict)
    _ends: Mapping[Place, int] = field(default_factory=dict)
    _looked_at: datetime | None = None

    def read(self, topic: str, partition: int, offset: int) -> None:
        """The record at this offset was read."""
        self._next[topic, partition] = offset + 1

    def began(self, begins: Mapping[Place, int]) -> None:
        """The first offset that each partition has: what is before was never there to be read."""
        self._first = begins

    def looked(self, ends: Mapping[Place, int], now: datetime) -> None:
        """The partitions end here at this moment. Until a look is reached, later ones do not take its place."""
        self.catch_up()
        if self._looked_at is None:
            self._ends, self._looked_at = ends, now
        self.catch_up()

    def catch_up(self) -> None:
        """Whole as of the last look, if all that was there then is read."""
        if self._looked_at is not None and self.waiting == 0:
            self.as_of, self._looked_at = self._looked_at, None

    @property
    def waiting(self) -> int:
        """Records that were there at the last look and are not read yet."""
        return sum(max(0, end - self._reached(place)) for place, end in self._ends.items())

    @property
    def total(self) -> int:
        """Records that the topics had at the last look, as far as offsets tell."""
        return sum(max(0, end - self._first.get(place, 0)) for place, end in self._ends.items())

    def _reached(self, place: Place) -> int:
        return max(self._next.get(place, 0), self._first.get(place, 0))
