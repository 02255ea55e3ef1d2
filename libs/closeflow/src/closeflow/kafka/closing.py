"""How a client of Kafka is closed, which may be away just then."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

import structlog

log = structlog.get_logger(__name__)

CLOSE_WITHIN_S: Final = 10.0


async def close(closing: Coroutine[Any, Any, object], *, what: str, within_s: float = CLOSE_WITHIN_S) -> None:
    """Await it for so long. In a task of its own, because where Kafka is away aiokafka lets the cancellation of its own
    tasks out: it would pass for one of ours, and hide the error that is under way. Its failure is a warning: what was
    sent and not acknowledged has its own error, and a group notices that its member is gone."""
    task = asyncio.create_task(closing)
    done, _ = await asyncio.wait({task}, timeout=within_s)
    if not done:
        task.cancel()
        log.warning("kafka_client_close_timed_out", client=what)
    elif task.cancelled() or task.exception() is not None:
        log.warning("kafka_client_close_failed", client=what)
