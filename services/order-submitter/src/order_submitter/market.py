"""Market clock and quotes, fetched in bulk before a transaction and kept for a moment.

How old a quote is, is what it was when it was fetched, by the market data's own clock, and what has passed since, by
the monotonic one: neither this host's clock nor the database's is compared with the market's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

import structlog

from closeflow.broker import SYMBOLS_PER_CALL, Broker, BrokerUnavailable, FailureCause
from closeflow.clock import monotonic, timeout
from closeflow.domain.close.plan_order import Market
from closeflow.domain.close.pricing import market_hours
from closeflow.domain.frozen import replace
from closeflow.domain.market_data import Instrument, LastTrade, MarketClock, Quote
from closeflow.domain.model import AssetType

log = structlog.get_logger(__name__)

HEDGE_S: Final = 0.3
"""A look waits about so long for whoever is slow; what comes later is there for the next one."""
DEADLINE_S: Final = 2.0
NO_QUOTE_S: Final = 365 * 86_400.0
"""The age of a quote that is not there."""
REMEMBERED_S: Final = 900.0
"""So long a quote is remembered, to see whether the next one is newer."""
MOST_REMEMBERED: Final = 20_000
TRADE_REUSE_S: Final = 5.0
CLOCK_BELIEVED_S: Final = 60.0
"""While the market clock cannot be fetched again."""
INSTRUMENT_REUSE_S: Final = 60.0
INSTRUMENTS_AT_ONCE: Final = 4

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fetched(Generic[T]):
    """Something that was asked for, and when its answer came (monotonic seconds)."""

    what: T
    at: float


@dataclass(slots=True, kw_only=True)
class MarketView:
    """What the market looks like now. What cannot be had is absent; the planner then defers."""

    broker: Broker
    quote_reuse_s: float
    quote_max_age_s: float
    clock_reuse_s: float
    hedge_s: float = HEDGE_S
    deadline_s: float = DEADLINE_S
    _clock: Fetched[MarketClock] | None = None
    _quotes: dict[str, Fetched[Quote]] = field(default_factory=dict)
    _trades: dict[str, Fetched[LastTrade | None]] = field(default_factory=dict)
    _instruments: dict[str, Fetched[Instrument]] = field(default_factory=dict)
    _quoting: dict[AssetType, BulkQuestion[Quote]] = field(init=False)
    _witnesses: dict[AssetType, BulkQuestion[LastTrade]] = field(init=False)
    _slow: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._quoting, self._witnesses = {}, {}
        for one in AssetType:
            self._quoting[one] = BulkQuestion(
                asset_type=one,
                ask=self.broker.quotes,
                found=self._take_quotes,
                hedge_s=self.hedge_s,
                deadline_s=self.deadline_s,
            )
            self._witnesses[one] = BulkQuestion(
                asset_type=one,
                ask=self.broker.last_trades,
                found=self._take_trades,
                hedge_s=self.hedge_s,
                deadline_s=self.deadline_s,
                optional=True,
            )

    async def look(self, *, quoted: Mapping[str, AssetType], traded: frozenset[AssetType]) -> Market:
        """The clock if any of the `traded` types keeps market hours, and the quotes of the `quoted` symbols with their
        last trades. Of a symbol that nobody quotes freshly the broker is asked whether it exists."""
        now = monotonic()
        self._forget(now)
        quotes = _missing(quoted, self._quotes, now - self.quote_reuse_s)
        trades = _missing(quoted, self._trades, now - TRADE_REUSE_S)
        await asyncio.gather(
            self._look_at_clock(now, any(map(market_hours, traded))),
            *(self._quoting[of].look(symbols) for of, symbols in _by_type(quotes).items()),
            *(self._witnesses[of].look(symbols) for of, symbols in _by_type(trades).items()),
        )
        now = monotonic()
        seen = {symbol: quote for symbol in quoted if (quote := self._seen(symbol, now)) is not None}
        doubtful = [one for one in quoted if one not in seen or seen[one].age_s > self.quote_max_age_s]
        await self._look_at_instruments({one: quoted[one] for one in doubtful}, now)
        known = {one: self._instruments[one].what for one in doubtful if one in self._instruments}
        clock = self._clock.what if self._clock is not None else None
        return Market(clock=clock, quotes=seen, instruments=known)

    async def aclose(self) -> None:
        """Give up everything that is being asked."""
        await asyncio.gather(*(one.aclose() for one in self._quoting.values()))
        await asyncio.gather(*(one.aclose() for one in self._witnesses.values()))
        for task in list(self._slow.values()):
            task.cancel()
        await asyncio.gather(*self._slow.values(), return_exceptions=True)

    def _seen(self, symbol: str, now: float) -> Quote | None:
        """The newest quote, as old as it is by now. Without any, the last trade stands for it."""
        kept, trade = self._quotes.get(symbol), self._trades.get(symbol)
        last = trade.what if trade is not None else None
        if kept is not None:
            return replace(kept.what, age_s=kept.what.age_s + now - kept.at, last_trade=last)
        if last is None:
            return None
        return Quote(symbol=symbol, bid=None, ask=None, at=last.at, age_s=NO_QUOTE_S, last_trade=last)

    def _take_quotes(self, found: Mapping[str, Quote], asked: Group) -> None:
        now = monotonic()
        for symbol in asked:
            quote, before = found.get(symbol), self._quotes.get(symbol)
            if quote is None:
                self._quotes.pop(symbol, None)
                continue
            standing = before is not None and (quote.bid, quote.ask) == (before.what.bid, before.what.ask)
            self._quotes[symbol] = Fetched(replace(quote, standing=standing), now)

    def _take_trades(self, found: Mapping[str, LastTrade], asked: Group) -> None:
        now = monotonic()
        self._trades.update({symbol: Fetched(found.get(symbol), now) for symbol in asked})

    def _forget(self, now: float) -> None:
        for kept in (self._quotes, self._trades, self._instruments):
            for symbol in [one for one, fetched in kept.items() if now - fetched.at > REMEMBERED_S]:
                del kept[symbol]
            for symbol in list(kept)[: max(0, len(kept) - MOST_REMEMBERED)]:
                del kept[symbol]

    async def _look_at_clock(self, now: float, wanted: bool) -> None:
        if not wanted or (self._clock is not None and now - self._clock.at < self.clock_reuse_s):
            return
        await self._start("clock", self._fetch_clock())
        if self._clock is not None and monotonic() - self._clock.at > CLOCK_BELIEVED_S:
            self._clock = None

    async def _fetch_clock(self) -> None:
        try:
            self._clock = Fetched(await self.broker.clock(), monotonic())
        except BrokerUnavailable as error:
            log.warning("market_clock_unavailable", reason=error.reason)

    async def _look_at_instruments(self, doubtful: Mapping[str, AssetType], now: float) -> None:
        missing = _missing(doubtful, self._instruments, now - INSTRUMENT_REUSE_S)
        some = list(missing.items())[:INSTRUMENTS_AT_ONCE]
        await asyncio.gather(*(self._start(f"instrument {one}", self._fetch_instrument(one, of)) for one, of in some))

    async def _fetch_instrument(self, symbol: str, asset_type: AssetType) -> None:
        try:
            found = await self.broker.instrument(asset_type, symbol)
        except BrokerUnavailable as error:
            log.warning("instrument_not_looked_up", symbol=symbol, reason=error.reason)
            found = Instrument.ACTIVE  # Nothing says otherwise; asked again later.
        self._instruments[symbol] = Fetched(found, monotonic())

    async def _start(self, name: str, call: Coroutine[None, None, None]) -> None:
        """Wait a moment for a call, and let it go on alone when that is not enough."""
        if name in self._slow:
            call.close()
            return
        task = self._slow[name] = asyncio.create_task(call)
        task.add_done_callback(lambda _: self._slow.pop(name))
        await asyncio.wait([task], timeout=self.hedge_s)


def _missing(wanted: Mapping[str, AssetType], kept: Mapping[str, Fetched[T]], since: float) -> dict[str, AssetType]:
    return {one: of for one, of in wanted.items() if one not in kept or kept[one].at < since}


def _by_type(symbols: Mapping[str, AssetType]) -> dict[AssetType, list[str]]:
    return {of: [one for one in symbols if symbols[one] is of] for of in set(symbols.values())}


Group = tuple[str, ...]
WAYS: Final = 8
"""Into so many parts a spoiled call is divided: one of 64 symbols is found in the third round."""
MOST_CALLS: Final = 40
"""Of one look. What is not asked about then is asked about by the next."""
LONGEST_PAUSE_S: Final = 600.0
FEED_DOWN_S: Final = 5.0
RECENT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Apart:
    """A symbol that spoiled a call about it alone: it is asked about alone from now on, after pauses that double."""

    pause_s: float
    until: float


@dataclass(slots=True, kw_only=True)
class BulkQuestion(Generic[T]):
    """One question about symbols of one asset type.

    A call that fails for another reason than the caller is divided; so is a slow one (`hedge_s`, or four times what the
    feed takes at other times), which goes on meanwhile. When every part fails like the whole, it is the feed and not a
    symbol: nothing is divided for a while, and nothing held against a symbol.
    """

    asset_type: AssetType
    ask: Callable[[AssetType, Sequence[str]], Awaitable[Mapping[str, T]]]
    found: Callable[[Mapping[str, T], Group], None]
    """Told each answer, with what was asked about, as it comes; late ones too."""
    hedge_s: float
    deadline_s: float
    first_pause_s: float = 30.0
    optional: bool = False
    """A broker may not have this at all: refusals alone say that, and not what is wrong with a symbol."""
    _usual_s: float = 0.0
    _answered_at: float = float("-inf")
    _down_until: float = float("-inf")
    _apart: dict[str, Apart] = field(default_factory=dict)
    _running: dict[asyncio.Task[FailureCause | None], Group] = field(default_factory=dict)

    async def look(self, symbols: Iterable[str]) -> None:
        """Returns when nothing is waited for any more but what is slow."""
        now = monotonic()
        being_asked = {group[0] for group in self._running.values() if len(group) == 1}
        wanted = sorted(set(symbols) - being_asked)
        groups = _chunks([one for one in wanted if one not in self._apart])
        groups += [(one,) for one in wanted if one in self._apart and self._apart[one].until <= now]
        calls, divided, sound = 0, False, False
        while groups:
            groups = groups[: MOST_CALLS - calls]
            calls += len(groups)
            causes, slow = await self._round(groups)
            sound = sound or any(cause in self._sound for cause in causes.values())
            spoiled = [group for group, cause in causes.items() if cause not in (None, FailureCause.CALLER)]
            if divided and 2 * len(slow) > len(groups):
                spoiled = [group for group in spoiled if group not in slow]  # The feed is slow, and not for a symbol.
            if divided and not sound:
                self._down_until = monotonic() + (RECENT_S if self.optional else FEED_DOWN_S)
                log.warning("market_data_down", asset_type=self.asset_type, symbols=len(wanted))
            if monotonic() < self._down_until:
                return
            groups, divided = [part for group in spoiled for part in _parts(group)], True

    @property
    def _sound(self) -> tuple[FailureCause | None, ...]:
        """What shows that the feed is there; so does a refusal, if it is there at all."""
        return (None,) if self.optional else (None, FailureCause.QUESTION)

    async def aclose(self) -> None:
        """Give up the questions that are under way."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _round(self, groups: Sequence[Group]) -> tuple[dict[Group, FailureCause | None], set[Group]]:
        """Why there is no answer about each group, or None; and which are slow, of which that is unknown."""
        tasks = {asyncio.create_task(self._call(group)): group for group in groups}
        self._running |= tasks
        for task in tasks:
            task.add_done_callback(self._running.pop)
        _, slow = await asyncio.wait(tasks, timeout=max(self.hedge_s, 4 * self._usual_s))
        causes = {group: FailureCause.UNKNOWN if one in slow else one.result() for one, group in tasks.items()}
        return causes, {tasks[one] for one in slow}

    async def _call(self, group: Group) -> FailureCause | None:
        began = monotonic()
        try:
            async with timeout(self.deadline_s):
                answer = await self.ask(self.asset_type, group)
        except BrokerUnavailable as error:
            cause, reason = error.about, error.reason
        except TimeoutError:
            cause, reason = FailureCause.UNKNOWN, f"no answer within {self.deadline_s:g} s"
        else:
            took = monotonic() - began
            self._usual_s = max(took, 0.9 * self._usual_s)
            self._answered_at = began + took
            for symbol in group:
                self._apart.pop(symbol, None)
            self.found(answer, group)
            return None
        log.warning("market_data_not_answered", asset_type=self.asset_type, symbols=group[:5], reason=reason)
        recent = began - self._answered_at < RECENT_S
        if len(group) == 1 and cause is not FailureCause.CALLER and (recent or cause in self._sound):
            self._set_apart(group[0])
        return cause

    def _set_apart(self, symbol: str) -> None:
        known = self._apart.get(symbol)
        pause_s = self.first_pause_s if known is None else min(LONGEST_PAUSE_S, 2 * known.pause_s)
        self._apart[symbol] = Apart(pause_s, monotonic() + pause_s)


def _chunks(symbols: Sequence[str]) -> list[Group]:
    return [tuple(symbols[at : at + SYMBOLS_PER_CALL]) for at in range(0, len(symbols), SYMBOLS_PER_CALL)]


def _parts(group: Group) -> list[Group]:
    """Nothing for a group of one: it is known."""
    size = -(-len(group) // WAYS)
    return [group[at : at + size] for at in range(0, len(group), size)] if len(group) > 1 else []
