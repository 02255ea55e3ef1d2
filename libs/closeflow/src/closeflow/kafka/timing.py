"""How long the consume loop waits for what, argued together because each depends on the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerTiming:
    """Every field has its reason; the defaults are for production, tests shorten them."""

    poll_ms: int = 500
    """A poll waits this long for records. Every poll, empty ones too, tells aiokafka that we live: a member without
    partitions that does not poll can never rejoin (aio-libs/aiokafka#1187)."""

    session_ms: int = 6_000
    """After a crash the partitions are somebody else's this much later; it is the least that Kafka's brokers allow."""

    heartbeat_ms: int = 2_000
    """A third of the session, so that two lost heartbeats cost nothing. It also bounds how late we see a rebalance."""

    batch_deadline_s: float = 30.0
    """A batch that takes longer stops the process: something hangs that a restart may free."""

    rebalance_ms: int = 35_000
    """The group waits this long for a member that finishes its batch: a little longer than a batch may take, and less
    than aiokafka's request time-out of 40 s, which would cut off a waiting join."""

    max_poll_interval_ms: int = 300_000
    """Ten batches, so that a slow batch stops this process, and never makes aiokafka leave the group and read the batch
    again for ever (aio-libs/aiokafka#848)."""

    commit_deadline_s: float = 20.0
    """aiokafka repeats a commit without end while Kafka is away; the next batch's commit covers this one's."""

    stalled_s: float = 60.0
    """A consumer that did not move for so long starts afresh, from the bootstrap servers: aiokafka goes on asking the
    addresses that it knows, although Kafka may have come back at others."""

    restart_pause_s: float = 0.5
    """Before it starts again after an error, or gives a batch again; doubled with each that follows, up to the cap."""

    restart_pause_cap_s: float = 10.0


PRODUCTION: Final = ConsumerTiming()


@asynccontextmanager
async def deadline(seconds: float, *, what: str) -> AsyncIterator[None]:
    """As `asyncio.timeout`, whose error says nothing."""
    try:
        async with asyncio.timeout(seconds) as limit:
            yield
    except Exception as error:
        if not limit.expired():
            raise
        raise TimeoutError(f"{what} took longer than {seconds:g} s") from error
