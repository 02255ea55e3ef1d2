"""What both doors share: who may come in, what can be done, and whether it can be done now."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from close_api.auth.caller import Identity
from close_api.auth.rate_limit import RateLimits
from close_api.batching import Batches
from close_api.readiness import Readiness, look
from close_api.use_cases.cancelling import Cancelling
from close_api.use_cases.closing import Closing
from close_api.use_cases.operating import Operating
from close_api.use_cases.overview import Overview
from close_api.use_cases.reading import Reading
from closeflow.domain.close.accept import CloseCommand, Decision
from closeflow.storage.close_requests import Engine


@dataclass(frozen=True, slots=True)
class Doors:
    """`ready` asks the database; `stopping` is set when the service is asked to stop; `deadline_s` bounds the reading
    of a call, and again the wait for its answer."""

    identity: Identity
    rates: RateLimits
    closing: Closing
    cancelling: Cancelling
    reading: Reading
    overview: Overview
    operating: Operating
    ready: Callable[[], Awaitable[Readiness]]
    stopping: asyncio.Event
    deadline_s: float


def make_doors(
    engine: Engine,
    closes: Batches[CloseCommand, Decision],
    *,
    identity: Identity,
    rates: RateLimits,
    slot: str,
    deadline_s: float,
    stopping: asyncio.Event,
    operator_engine: Engine | None = None,
    keyless: Callable[[], bool] = bool,
) -> Doors:
    """The use cases over one pool; those of operators over their own, without which they have none. `keyless` says
    whether no token can be checked now."""

    async def ready() -> Readiness:
        if stopping.is_set():
            return Readiness("unready", ("the service is stopping",))
        state = await look(engine, slot=slot)
        if state.status == "unready" or not keyless():
            return state
        return Readiness("degraded", (*state.reasons, "there are no keys to check tokens with; see key_set in the log"))

    return Doors(
        identity=identity,
        rates=rates,
        closing=Closing(closes, deadline_s),
        cancelling=Cancelling(engine, deadline_s),
        reading=Reading(engine, deadline_s),
        overview=Overview(engine, slot, deadline_s),
        operating=Operating(operator_engine, deadline_s),
        ready=ready,
        stopping=stopping,
        deadline_s=deadline_s,
    )
