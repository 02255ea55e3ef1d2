"""The clock of the services: they take time and wait by it, so that whoever runs one can put another in its place.

`monotonic` is for what is waited for. `utc_now` is the host's opinion, for show and for ids: times that are compared
with each other are the database's (ADR 0019).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Seconds, as floats; tasks inherit the clock of the task that made them."""

    def monotonic(self) -> float:
        """Never goes back, and means nothing to another process."""

    def utc_now(self) -> datetime:
        """With a time zone, UTC. May jump."""

    async def sleep(self, seconds: float) -> None:
        """Returns after so long; others run meanwhile, also when it is 0."""

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        """Raises TimeoutError out of its block after so long; None: never."""


class HostClock:
    """The one of this machine, and of its event loop."""

    def monotonic(self) -> float:
        """As `time.monotonic`."""
        return time.monotonic()

    def utc_now(self) -> datetime:
        """As `datetime.now`."""
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        """As `asyncio.sleep`."""
        await asyncio.sleep(seconds)

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        """As `asyncio.timeout`."""
        return asyncio.timeout(seconds)


_CLOCK: ContextVar[Clock] = ContextVar("clock", default=HostClock())  # noqa: B039 (it holds no state)


def monotonic() -> float:
    """See `Clock.monotonic`."""
    return _CLOCK.get().monotonic()


def utc_now() -> datetime:
    """See `Clock.utc_now`."""
    return _CLOCK.get().utc_now()


async def sleep(seconds: float) -> None:
    """See `Clock.sleep`."""
    await _CLOCK.get().sleep(seconds)


def timeout(seconds: float | None) -> AbstractAsyncContextManager[object]:
    """See `Clock.timeout`."""
    return _CLOCK.get().timeout(seconds)


@contextmanager
def driven_by(clock: Clock) -> Iterator[None]:
    """What is called here, and every task that is made here, goes by this clock."""
    token = _CLOCK.set(clock)
    try:
        yield
    finally:
        _CLOCK.reset(token)
