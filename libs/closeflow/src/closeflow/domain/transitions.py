"""Every legal move of positions, close requests and orders; whatever is not here is refused (the design's lifecycle).

Order statuses are computed from facts (rule R2), so their rows say which visible effects are possible.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from closeflow.domain.model import Book, OrderStatus, PositionStatus, RequestStatus

P, C, O = PositionStatus, RequestStatus, OrderStatus  # noqa: E741

POSITION_MOVES: Final[Mapping[tuple[PositionStatus, PositionStatus], str]] = {
    (P.OPEN, P.CLOSING): "P1",
    (P.CLOSING, P.CLOSED): "P2",
    (P.CLOSING, P.OPEN): "P3",
    (P.CLOSING, P.CLOSE_RETRYABLE): "P4",
    (P.CLOSE_RETRYABLE, P.CLOSING): "P5",
    (P.CLOSE_RETRYABLE, P.CLOSE_FAILED): "P6",
    (P.CLOSING, P.CLOSE_FAILED): "P7",
    (P.CLOSE_FAILED, P.CLOSING): "P8",
    (P.OPEN, P.CLOSED): "P9",
    (P.CLOSE_RETRYABLE, P.CLOSED): "P9",
    (P.CLOSE_FAILED, P.CLOSED): "P9",
    (P.CLOSE_RETRYABLE, P.OPEN): "P10",
    (P.CLOSE_FAILED, P.OPEN): "P10",
    # A bust, a correction or an adjustment leaves a closed position with a quantity.
    (P.CLOSED, P.CLOSING): "P11",
    (P.CLOSED, P.CLOSE_RETRYABLE): "P11",
    (P.CLOSED, P.OPEN): "P11",
}

REQUEST_MOVES: Final[Mapping[tuple[RequestStatus, RequestStatus], str]] = {
    (C.PENDING, C.SUBMITTED): "C2",  # Before the network call, not after.
    (C.PENDING, C.FAILED): "C4",
    (C.SUBMITTED, C.COMPLETED): "C5",
    (C.SUBMITTED, C.RETRYABLE): "C6",
    (C.SUBMITTED, C.FAILED): "C7",
    (C.RETRYABLE, C.PENDING): "C8",
    (C.PENDING, C.COMPLETED): "C9",
    (C.RETRYABLE, C.COMPLETED): "C9",
    (C.RETRYABLE, C.SUBMITTED): "C12",  # Its order lives again.
    (C.FAILED, C.COMPLETED): "C9",  # A late fill brings what we had given up.
    (C.RETRYABLE, C.FAILED): "C10",
    (C.COMPLETED, C.SUBMITTED): "C11",  # Its order lives again.
    (C.COMPLETED, C.RETRYABLE): "C11",
    # (COMPLETED, FAILED) is missing on purpose: what was done stays done, with its reversal recorded.
    # (SUBMITTED, PENDING) is missing on purpose: it would send again.
}

_STATED: Final = (
    O.NEW,
    O.PARTIALLY_FILLED,
    O.FILLED,
    O.PENDING_CANCEL,
    O.CANCELED,
    O.EXPIRED,
    O.REJECTED,
    O.SUSPENDED,
    O.DONE_FOR_DAY,
)

_OVER: Final = (O.FILLED, O.CANCELED, O.EXPIRED, O.REJECTED)

ORDER_MOVES: Final[Mapping[tuple[OrderStatus, OrderStatus], str]] = {
    (O.PLANNED, O.DENIED): "O2",
    (O.PLANNED, O.SUBMIT_UNKNOWN): "O4",
    (O.SUBMIT_UNKNOWN, O.DENIED): "O2",  # Its sender, silent for a lease, said at last that it had not sent.
    **{(O.PLANNED, status): "O3" for status in _STATED},
    **{(O.SUBMIT_UNKNOWN, status): "O5" for status in _STATED},
    **{(was, O.REJECTED): "O6" for was in (O.PLANNED, O.SUBMIT_UNKNOWN)},
    **{(O.PLANNED, status): "O7" for status in (O.PARTIALLY_FILLED, O.FILLED)},
    (O.NEW, O.PARTIALLY_FILLED): "O8",
    (O.NEW, O.FILLED): "O8",
    (O.NEW, O.PENDING_CANCEL): "O9",
    (O.NEW, O.CANCELED): "O12",
    (O.NEW, O.EXPIRED): "O12",
    (O.NEW, O.REJECTED): "O6",
    (O.NEW, O.SUSPENDED): "O12",
    (O.NEW, O.DONE_FOR_DAY): "O12",
    (O.PARTIALLY_FILLED, O.FILLED): "O8",
    (O.PARTIALLY_FILLED, O.PENDING_CANCEL): "O9",
    (O.PARTIALLY_FILLED, O.CANCELED): "O12",
    (O.PARTIALLY_FILLED, O.EXPIRED): "O12",
    (O.PARTIALLY_FILLED, O.SUSPENDED): "O12",
    (O.PARTIALLY_FILLED, O.DONE_FOR_DAY): "O12",
    (O.PENDING_CANCEL, O.CANCELED): "O11",
    (O.PENDING_CANCEL, O.EXPIRED): "O11",
    (O.PENDING_CANCEL, O.FILLED): "O10",
    (O.PENDING_CANCEL, O.REJECTED): "O11",
    (O.PENDING_CANCEL, O.NEW): "O11",  # The cancel was refused and the order lives.
    (O.PENDING_CANCEL, O.PARTIALLY_FILLED): "O11",
    (O.PENDING_CANCEL, O.SUSPENDED): "O11",
    (O.PENDING_CANCEL, O.DONE_FOR_DAY): "O11",
    **{(O.SUSPENDED, status): "O12" for status in _STATED if status is not O.SUSPENDED},
    **{(O.DONE_FOR_DAY, status): "O12" for status in _STATED if status is not O.DONE_FOR_DAY},
    (O.CANCELED, O.FILLED): "O13",  # The label stays for any smaller late execution.
    (O.EXPIRED, O.FILLED): "O13",
    # The record was wrong: the broker has the order after all, or says later that it lives. Always with an incident.
    **{(was, to): "O14" for was in (O.CANCELED, O.EXPIRED) for to in _STATED if to not in (was, O.FILLED)},
    **{(O.REJECTED, status): "O14" for status in _STATED if status is not O.REJECTED},
    **{(O.DENIED, status): "O14" for status in _STATED},
    # O15, O16: a bust or correction takes from a filled order; whether it lives again the broker's statement says.
    **{(O.FILLED, status): "O15" for status in _STATED if status is not O.FILLED},
    (O.PARTIALLY_FILLED, O.NEW): "O15",
    (O.PARTIALLY_FILLED, O.REJECTED): "O15",
    (O.SUBMIT_UNKNOWN, O.LOST): "O18",
    **{(status, O.LOST): "O19" for status in _STATED if status not in _OVER},
    **{(O.LOST, status): "O20" for status in _STATED},
}


@dataclass(frozen=True, slots=True)
class IllegalMove:
    """A move that no row of the tables allows; its text is what is logged and reported."""

    entity: str
    entity_id: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.entity} {self.entity_id}: {self.before} -> {self.after} is not a legal move"


def illegal_moves(before: Book, after: Book) -> Iterator[IllegalMove]:
    """The moves between two states of a book that no row allows. New requests and orders have no move."""
    old, new = before.position.status, after.position.status
    if old is not new and (old, new) not in POSITION_MOVES:
        yield IllegalMove("position", str(before.position.id), old, new)
    for request_id, was in before.requests.items():
        now = after.requests[request_id]
        if was.status is not now.status and (was.status, now.status) not in REQUEST_MOVES:
            yield IllegalMove("close request", str(request_id), was.status, now.status)
    for client_order_id, order in before.orders.items():
        to = after.orders[client_order_id]
        if order.status is not to.status and (order.status, to.status) not in ORDER_MOVES:
            yield IllegalMove("order", client_order_id, order.status, to.status)
