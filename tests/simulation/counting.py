"""What is written about an order, counted again by other means than the domain's.

Nothing here calls the functions that decide: quantities are added up from the facts themselves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal

from closeflow.contracts.outbox import event_value
from closeflow.domain.model import ZERO, Event, ExecKind, Execution, Order, OrderStatus, StatementKind, Topic
from closeflow.domain.outbox.events import EXECUTION_REVERSED
from closeflow.domain.text import decimal_text
from tests.simulation.database import FINISHED

ENDED = frozenset({StatementKind.CANCELED, StatementKind.EXPIRED, StatementKind.REJECTED})
OURS = frozenset({StatementKind.REFUSED, StatementKind.LOST})


Entry = tuple[str, str, str]
"""Execution id, quantity and price."""


def changed(order: Order) -> bool:
    """Whether a bust or a correction of it is known."""
    return any(one.kind is not ExecKind.TRADE for one in order.executions)


def standing(order: Order) -> list[Execution]:
    """Each trade, or what took its place last. A broker names what stands, so the row with the most names between it
    and the trade is the last; two feeds may each have told it. A bust is the end."""
    rows = {one.exec_id: one for one in order.executions}
    last: dict[str, tuple[bool, int, datetime, int, str]] = {}
    for row in order.executions:
        depth, at = 0, row
        while at.kind is not ExecKind.TRADE and (ref := rows.get(_named(order, at) or "")) is not None:
            depth, at = depth + 1, ref
        if at.kind is ExecKind.TRADE:
            rank = (row.kind is ExecKind.BUST, depth, row.occurred_at, row.broker_seq or -1, row.exec_id)
            last[at.exec_id] = max(rank, last.get(at.exec_id, rank))
    found = (rows[rank[-1]] for rank in last.values())
    return [row for row in found if row.kind is not ExecKind.BUST]


def _named(order: Order, row: Execution) -> str | None:
    return None if row.ref_exec_id is None else order.aliases.get(row.ref_exec_id, row.ref_exec_id)


def filled(order: Order) -> Decimal:
    return sum((one.quantity for one in standing(order)), ZERO)


def known(order: Order) -> Decimal:
    """The most that anybody has said is filled of it, or has since it was changed."""
    if changed(order):
        return max(filled(order), order.stated_cum_quantity)
    said = [one.cum_quantity for one in order.executions] + [one.cum_quantity for one in order.statements]
    return max([filled(order), order.stated_cum_quantity, *(cum for cum in said if cum is not None)])


def over(order: Order) -> bool:
    """Whether what is written says that the broker can fill no more of it."""
    if known(order) >= order.quantity or order.status in (OrderStatus.DENIED, OrderStatus.LOST):
        return True
    if changed(order):
        return order.status in FINISHED
    stated = [one for one in order.statements if one.kind not in OURS]
    if not stated and not order.executions:
        return any(one.kind is StatementKind.REFUSED for one in order.statements)
    return any(one.kind in ENDED and one.cum_quantity is not None for one in stated)


def open_quantity(order: Order) -> Decimal:
    return ZERO if over(order) else order.quantity - known(order)


def entered(orders: Iterable[Order]) -> Counter[Entry]:
    """What has to be in the books: every execution that stands."""
    rows = (one for order in orders for one in standing(order))
    return Counter((one.exec_id, decimal_text(one.quantity), decimal_text(one.price)) for one in rows)


def told_to_accounting(events: Iterable[Event]) -> Counter[Entry]:
    """What is in the books by these events: a reversal takes its row out again. Repeats say nothing new."""
    books: Counter[Entry] = Counter()
    for event in events:
        if event.topic is Topic.EXECUTION_EVENTS and event.emission == 1:
            back = event.event_type == EXECUTION_REVERSED
            said = event_value(event)
            name = said["reverses_exec_id" if back else "exec_id"]
            entry = (str(name), str(said["quantity"]), str(said["price"]))
            books[entry] += -1 if back else 1
    return books
