"""Rule R11: a close that a contradiction froze holds its whole position until a person has looked."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from closeflow.domain.frozen import replace
from closeflow.domain.incidents import IncidentKind
from closeflow.domain.model import Book, Order


def is_frozen(book: Book) -> bool:
    """Whether a request of the position is frozen (rule R11), even one that is over: what froze it may be a fill that
    is not booked, so nothing is sold and no close accepted before a person has looked."""
    return any(request.frozen_reason is not None for request in book.requests.values())


FREEZING: Final = frozenset(
    {
        IncidentKind.EXECUTED_ABOVE_STATED,
        IncidentKind.RECORD_WAS_WRONG,
        IncidentKind.EXECUTION_CHANGED,
        IncidentKind.ORDER_REPLACED,
    }
)
"""Incidents after which the request sends nothing more until a person closed them (rule R11)."""


def freeze(book: Book, order: Order, reason: str) -> Book:
    """Rule R11: no retry and no send of the order's request until the incident is closed."""
    return freeze_request(book, order.close_request_id, reason)


def freeze_request(book: Book, request_id: UUID, reason: str) -> Book:
    """The same for a request that need not have an order. What froze it first stays the reason."""
    request = book.requests.get(request_id)
    if request is None or request.frozen_reason is not None:
        return book
    frozen = replace(request, frozen_reason=reason)
    return replace(book, requests={**book.requests, request.id: frozen})


FREEZING_KINDS: Final = FREEZING | {
    IncidentKind.CONTRADICTS_ORDER,
    IncidentKind.EXECUTION_OF_ANOTHER_ORDER,
    IncidentKind.EXECUTION_WITHOUT_ORDER,
    IncidentKind.ORDER_NOT_RECORDED,
    IncidentKind.POISON,
    IncidentKind.QUANTITIES_DISAGREE,
    IncidentKind.SUBMIT_ORDER_PARKED,
    IncidentKind.UNREADABLE_UPDATE,
}
"""Kinds of incidents under which a request sends nothing more (rule R11)."""
