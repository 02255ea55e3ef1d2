"""Wait for close requests to change: one poller for all who wait, which asks for all of their requests at once.

PostgreSQL's LISTEN would need a connection that no pooler may stand before, and a NOTIFY in every transaction of the
services. A query of at most a thousand rows by primary key, ten times a second while somebody waits, costs less.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final
from uuid import UUID

import structlog

from close_api.errors import Code, Problem
from closeflow.clock import monotonic, timeout
from closeflow.domain.text import decimal_text, time_text
from closeflow.storage.close_requests import RequestState
from closeflow.telemetry.metrics import gauge

POLL_EVERY_S: Final = 0.1
POLL_AT_LEAST_EVERY_S: Final = 0.5
_SLOWER: Final = 1.1
"""By how much a pause is longer after a poll that found nothing new: 16 of them make it the longest."""
_DIGEST_BYTES: Final = 12

WATCHERS: Final = gauge("close_api_watchers")

log = structlog.get_logger(__name__)


def event_id(state: RequestState) -> str:
    """Names what callers see of a state: equal states have equal ids, whichever process shows them."""
    request, position = state
    times = (request.submitted_at, request.completed_at)
    shown = (
        request.id.hex,
        position.status,
        request.status,
        decimal_text(request.target_quantity),
        decimal_text(request.filled_quantity),
        str(request.retry_count),
        *("" if one is None else time_text(one) for one in times),
        request.reason or "",
    )
    return blake2b("\n".join(shown).encode(), digest_size=_DIGEST_BYTES).hexdigest()


@dataclass(slots=True, eq=False)
class Watch:
    """One who waits; `seen` is the id of the state that it knows."""

    seen: str
    _newest: RequestState | None = None
    _gone: bool = False
    _told: asyncio.Event = field(default_factory=asyncio.Event)

    async def changed(self, *, within_s: float) -> RequestState | None:
        """The newest state, as soon as it is another one than was seen; None when there was none in time.

        States in between may be skipped, an end never. Raises Problem `not_found` for a request that is no more.
        """
        try:
            async with timeout(within_s):
                await self._told.wait()
        except TimeoutError:
            return None
        if self._newest is None:
            raise Problem(Code.NOT_FOUND)
        found, self._newest = self._newest, None
        self._told.clear()
        self.seen = event_id(found)
        return found

    def tell(self, state: RequestState | None) -> bool:
        """The state that was read, None for none; whether it is news."""
        if self._newest is not None and not self._newest[0].unfinished:
            return False  # An end that is not taken yet: what comes after it is for who asks again.
        if state is None:
            self._told.set()
            return True
        if event_id(state) == self.seen:
            self._newest = None
            self._told.clear()
            return False
        news = self._newest is None or event_id(self._newest) != event_id(state)
        self._newest = state
        self._told.set()
        return news


class Watchers:
    """At most `at_most` who wait; a tenth of the places is left to others than the subject who has the rest.

    `read` gives the states of many requests, without those that are not there; while somebody waits it is called every
    `every_s` seconds, and less often, up to `at_least_every_s`, when nothing moves.
    """

    def __init__(
        self,
        read: Callable[[Collection[UUID]], Awaitable[Mapping[UUID, RequestState]]],
        *,
        at_most: int,
        every_s: float = POLL_EVERY_S,
        at_least_every_s: float = POLL_AT_LEAST_EVERY_S,
    ) -> None:
        self._read = read
        self._at_most = at_most
        self._every_s = every_s
        self._at_least_every_s = at_least_every_s
        self._pause_s = every_s
        self._due = 0.0
        self._watches: dict[UUID, set[Watch]] = {}
        self._waiting: Counter[str] = Counter()
        self._poller: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    def refuse_if_full(self, subject: str) -> None:
        """Raises Problem `overloaded` when the subject may not wait once more now."""
        of_one = self._at_most - self._at_most // 10
        if self._waiting.total() >= self._at_most or self._waiting[subject] >= of_one:
            raise Problem(Code.OVERLOADED)

    @contextmanager
    def watching(self, request_id: UUID, *, subject: str, seen: str) -> Iterator[Watch]:
        """Wait for the request inside the block. Raises Problem `overloaded`."""
        self.refuse_if_full(subject)
        watch = Watch(seen)
        self._watches.setdefault(request_id, set()).add(watch)
        self._waiting[subject] += 1
        WATCHERS.inc()
        self._pause_s = self._every_s
        soon = monotonic() + self._every_s
        if self._poller is None:
            self._due = soon
            self._poller = asyncio.create_task(self._poll())
        elif soon < self._due:
            self._due = soon
            self._wake.set()
        try:
            yield watch
        finally:
            self._leave(request_id, subject, watch)

    def _leave(self, request_id: UUID, subject: str, watch: Watch) -> None:
        self._waiting[subject] -= 1
        self._waiting += Counter()  # Without those who wait no more.
        WATCHERS.dec()
        others = self._watches[request_id]
        others.discard(watch)
        if not others:
            del self._watches[request_id]
            self._wake.set()

    async def _poll(self) -> None:
        """Ends by itself when nobody waits: never inside a query, which would cost its connection."""
        while self._watches:
            left = self._due - monotonic()
            if left <= 0:
                await self._poll_once({one: list(watches) for one, watches in self._watches.items()})
                self._due = monotonic() + self._pause_s
                continue
            self._wake.clear()
            with suppress(TimeoutError):
                async with timeout(left):
                    await self._wake.wait()
        self._poller = None

    async def _poll_once(self, asked: Mapping[UUID, Sequence[Watch]]) -> None:
        """Only those are told who waited before it was asked: who comes later may have seen a newer state."""
        try:
            states = await self._read(asked)
        except Exception as error:
            log.warning("watched_states_not_read", requests=len(asked), error=str(error))
            self._pause_s = self._at_least_every_s
            return
        news = sum(watch.tell(states.get(one)) for one, watches in asked.items() for watch in watches)
        self._pause_s = self._every_s if news else min(self._pause_s * _SLOWER, self._at_least_every_s)
