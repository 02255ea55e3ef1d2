"""Check orders against their facts, and what may still be filled against what is there (invariants 2, 3, 9, 10)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Final

from closectl.verifying.report import Looked, looked
from closectl.verifying.sends import sends_of, unsafe_sends
from closeflow.domain.model import Book, CloseRequest, Order, StatementKind
from closeflow.domain.orders import status as order_status
from closeflow.domain.position import exposure
from closeflow.domain.text import decimal_text
from closeflow.storage.verify.snapshot import OpenIncidents, PastBook

PRICE_TOLERANCE: Final = Decimal("1e-12")
"""The average price is a rounded quotient."""
DATABASE: Final = "database"


@dataclass(slots=True)
class BookChecks:
    """Fed with every book, a chunk at a time."""

    incidents: OpenIncidents
    orders: int = 0
    requests: int = 0
    sends: int = 0
    wrong: dict[int, list[tuple[str, str]]] = field(default_factory=lambda: {2: [], 3: [], 9: [], 10: []})

    def add(self, books: Iterable[PastBook]) -> None:
        """Check some books more; each book is given once."""
        for past in books:
            book = past.book
            self.sends += sum(len(sends_of(order)) for order in book.orders.values())
            self.wrong[2] += unsafe_sends(past)
            self.orders += len(book.orders)
            self.requests += len(book.requests)
            self.wrong[2] += _oversold(book, self.incidents)
            self.wrong[3] += _live_twice(book, self.incidents)
            for order in book.orders.values():
                self.wrong[9] += _status(order)
                self.wrong[10] += _quantities(order)

    def findings(self) -> list[Looked]:
        """Invariants 2, 3, 9 and 10 on everything that was added."""
        return [
            looked(2, DATABASE, "sends at their time", self.sends, self.wrong[2]),
            looked(2, DATABASE, "close requests as they stand", self.requests, ()),
            looked(3, DATABASE, "close requests", self.requests, self.wrong[3]),
            looked(9, DATABASE, "orders derived again", self.orders, self.wrong[9]),
            looked(10, DATABASE, "orders derived again", self.orders, self.wrong[10]),
        ]


def _oversold(book: Book, incidents: OpenIncidents) -> Iterator[tuple[str, str]]:
    """Rule R5 as things stand; what came to exceed it after the send needs an open incident or a cancel."""
    for request in book.requests.values():
        live = [order for order in book.orders_of(request.id) if not order_status.is_done(order)]
        if not live or not exposure.oversells(book, request) or _explained(book, request, live, incidents):
            continue
        may_fill = sum((exposure.exposure(order) for order in book.orders.values()), Decimal(0))
        yield (
            f"close request {request.id}",
            f"{decimal_text(may_fill)} may still be filled; the position is {decimal_text(book.position.quantity)}, "
            f"{decimal_text(request.filled_quantity)} of a target of {decimal_text(request.target_quantity)} is filled",
        )


def _explained(book: Book, request: CloseRequest, live: list[Order], incidents: OpenIncidents) -> bool:
    if book.position.id in incidents.positions or request.id in incidents.requests:
        return True
    return all(order.cancel_requested_at is not None or order.client_order_id in incidents.orders for order in live)


def _live_twice(book: Book, incidents: OpenIncidents) -> Iterator[tuple[str, str]]:
    """An order that a person declared lost, and that was found when the next attempt was there, is being cancelled or
    has an incident."""
    for request in book.requests.values():
        live = [order for order in book.orders_of(request.id) if not order_status.is_done(order)]
        found = [
            order
            for order in live
            if order_status.statement(order, StatementKind.LOST) is not None
            and _explained(book, request, [order], incidents)
        ]
        if len(live) - len(found) > 1:
            names = ", ".join(order.client_order_id for order in live)
            yield f"close request {request.id}", f"{len(live)} of its orders may still be filled: {names}"


def _status(order: Order) -> Iterator[tuple[str, str]]:
    derived = order_status.derive_status(order)
    # Who asks for a cancel may not write the status; the next update of the broker's shows it.
    asked = order_status.derive_status(replace(order, cancel_requested_at=None))
    if order.status not in (derived, asked):
        yield f"order {order.client_order_id}", f"is {order.status}; its facts make it {derived}"


def _quantities(order: Order) -> Iterator[tuple[str, str]]:
    derived = order_status.derive(order)
    for name, stored, found in (
        ("executed_qty", order.executed_quantity, derived.executed_quantity),
        ("stated_cum_qty", order.stated_cum_quantity, derived.stated_cum_quantity),
    ):
        if stored != found:
            yield (
                f"order {order.client_order_id}",
                f"{name} is {decimal_text(stored)}; its facts make it {decimal_text(found)}",
            )
    was, now = order.average_price, derived.average_price
    if (was is None) != (now is None) or (was is not None and now is not None and abs(was - now) > PRICE_TOLERANCE):
        yield f"order {order.client_order_id}", f"avg_price is {was}; its executions make it {now}"
