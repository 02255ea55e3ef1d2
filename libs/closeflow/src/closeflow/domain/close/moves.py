"""What time makes of a request: it moves, it waits, or its retry is put off."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from closeflow.domain.close.outcome import conclude_position, publish_position
from closeflow.domain.frozen import replace
from closeflow.domain.market_data import MarketClock
from closeflow.domain.model import (
    Book,
    CloseRequest,
    Event,
    Incident,
    RequestStatus,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What P5 asks of the world before a retry, fetched before the transaction."""

    clock: MarketClock | None
    """Absent when it could not be had: what keeps market hours then waits."""
    sends_resume_at: datetime | None = None
    """Set while the account's circuit breaker is open: when it lets the next order through."""
    halted: bool = False


@dataclass(frozen=True, slots=True)
class Moved:
    """The request moved, or its event is sent again."""

    book: Book
    events: tuple[Event, ...]
    what: str
    incidents: tuple[Incident, ...] = ()


@dataclass(frozen=True, slots=True)
class Waits:
    """Time asks nothing of the request now, or not yet."""

    reason: str


@dataclass(frozen=True, slots=True)
class PutOff:
    """A due retry that the world does not allow before `until`: the request stays as it is, and nothing is used up."""

    book: Book
    until: datetime
    reason: str


def fail(book: Book, request: CloseRequest, reason: str, *, now: datetime) -> Moved:
    """C7: it ends without its target, for that reason, and so does its position."""
    return finish(book, request, RequestStatus.FAILED, reason, now=now)


def finish(book: Book, request: CloseRequest, status: RequestStatus, reason: str, *, now: datetime) -> Moved:
    """It ends with that status and reason; the position follows, and the event that says so."""
    completed_at = now if status is RequestStatus.COMPLETED else None
    ended = replace(request, status=status, reason=reason, next_attempt_at=None, completed_at=completed_at)
    concluded, _ = conclude_position(with_request(book, ended), now=now)
    concluded, events = publish_position(book, concluded, ended, now=now)
    return Moved(concluded, events, f"{status}:{reason}")


def with_request(book: Book, request: CloseRequest) -> Book:
    """The book with the request as it is now."""
    return replace(book, requests={**book.requests, request.id: request})
