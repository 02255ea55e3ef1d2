"""Declare an order lost (O18, O19, P8's override), on the evidence that `closeflow.domain.sending.absence` judges."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

from closeflow.domain.close.outcome import conclude
from closeflow.domain.frozen import replace
from closeflow.domain.model import Book, Order, OrderStatus, Statement, StatementKind
from closeflow.domain.operator.requests import POLICY, Already, Done, Outcome, Refused, unclear
from closeflow.domain.orders import status as order_status
from closeflow.domain.sending.absence import Point


def declare_lost(
    book: Book, gathered: Mapping[str, Collection[Point]], *, reason: str, now: datetime, only: str | None = None
) -> Outcome:
    """State that orders are lost and fold that as any statement: exposure 0, still fillable should they be found (O20).

    `gathered` has the evidence of each order by client order id. With `only` it is about that order, else about every
    order that keeps a position without an active close from being clear (P8).
    """
    if only is not None:
        if book.orders[only].status is OrderStatus.LOST:
            return Already(f"order {only} is lost already")
        names = [only]
    else:
        active = book.active
        if active is not None and active.unfinished:
            return Refused((f"request {active.id} is {active.status}; use `closectl orders lost` for its order",))
        if not book.position.exposure_unproven and not list(unclear(book)):
            return Already(f"position {book.position.id} has no unproven exposure")
        names = sorted(name for name, order in book.orders.items() if not order_status.is_settled(order))
    missing = [
        f"order {name}: {point.name}: {point.detail}" for name in names for point in gathered[name] if not point.holds
    ]
    if missing:
        return Refused(tuple(missing))
    orders = {name: _lost(book.orders[name], reason, now) for name in names}
    standing = [name for name, order in orders.items() if not order_status.is_lost(order)]
    if standing:
        # Without a sequence nothing tells a newer word of the broker's from an older one: its word counts.
        told = "the broker's statements of it have no sequence, so they overrule an operator's"
        return Refused(tuple(f"order {name}: {told}" for name in standing))
    concluded = conclude(book, replace(book, orders={**book.orders, **orders}), now=now, policy=POLICY)
    position = concluded.book.position
    lost = ", ".join(f"order {name} is lost" for name in names) or "no order is in doubt"
    unproven = ", its exposure unproven" if position.exposure_unproven else ""
    what = f"{lost}; position {position.id} is {position.status}{unproven}"
    return Done(concluded.book, what, concluded.events, concluded.incidents)


def _lost(order: Order, reason: str, now: datetime) -> Order:
    """The statement carries the sequence of the broker's newest word, so that only a newer one overrules it."""
    word = Statement(
        kind=StatementKind.LOST,
        stated_at=now,
        heard_at=now,
        source="operator",
        broker_seq=order.broker_update_seq,
        detail=reason,
    )
    rest = (one for one in order.statements if one.kind is not StatementKind.LOST)
    statements = tuple(sorted((*rest, word), key=lambda one: one.kind))
    return order_status.derive(replace(order, statements=statements, next_send_at=None))
