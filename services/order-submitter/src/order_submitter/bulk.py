"""Ask about many symbols in few calls, so that one that spoils a call does not spoil it for the others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

import structlog

from closeflow.broker import SYMBOLS_PER_CALL, BrokerUnavailable, FailureCause
from closeflow.domain.model import AssetType

log = structlog.get_logger(__name__)

T = TypeVar("T")
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
        now = time.monotonic()
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
                self._down_until = time.monotonic() + (RECENT_S if self.optional else FEED_DOWN_S)
                log.warning("market_data_down", asset_type=self.asset_type, symbols=len(wanted))
            if time.monotonic() < self._down_until:
                return
            groups, divided = [part for group in spoiled for part in _parts(group)], True

    @property
    def _sound(self) -> tuple[FailureCause | None, ...]:
        """What shows that the feed is there; so does a refusal, if it is there at all."""
        return (None,) if self.optional else (None, FailureCause.QUESTION)

    async def aclose(self) -> None:
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
        began = time.monotonic()
        try:
            async with asyncio.timeout(self.deadline_s):
                answer = await self.ask(self.asset_type, group)
        except BrokerUnavailable as error:
            cause, reason = error.about, error.reason
        except TimeoutError:
            cause, reason = FailureCause.UNKNOWN, f"no answer within {self.deadline_s:g} s"
        else:
            took = time.monotonic() - began
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
        self._apart[symbol] = Apart(pause_s, time.monotonic() + pause_s)


def _chunks(symbols: Sequence[str]) -> list[Group]:
    return [tuple(symbols[at : at + SYMBOLS_PER_CALL]) for at in range(0, len(symbols), SYMBOLS_PER_CALL)]


def _parts(group: Group) -> list[Group]:
    """Nothing for a group of one: it is known."""
    size = -(-len(group) // WAYS)
    return [group[at : at + size] for at in range(0, len(group), size)] if len(group) > 1 else []
