"""What one viewer is shown of the read model: pure, made anew for every look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from heapq import nsmallest
from statistics import quantiles
from typing import Final
from uuid import UUID

from close_board.asked import WAITS_ASKED, Wait
from close_board.read_model import Close, ReadModel, Unreadable
from closeflow.domain.enums import RequestStatus

ROWS_SHOWN: Final = 100
"""Of stuck closes, the oldest; how many there are is said."""
LATENCY_WINDOW: Final = timedelta(hours=1)
Sees = Callable[[str | None], bool]


class Stage(StrEnum):
    """How far a close is, as far as the topics tell; each close is at one."""

    ACCEPTED = "accepted"
    """Nothing asks for an order of it yet."""
    ASKED = "order asked for"
    """Its attempt is published; the broker has not named an order for it."""
    AT_BROKER = "at the broker"
    """The broker knows its order, and nothing is filled."""
    FILLING = "partly filled"
    RETRYABLE = "waits for a retry"
    COMPLETED = "completed"
    FAILED = "failed"


OPEN_STAGES: Final = (Stage.ACCEPTED, Stage.ASKED, Stage.AT_BROKER, Stage.FILLING, Stage.RETRYABLE)


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds from accepted to completed, of those that were completed in the last hour."""

    count: int
    median_s: float
    p95_s: float


@dataclass(frozen=True, slots=True)
class Board:
    """What the page shows of the topics alone. `still` are the oldest closes to which nothing happens, of as many as
    `still_total`; `funnel` has every stage."""

    funnel: tuple[tuple[Stage, int], ...]
    open_total: int
    still: tuple[Close, ...]
    still_total: int
    latency: Latency | None
    unreadable_total: int
    unreadable: tuple[Unreadable, ...]
    doubted: frozenset[int]
    """Positions of which a record could not be read, and no version has been read since."""


@dataclass(frozen=True, slots=True)
class Row:
    """A stuck close. `wait` is what close-api says that it waits for, None where it was not told; `published` whether
    the topics know of it."""

    close: Close
    wait: Wait | None
    published: bool


@dataclass(frozen=True, slots=True)
class Stuck:
    """The oldest stuck closes, and how many there are."""

    rows: tuple[Row, ...]
    total: int


def stage_of(close: Close) -> Stage:
    """By what each topic said of it."""
    match close.status:
        case RequestStatus.COMPLETED:
            return Stage.COMPLETED
        case RequestStatus.FAILED:
            return Stage.FAILED
        case RequestStatus.RETRYABLE:
            return Stage.RETRYABLE
    if close.filled > 0:
        return Stage.FILLING
    heard = close.heard
    if heard is not None and heard.attempt == close.attempt and heard.acknowledged:
        return Stage.AT_BROKER
    return Stage.ASKED if close.asked is not None else Stage.ACCEPTED


def is_still(close: Close, *, now: datetime, after: timedelta) -> bool:
    """Whether nothing has happened to it for so long. One that failed and left its position held is, until somebody
    decides what becomes of it."""
    return not close.unfinished or now - close.moved_at >= after


def look(model: ReadModel, sees: Sees, *, now: datetime, still_after: timedelta) -> Board:
    """What whoever sees these accounts is shown at this moment. Records that cannot be read are of no account that is
    known, and so are told to those alone who see every account."""
    seen = [close for close in model.open.values() if sees(close.account)]
    left = [close for close in model.left.values() if sees(close.account)]
    still = [close for close in (*seen, *left) if is_still(close, now=now, after=still_after)]
    everything = sees(None)
    return Board(
        funnel=_funnel(model, seen, sees),
        open_total=len(seen),
        still=tuple(nsmallest(ROWS_SHOWN + WAITS_ASKED, still, key=_by_age)),
        still_total=len(still),
        latency=_latency(model, sees, since=now - LATENCY_WINDOW),
        unreadable_total=model.unreadable.total() if everything else 0,
        unreadable=tuple(reversed(model.unread)) if everything else (),
        doubted=frozenset(model.doubted),
    )


def stuck(
    board: Board, model: ReadModel, waits: Mapping[UUID, Wait], sees: Sees, *, now: datetime, still_after: timedelta
) -> Stuck:
    """Which closes are stuck: by what they wait for, where that is known; else those to which nothing happens. A close
    that the topics know to be over is not, whatever was told of it before."""
    rows, told_of = [], 0
    for close_id, wait in waits.items():
        close = model.closes.get(close_id)
        if close is not None and not close.unfinished:
            continue
        if close is not None and is_still(close, now=now, after=still_after):
            told_of += 1
        if now >= wait.stuck_from and sees(wait.close.account):
            rows.append(Row(close or wait.close, wait, close is not None))
    others = [Row(close, None, published=True) for close in board.still if close.id not in waits]
    total = len(rows) + board.still_total - told_of
    return Stuck(tuple(nsmallest(ROWS_SHOWN, (*rows, *others), key=lambda row: _by_age(row.close))), total)


def _by_age(close: Close) -> tuple[datetime, bytes]:
    return close.accepted_at, close.id.bytes


def _funnel(model: ReadModel, seen: Iterable[Close], sees: Sees) -> tuple[tuple[Stage, int], ...]:
    counts: Counter[Stage] = Counter(map(stage_of, seen))
    over = {RequestStatus.COMPLETED: Stage.COMPLETED, RequestStatus.FAILED: Stage.FAILED}
    for (account, status), count in model.counts.items():
        if status in over and sees(account):
            counts[over[status]] += count
    return tuple((stage, counts[stage]) for stage in Stage)


def _latency(model: ReadModel, sees: Sees, *, since: datetime) -> Latency | None:
    found = [seconds for at, account, seconds in model.latencies if at >= since and sees(account)]
    if not found:
        return None
    cuts = quantiles(found, n=20, method="inclusive") if len(found) > 1 else found * 19
    return Latency(len(found), cuts[9], cuts[18])
