"""Orders that are not done although their request is finished: cancelled if the broker has them, and told.

T_unknown gave up on one, a bust gave one its life back, or a broker's acknowledgement came after all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from closeflow.domain.batch import BatchResult
from closeflow.domain.frozen import replace
from closeflow.domain.incidents import IncidentKind, about_order
from closeflow.domain.model import Book, Order, OrderRef
from closeflow.domain.orders import status as order_status
from closeflow.domain.sending.broker_answers import NOTHING_LEFT, Acknowledged, LookUpAnswer


@dataclass(slots=True, kw_only=True)
class OrphansResult(BatchResult):
    """What is to be written of orphan orders, and those whose cancel is asked for by it."""

    canceled: list[str] = field(default_factory=list)


def cancel_orphans(
    before: Mapping[int, Book],
    orders: Iterable[Order | OrderRef],
    answers: Mapping[str, LookUpAnswer],
    *,
    now: datetime,
) -> OrphansResult:
    """Ask once for the cancel of each order that the broker has, or stated before to have, and tell a person of each
    that is still an orphan. The books hold the orders' requests; `answers` are the broker's, as far as it was asked."""
    result = OrphansResult(before=before, now=now)
    for one in orders:
        book = result.books[one.position_id]
        order, request = book.orders.get(one.client_order_id), book.requests[one.close_request_id]
        if order is None or order_status.is_done(order) or request.unfinished:
            continue
        lives = _lives(answers.get(order.client_order_id)) or bool(order_status.broker_statements(order))
        if lives and order.cancel_requested_at is None:
            result.put_order(order_status.derive(replace(order, cancel_requested_at=now)))
            result.canceled.append(order.client_order_id)
        detail = f"request {request.id} is {request.status} ({request.reason}) and its order is {order.status}: " + (
            "its cancel is asked for" if lives else "nobody knows whether the broker has it"
        )
        result.incidents.append(about_order(order, IncidentKind.ORDER_OUTLIVES_REQUEST, detail))
    return result


def _lives(answer: LookUpAnswer | None) -> bool:
    return isinstance(answer, Acknowledged) and answer.update.order_status not in NOTHING_LEFT
