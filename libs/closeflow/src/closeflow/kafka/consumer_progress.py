"""Whether a consumer is in its group and moves: what its service's readiness says of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from aiokafka import AIOKafkaConsumer

STALLED_AFTER_S: Final = 20.0
"""A fetch is answered within a poll (half a second), also where there is nothing to read; a rebalance takes seconds."""


class ConsumerProgress:
    """A consumer moves when Kafka answers its fetches, or a batch was processed. One that holds no partitions, because
    the others of its group have them all, has nothing to fetch: it moves when the group answers its heartbeats."""

    def __init__(
        self, *, stalled_after_s: float = STALLED_AFTER_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stalled_after_s = stalled_after_s
        self._clock = clock
        self._partitions: frozenset[int] | None = None
        self._moved_at: float | None = None
        self._working = False
        self._failure: str | None = "it has not joined its group yet"

    def assigned(self, partitions: frozenset[int]) -> None:
        """It has joined its group and may read these partitions; none is fine where others have them all."""
        self._partitions, self._failure = partitions, None
        self.moved()

    def revoked(self) -> None:
        """A rebalance has begun: it waits to be assigned again."""
        self._partitions = None

    def given(self) -> None:
        """A batch, to be worked on."""
        self.moved()
        self._working = True

    def in_group(self) -> None:
        """The group's coordinator answered a heartbeat."""
        if self._partitions == frozenset():
            self.moved()

    def moved(self) -> None:
        """Kafka answered a fetch, and there is nothing to work on."""
        self._moved_at, self._working = self._clock(), False

    def failed(self, reason: str) -> None:
        """It does nothing until it is assigned partitions, or a batch succeeds, again."""
        self._failure, self._working = reason, False

    def succeeded(self) -> None:
        """A batch was processed and its offsets are committed."""
        self._failure = None
        self.moved()

    def still_for_s(self) -> float:
        """How long nothing moved, since the first assignment; 0 before it."""
        return 0.0 if self._moved_at is None else self._clock() - self._moved_at

    def trouble(self) -> str | None:
        """None while it is well."""
        if self._failure is not None:
            return self._failure
        still_for_s = self.still_for_s()
        if still_for_s < self._stalled_after_s:
            return None
        if self._working:
            return f"it has worked on one batch for {still_for_s:.0f} s"
        if self._partitions is None:
            return f"it has held no partitions for {still_for_s:.0f} s"
        asked = "fetches" if self._partitions else "heartbeats"
        return f"Kafka has not answered its {asked} for {still_for_s:.0f} s"


def tell_heartbeats(consumer: AIOKafkaConsumer, told: Callable[[], None]) -> None:
    """Call `told` whenever the group's coordinator takes the started consumer for a member. aiokafka shows to nobody
    when that was last."""
    coordinator = consumer._coordinator
    send = coordinator._do_heartbeat

    async def send_and_tell() -> bool:
        taken: bool = await send()
        if taken:
            told()
        return taken

    coordinator._do_heartbeat = send_and_tell
