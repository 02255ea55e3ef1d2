"""Bring a position back in line with its close requests where the two disagree, which no service should ever cause.

Only legal moves are made (P1-P10, C5, C9), and each with an incident, because something wrote what it must not write.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from closeflow.domain.batch import BatchResult
from closeflow.domain.close.outcome import POSITION_STATUS_OF, conclude_position, publish_position
from closeflow.domain.frozen import replace
from closeflow.domain.incidents import IncidentKind, about
from closeflow.domain.lots import is_residual
from closeflow.domain.model import Book, CloseRequest, Event, Incident, PositionStatus, RequestStatus
from closeflow.domain.orders import status as order_status
from closeflow.domain.position import exposure
from closeflow.domain.reasons import EXTERNALLY_CLOSED
from closeflow.domain.transitions import illegal_moves

_CLOSING: Final = frozenset({PositionStatus.CLOSING, PositionStatus.CLOSE_RETRYABLE})


@dataclass(frozen=True, slots=True)
class InLine:
    """Position and requests agree."""


@dataclass(frozen=True, slots=True)
class Repaired:
    """The book in line, and who is told that it was not."""

    book: Book
    events: tuple[Event, ...]
    incident: Incident


@dataclass(frozen=True, slots=True)
class NotRepaired:
    """No legal move brings them in line."""

    incident: Incident


def repair_batch(before: Mapping[int, Book], position_ids: Iterable[int], *, now: datetime) -> BatchResult:
    """Bring these positions in line where a legal move does; an incident tells of each that was not."""
    result = BatchResult(before=before, now=now)
    for position_id in position_ids:
        match repair(before[position_id], now=now):
            case Repaired(after, events, incident):
                result.put(after)
                result.events += events
                result.incidents.append(incident)
            case NotRepaired(incident):
                result.incidents.append(incident)
            case InLine():
                pass
    return result


def repair(book: Book, *, now: datetime) -> Repaired | NotRepaired | InLine:
    """Decide what brings a position and its requests in line. The book holds the request that the position names, also
    when it is finished."""
    wrong = "; ".join(_wrong(book))
    if not wrong:
        return InLine()
    after, request = _repaired(book, now)
    after, events = publish_position(book, after, request, now=now)
    refused = [str(move) for move in illegal_moves(book, after)]
    still = list(_wrong(after))
    if refused or still:
        return NotRepaired(_incident(book, IncidentKind.NOT_REPAIRED, f"{wrong}: {'; '.join(refused or still)}"))
    what = f"the position is {after.position.status}"
    if request is not None:
        what += f", request {request.id} {request.status}"
    return Repaired(after, events, _incident(book, IncidentKind.REPAIRED, f"{wrong}: {what} now"))


def _wrong(book: Book) -> Iterator[str]:
    position = book.position
    named = book.requests.get(position.active_close_request_id) if position.active_close_request_id else None
    if position.active_close_request_id is not None and named is None:
        yield f"it names request {position.active_close_request_id}, which is not one of its own"
    if named is not None and not named.unfinished:
        yield f"it names request {named.id}, which is {named.status}"
    if named is not None and named.unfinished and position.status is not POSITION_STATUS_OF[named.status]:
        yield f"it is {position.status} while its request is {named.status}"
    if position.status in _CLOSING and position.active_close_request_id is None:
        yield f"it is {position.status} without a close request"
    for request in _unfinished(book):
        if request.id != position.active_close_request_id:
            yield f"it does not name its {request.status} request {request.id}"


def _repaired(book: Book, now: datetime) -> tuple[Book, CloseRequest | None]:
    position = book.position
    active = next(_unfinished(book), None)
    over = is_residual(position.asset_type, position.quantity)
    if active is not None and over and all(map(order_status.is_done, book.orders_of(active.id))):
        status = RequestStatus.COMPLETED
        active = replace(active, status=status, reason=EXTERNALLY_CLOSED, next_attempt_at=None, completed_at=now)
        book = replace(book, requests={**book.requests, active.id: active})
    if active is not None:
        position = replace(position, active_close_request_id=active.id)
    elif position.active_close_request_id not in book.requests:
        position = replace(position, active_close_request_id=None)
    book, request = conclude_position(replace(book, position=position), now=now)
    if book.position.status in _CLOSING and book.position.active_close_request_id is None:
        # Nothing says why it is closing: free again where no order can touch it, else for a person (P3, P7, P10).
        status_ = PositionStatus.OPEN if exposure.is_clear(book) else PositionStatus.CLOSE_FAILED
        book = replace(book, position=replace(book.position, status=status_))
    return book, request


def _unfinished(book: Book) -> Iterator[CloseRequest]:
    return (request for request in book.requests.values() if request.unfinished)


def _incident(book: Book, kind: IncidentKind, detail: str) -> Incident:
    return about(kind, detail, position_id=book.position.id)
