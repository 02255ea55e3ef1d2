"""Market clock and quotes, fetched in bulk before a transaction and kept for a moment."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import structlog

from closeflow.broker import Broker, BrokerUnavailable
from closeflow.domain.answers import MarketClock, Quote
from closeflow.domain.model import AssetType
from closeflow.domain.plan import Market
from closeflow.domain.pricing import market_hours

log = structlog.get_logger(__name__)


class MarketView:
    """What the market looks like now. What cannot be had is absent; the planner then defers."""

    def __init__(self, broker: Broker, *, quote_reuse_s: float, clock_reuse_s: float) -> None:
        self._broker = broker
        self._quote_reuse_s = quote_reuse_s
        self._clock_reuse_s = clock_reuse_s
        self._clock: tuple[float, MarketClock] | None = None
        self._quotes: dict[str, tuple[float, Quote]] = {}

    async def look(self, *, quoted: Mapping[str, AssetType], traded: frozenset[AssetType]) -> Market:
        """The clock if any of the `traded` types keeps market hours, and the quotes of the `quoted` symbols."""
        now = time.monotonic()
        self._quotes = {symbol: kept for symbol, kept in self._quotes.items() if now - kept[0] < self._quote_reuse_s}
        missing = {symbol: asset_type for symbol, asset_type in quoted.items() if symbol not in self._quotes}
        clock, _ = await asyncio.gather(
            self._market_clock(now, any(map(market_hours, traded))), self._fetch_quotes(missing)
        )
        quotes = {symbol: self._quotes[symbol][1] for symbol in quoted if symbol in self._quotes}
        return Market(clock=clock, quotes=quotes)

    async def _market_clock(self, now: float, wanted: bool) -> MarketClock | None:
        if not wanted:
            return None
        if self._clock is not None and now - self._clock[0] < self._clock_reuse_s:
            return self._clock[1]
        try:
            clock = await self._broker.clock()
        except BrokerUnavailable as error:
            log.warning("market_clock_unavailable", reason=error.reason)
            return None
        self._clock = (now, clock)
        return clock

    async def _fetch_quotes(self, missing: Mapping[str, AssetType]) -> None:
        if not missing:
            return
        fetched_at = time.monotonic()
        found = await self._broker.quotes(missing)
        self._quotes.update({symbol: (fetched_at, quote) for symbol, quote in found.items()})
        if len(found) < len(missing):
            log.warning("quotes_missing", symbols=sorted(missing.keys() - found.keys()))
