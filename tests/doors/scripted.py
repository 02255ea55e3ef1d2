"""The REST application in process, whose closes are decided as a test says and whose database is not there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

import httpx

from close_api.auth.caller import Identity
from close_api.auth.rate_limit import RateLimits
from close_api.auth.tokens import Disabled
from close_api.batching import Batches
from close_api.doors import make_doors
from close_api.rest.app import build_app
from closeflow.domain.close.accept import Accepted, CloseCommand, Decision, accept_close
from closeflow.domain.model import AssetType, Book, Position, PositionStatus
from closeflow.domain.trading_controls import TradingState
from closeflow.storage.core.engine import make_engine

NOW: Final = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
BOOK: Final = Book(
    position=Position(
        id=7,
        account_id="ACC",
        symbol="AAPL260619C00200000",
        asset_type=AssetType.OPTION,
        multiplier=Decimal(100),
        currency="USD",
        opening_quantity=Decimal(10),
        quantity=Decimal(10),
        status=PositionStatus.OPEN,
        version=1,
    ),
    base_quantity=Decimal(10),
    ledger_quantity=Decimal(10),
)


def accept(command: CloseCommand) -> Accepted:
    """What becomes of a good close of the book."""
    accepted = accept_close(BOOK, command, None, trading=TradingState.ACTIVE, now=NOW)
    assert isinstance(accepted, Accepted)
    return accepted


@dataclass(frozen=True, slots=True)
class Deciding:
    """Answers every close with `outcome`, or as the domain decides about BOOK."""

    outcome: Decision | Exception | None = None

    async def __call__(self, commands: Sequence[CloseCommand]) -> list[Decision | Exception]:
        if self.outcome is not None:
            return [self.outcome] * len(commands)
        return [accept_close(BOOK, one, None, trading=TradingState.ACTIVE, now=NOW) for one in commands]


@asynccontextmanager
async def calling(
    outcome: Decision | Exception | None = None, *, identity: Identity | None = None, rates: RateLimits | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of it."""
    closes: Batches[CloseCommand, Decision] = Batches(work=Deciding(outcome), capacity=10, size=64, in_flight=1)
    stop = asyncio.Event()
    doors = make_doors(
        make_engine("postgresql://nobody@127.0.0.1:1/none", pool_size=1, application_name="test"),
        closes,
        identity=identity or Disabled(),
        rates=rates or RateLimits(limit=1_000_000, window_s=1),
        slot="none",
        deadline_s=2.0,
        stopping=stop,
    )
    task = asyncio.create_task(closes.run(stop))
    transport = httpx.ASGITransport(build_app(doors), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        yield client
    stop.set()
    await task
