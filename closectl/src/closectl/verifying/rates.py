"""Whether an account's submits fit into windows of a minute, of which only the submits are known.

A window begins with the submit that is the first to commit after the one before it is over. That need not be the
earliest: rows from before migration 0013 carry the time before the wait for the lock, so one of them counts for its
window or for the one before. So every grouping that such waits can explain is allowed.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Final

from closeflow.domain.account_limits import WINDOW

WAITED: Final = timedelta(seconds=1)
"""How long a submit waits for the lock at most."""


def rate_limit_breaches(
    submits: Iterable[datetime], most_between: Callable[[datetime, datetime], int]
) -> Iterator[tuple[datetime, int]]:
    """Where no windows explain the submits: the earliest submit of a window that has too many, and how many it may have
    (`most_between` its first and its last submit)."""
    times = sorted(submits)
    index, reached = 0, 0
    may_begin = bytearray(len(times) + 1)
    """Marked, and none beyond `reached`: where a window may begin, behind the last submit of one that is allowed."""
    may_begin[0] = True
    while index < len(times):
        if may_begin[index]:
            shortest, longest = _reach(times, index)
            most = most_between(times[index], times[longest - 1])
            farthest = min(longest, index + most)
            if shortest <= farthest:
                may_begin[shortest : farthest + 1] = b"\1" * (farthest + 1 - shortest)
                reached = max(reached, farthest)
            elif reached <= index:
                yield times[index], most
                may_begin[longest] = True
                reached = longest
        index += 1


def _reach(times: list[datetime], index: int) -> tuple[int, int]:
    """The least and the greatest index that can follow the window of which this is the earliest submit."""
    began = times[index]
    latest_start = times[bisect_right(times, began + WAITED) - 1]
    shortest = bisect_left(times, began + WINDOW - WAITED)
    longest = bisect_left(times, latest_start + WINDOW)
    return max(shortest, index + 1), max(longest, index + 1)
