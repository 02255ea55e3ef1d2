"""Whose items come next: everybody has a queue of their own, and they take turns.

One who asks for thousands is to hold up nobody else. Of a batch each gets an even share; the last batch that may run is
never of somebody who is in a running one; and where there is no room left it is the longest queue that gives way. While
somebody else asks as well, what one has in a batch is bounded, and who asks for more than that waits a moment for a
batch of those who ask for less, because all of them are decided by one thread.

Nothing here waits or looks at a clock; times are seconds of one monotonic clock.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

Item = TypeVar("Item")

SHARED_S: Final = 1.0
"""For so long after anybody's last item, batches are shared with them."""
SHARES: Final = 2
"""Of a shared batch, nobody gets more than one of so many parts."""
GIVES_WAY_S: Final = 0.025
"""So long who asks for much waits for a running batch of those who ask for little."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch(Generic[Item]):
    """What is worked on together. It is light where nobody has as much in it as one may have."""

    items: list[Item]
    whose: frozenset[str]
    is_light: bool


@dataclass(slots=True)
class Turns(Generic[Item]):
    """`capacity` is how many items may wait, `size` how many make a batch and `in_flight` how many batches run at once.
    Items with one `key` are worked on in the order in which they came: together, or one batch after the other."""

    capacity: int
    size: int
    in_flight: int
    key: Callable[[Item], Hashable]
    waiting: int = field(init=False, default=0)
    again_at: float | None = field(init=False, default=None)
    """Where `take` gave None: when it may give a batch although nothing was added or ended."""
    _queues: OrderedDict[str, deque[Item]] = field(init=False, default_factory=OrderedDict)
    _running: list[Batch[Item]] = field(init=False, default_factory=list)
    _busy: set[Hashable] = field(init=False, default_factory=set)
    """The keys of running batches."""
    _seen_at: OrderedDict[str, float] = field(init=False, default_factory=OrderedDict)
    _held_since: dict[str, float] = field(init=False, default_factory=dict)

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not self.waiting and not self._running

    def add(self, whose: str, item: Item, *, now: float) -> Item | None:
        """Let an item wait. What is returned has to give way: it, the newest of the longest queue, or nothing."""
        self._seen_at[whose] = now
        self._seen_at.move_to_end(whose)
        given_up: Item | None = None
        if self.waiting >= self.capacity:
            longest = max(self._queues.values(), key=len)
            if len(self._queues.get(whose, ())) + 1 >= len(longest):
                return item
            given_up = longest.pop()
            self.waiting -= 1
        self._queues.setdefault(whose, deque()).append(item)
        self.waiting += 1
        return given_up

    def take(self, *, now: float) -> Batch[Item] | None:
        """The next batch, which runs from now on until it is `ended`; None where none may begin now."""
        self.again_at = None
        if len(self._running) >= self.in_flight:
            return None
        share = max(1, self.size // SHARES) if self._is_shared(now) else self.size
        free = self._free(share, now)
        if not free:
            return None
        items: list[Item] = []
        taken: Counter[str] = Counter()
        while free and len(items) < self.size:
            whose, queue = free.popitem(last=False)
            items.append(queue.popleft())
            taken[whose] += 1
            if not queue:
                del self._queues[whose]
                continue
            self._queues.move_to_end(whose)
            if taken[whose] < share and self.key(queue[0]) not in self._busy:
                free[whose] = queue
        for whose in taken:
            self._held_since.pop(whose, None)
        batch = Batch(items, frozenset(taken), is_light=max(taken.values()) < share)
        self._running.append(batch)
        self._busy.update(map(self.key, items))
        self.waiting -= len(items)
        return batch

    def ended(self, batch: Batch[Item]) -> None:
        """The batch does not run any more."""
        self._running.remove(batch)
        self._busy.difference_update(map(self.key, batch.items))

    def _is_shared(self, now: float) -> bool:
        while self._seen_at and next(iter(self._seen_at.values())) < now - SHARED_S:
            self._seen_at.popitem(last=False)
        return len(self._seen_at) > 1

    def _free(self, share: int, now: float) -> OrderedDict[str, deque[Item]]:
        """The queues that a batch may begin with now, in turn."""
        may_run = OrderedDict(one for one in self._queues.items() if self._may_run(*one, share))
        if share == self.size:
            return may_run
        asks_for_much = [whose for whose, queue in may_run.items() if len(queue) >= share]
        if len(asks_for_much) < len(may_run):
            patience_s = 2 * GIVES_WAY_S  # Rather a batch of its own, which is the next to begin.
        else:
            patience_s = GIVES_WAY_S if any(one.is_light for one in self._running) else 0.0
        for whose in asks_for_much:
            may_begin_at = self._held_since.setdefault(whose, now) + patience_s
            if may_begin_at > now:
                del may_run[whose]
                self.again_at = may_begin_at if self.again_at is None else min(self.again_at, may_begin_at)
        return may_run

    def _may_run(self, whose: str, queue: deque[Item], share: int) -> bool:
        if self.key(queue[0]) in self._busy:
            return False
        running = sum(whose in one.whose for one in self._running)
        # Another one of the same only when it is full: what comes one by one is cheaper together than in halves.
        alone = share == self.size
        return not running or (alone and running < self.in_flight - 1 and len(queue) >= self.size)
