"""Orders of ours that the broker has and the database does not: what a promotion or a restore has lost.

Nothing may be sent for their positions before a person has looked, but for one case: the close is there, unfinished,
and the broker refuses a client order id that it has seen for ever. Its attempts get the same ids again, and the
broker's refusal of each leads to the order that is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from closeflow.domain.batch import BatchResult
from closeflow.domain.close.outcome import publish_position
from closeflow.domain.frozen import replace
from closeflow.domain.ids import parse_client_order_id
from closeflow.domain.incidents import IncidentKind, about
from closeflow.domain.model import Book, Incident
from closeflow.domain.position.freeze import freeze_request


def hold_positions(
    before: Mapping[int, Book], unrecorded: Mapping[int, Sequence[str]], *, ids_are_taken_for_ever: bool, now: datetime
) -> BatchResult:
    """Freeze the close that each position is in, or, where it is in none, call its exposure unproven; and tell why.

    `unrecorded` are the client order ids by the position that they may be of.
    """
    result = BatchResult(before=before, now=now)
    for position_id, orders in sorted(unrecorded.items()):
        book = before[position_id]
        left = [one for one in orders if not (ids_are_taken_for_ever and _is_repeated(book, one))]
        if not left:
            continue
        unfinished = [one.id for one in book.requests.values() if one.unfinished]
        after = book
        for request_id in unfinished:
            after = freeze_request(after, request_id, IncidentKind.ORDER_NOT_RECORDED)
        if not unfinished:
            after = replace(after, position=replace(after.position, exposure_unproven=True))
            after, events = publish_position(book, after, None, now=now)
            result.events += events
        result.put(after)
        result.incidents.append(_told(position_id, unfinished[0] if unfinished else None, left))
    return result


def _is_repeated(book: Book, client_order_id: str) -> bool:
    """Whether its close is at work and will use the id again."""
    named = parse_client_order_id(client_order_id)
    request = book.requests.get(named[0]) if named else None
    return request is not None and request.unfinished


def _told(position_id: int, request_id: UUID | None, orders: Sequence[str]) -> Incident:
    listed = ", ".join(sorted(orders))
    detail = f"the broker has orders that the database lost: {listed}"
    return about(IncidentKind.ORDER_NOT_RECORDED, detail, position_id=position_id, close_request_id=request_id)
