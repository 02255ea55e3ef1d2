"""Which open incident explains that a request is not over: one that says who has to act (invariant 13)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from closeflow.domain.model import CloseRequest, RequestStatus
from tests.simulation.database import Database

EXCUSES: Final[Mapping[RequestStatus, frozenset[str]]] = {
    RequestStatus.RETRYABLE: frozenset({"retry_by_hand", "position_reopened"}),
}


def unexplained(database: Database) -> list[CloseRequest]:
    """Unfinished requests of which no incident tells a person what to do. What is frozen holds its whole position."""
    found = []
    for request in database.requests():
        book = database.books[request.position_id]
        names = {str(request.id), str(book.position.id), *(one.client_order_id for one in book.orders_of(request.id))}
        kinds = {kind for kind, subject in database.incidents if subject in names}
        freezing = {kind for kind, subject in database.incidents if subject in names | book.orders.keys()}
        frozen = {one.frozen_reason for one in book.requests.values()} & freezing
        if request.unfinished and not frozen and not kinds & EXCUSES.get(request.status, frozenset()):
            found.append(request)
    return found
