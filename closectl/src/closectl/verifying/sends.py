"""Every send again, against what the database knew at its time (invariant 2, rule R5).

What was recorded within a moment of a send may have been committed on either side of it, so it counts in the send's
favour. What the broker had stated without naming it is not kept per time; it makes an order's exposure no larger.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from closeflow.domain.model import ZERO, ExecKind, Order, Send, SendAnswer, SendKind
from closeflow.domain.orders import status as order_status
from closeflow.domain.text import decimal_text
from closeflow.storage.verify.snapshot import PastBook

MOMENT: Final = timedelta(seconds=1)
"""How far apart the times of a decision may be. Before migration 0013 they were also from before the wait for the
position's row."""
ENDED: Final = frozenset({"denied", "lost", "filled", "canceled", "expired", "rejected"})
LOCAL: Final = frozenset({"planned", "submit_unknown"})


def sends_of(order: Order) -> list[Send]:
    """The submits that may have left."""
    return [one for one in order.sends if one.kind is SendKind.SUBMIT and one.answer is not SendAnswer.NOT_SENT]


def unsafe_sends(past: PastBook) -> Iterator[tuple[str, str]]:
    """The sends that could have filled more than the target or the position. A position that holds an overfill is left
    out: what it was opened with changes with the position that it belongs to."""
    if past.book.position.overfill_of is not None:
        return
    for order in past.book.orders.values():
        for send in sends_of(order):
            yield from _unsafe(past, order, send)


def _unsafe(past: PastBook, sent: Order, send: Send) -> Iterator[tuple[str, str]]:
    at = send.started_at
    known = _known(past, sent, at)
    filled = {order.client_order_id: _filled(past, order, at) for order in known}
    live = [order for order in known if order is sent or not _ended(past, order, sent)]
    rest = {order.client_order_id: max(ZERO, order.quantity - filled[order.client_order_id]) for order in live}
    moved = sum((order_status.signed(order.side, filled[order.client_order_id]) for order in known), ZERO)
    closable = max(ZERO, *(-order_status.signed(sent.side, held + moved) for held in _held(past, at)))
    subject = f"order {sent.client_order_id}"
    may_fill = sum(rest.values(), ZERO)
    if may_fill > closable:
        yield (
            subject,
            f"at its send {send.n} {decimal_text(may_fill)} might be filled, the position could take "
            f"{decimal_text(closable)}",
        )
    request = past.book.requests.get(sent.close_request_id)
    if request is None:
        return  # It is of another position, which is a violation of its own.
    of_request = [order for order in known if order.close_request_id == sent.close_request_id]
    names = [order.client_order_id for order in of_request]
    in_all = sum((filled[name] + rest.get(name, ZERO) for name in names), ZERO)
    target = request.target_quantity
    if in_all > target:
        yield (
            subject,
            f"at its send {send.n} {decimal_text(in_all)} was or might be filled of a target of {decimal_text(target)}",
        )


def _known(past: PastBook, sent: Order, at: datetime) -> list[Order]:
    """The orders that were there: an order is sent only before its first move away from the local statuses."""
    if len(past.book.orders) == 1:
        return [sent]
    until = _left(past, sent)
    found = [sent]
    for order in past.book.orders.values():
        moves = past.moves.get(order.client_order_id, ())
        if order is not sent and order.created_at <= at and moves and (until is None or moves[0].id < until):
            found.append(order)
    return found


def _left(past: PastBook, sent: Order) -> int | None:
    moves = past.moves.get(sent.client_order_id, ())
    return next((one.id for one in moves if one.before in LOCAL and one.after not in LOCAL), None)


def _ended(past: PastBook, order: Order, sent: Order) -> bool:
    until = _left(past, sent)
    moves = past.moves.get(order.client_order_id, ())
    return any(one.after in ENDED and (until is None or one.id < until) for one in moves)


def _filled(past: PastBook, order: Order, at: datetime) -> Decimal:
    """What its executions made: trades are seen a moment late, what takes them back a moment early."""

    def seen(exec_id: str, kind: ExecKind) -> bool:
        return past.recorded_at[exec_id] <= (at - MOMENT if kind is ExecKind.TRADE else at + MOMENT)

    executions = tuple(one for one in order.executions if seen(one.exec_id, one.kind))
    return order_status.executed(replace(order, executions=executions))


def _held(past: PastBook, at: datetime) -> Iterator[Decimal]:
    """Opening and adjustments, before and after the moment."""
    for until in (at - MOMENT, at + MOMENT):
        deltas = (delta for adjusted_at, delta in past.adjustments if adjusted_at <= until)
        yield sum(deltas, past.book.position.opening_quantity)
