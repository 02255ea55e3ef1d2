"""The application of the tests: it decides as it is told, and its database is an address where nothing listens."""

from __future__ import annotations

import asyncio

from close_api.auth.caller import Identity
from close_api.auth.rate_limit import RateLimits
from close_api.auth.tokens import Disabled
from close_api.batching import Batches
from close_api.doors import Doors, make_doors
from closeflow.domain.close.accept import CloseCommand, Decision
from closeflow.storage.close_requests import Engine


def doors_of(
    engine: Engine,
    batches: Batches[CloseCommand, Decision],
    *,
    identity: Identity | None = None,
    rates: RateLimits | None = None,
) -> Doors:
    """What both doors share, with everybody let in who is not turned away by `identity`."""
    return make_doors(
        engine,
        batches,
        identity=identity or Disabled(),
        rates=rates or RateLimits(limit=1_000_000, window_s=1),
        slot="closeflow",
        deadline_s=2.0,
        stopping=asyncio.Event(),
    )
