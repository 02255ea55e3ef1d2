"""What an operator adds to a position's ledger: an adjustment from outside (P13), or a fill that nobody named (R4)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Final

from closeflow.domain.close.apply_update import apply_update
from closeflow.domain.close.outcome import conclude
from closeflow.domain.frozen import replace
from closeflow.domain.lots import LARGEST_QUANTITY, LOT_DIGITS
from closeflow.domain.model import (
    ZERO,
    Book,
    CloseRequest,
    Event,
    Execution,
    Order,
    Statement,
    StatementKind,
    UpdateSource,
)
from closeflow.domain.operator.requests import POLICY, Already, Done, Outcome, Refused, unclear
from closeflow.domain.orders import execution_ledger
from closeflow.domain.orders import status as order_status
from closeflow.domain.orders.duplicate_fills import settle_names
from closeflow.domain.orders.verdicts import Applied
from closeflow.domain.outbox.events import ledger_event
from closeflow.domain.outbox.payloads import PositionPayload
from closeflow.domain.reasons import EXTERNALLY_CLOSED
from closeflow.domain.text import decimal_text

CLOCKS_APART: Final = timedelta(minutes=5)
"""How far the broker's clock may be ahead of the database's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjustment:
    """A signed change of a position from outside: a transfer, an assignment, an opening fill."""

    delta: Decimal
    reason: str
    by: str


def adjust(
    book: Book, adjustment: Adjustment, *, expected: Decimal | None, last: Adjustment | None, now: datetime
) -> Outcome:
    """P13, with rule Q for a close that is under way. `expected` is the quantity that the operator saw, so that neither
    a repeat nor a fill in between makes it another change than was meant; `last` is the newest adjustment kept."""
    position = book.position
    has = f"position {position.id} has {decimal_text(position.quantity)}"
    if expected is not None and position.quantity != expected:
        if adjustment == last:
            return Already(f"{has}, and its last adjustment was this one")
        return Refused((f"{has}, not {decimal_text(expected)}; look again, and say what it is now",))
    problem = _delta_problem(book, adjustment.delta)
    if problem is not None:
        return Refused((problem,))
    changed = replace(
        book,
        base_quantity=book.base_quantity + adjustment.delta,
        ledger_quantity=book.ledger_quantity + adjustment.delta,
    )
    concluded = conclude(book, changed, now=now, policy=POLICY)
    after = concluded.book.position
    was, is_now = decimal_text(position.quantity), decimal_text(after.quantity)
    what = f"position {after.id}: quantity {was} -> {is_now}, it is {after.status}"
    for name, order in concluded.book.orders.items():
        if order.cancel_requested_at != book.orders[name].cancel_requested_at:
            what += f"; the cancel of order {name} is asked for"
    return Done(concluded.book, what, concluded.events, concluded.incidents)


def _delta_problem(book: Book, delta: Decimal) -> str | None:
    position = book.position
    if position.overfill_of is not None:
        return f"position {position.id} holds the overfill of position {position.overfill_of}; adjust that one"
    if not delta.is_finite() or delta == ZERO:
        return "the delta must be a number other than 0"
    digits = LOT_DIGITS[position.asset_type]
    if len(decimal_text(delta).partition(".")[2]) > digits:
        return f"the delta of a {position.asset_type} position has at most {digits} digits after the point"
    if abs(position.quantity + delta) >= LARGEST_QUANTITY:
        return f"the position would be {decimal_text(position.quantity + delta)}, and none can be told of that large"
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """An execution as the operator read it at the broker. `cum_quantity` is what the order had filled with it;
    `occurred_at` None means now."""

    broker: str
    exec_id: str
    quantity: Decimal
    price: Decimal
    occurred_at: datetime | None
    cum_quantity: Decimal | None


class Ending(StrEnum):
    """Why a position is over that no close of ours closed."""

    EXPIRED = "expired"
    ASSIGNED = "assigned"
    EXERCISED = "exercised"
    DELISTED = "delisted"
    REORGANIZED = "reorganized"
    """A split, a merger or another symbol: what became of it is imported."""


def end_position(book: Book, ending: Ending, given: Adjustment, *, last: Adjustment | None, now: datetime) -> Outcome:
    """P13 to zero by what happened at the broker. `given` takes away what the operator saw; a close that ends with it
    ends for that reason, which its event tells. Refused while an order of the position may still fill, or has filled
    without a name: what it does would come on top."""
    obstacles = tuple(unclear(book)) if book.position.quantity == -given.delta else ()
    if obstacles:
        return Refused(obstacles)
    outcome = adjust(book, given, expected=-given.delta, last=last, now=now)
    if not isinstance(outcome, Done):
        return outcome
    requests = {
        one.id: replace(one, reason=ending.value) if _ended_so(book.requests[one.id], one) else one
        for one in outcome.book.requests.values()
    }
    events = tuple(_because(ending, one) for one in outcome.events)
    return replace(outcome, book=replace(outcome.book, requests=requests), events=events)


def _because(ending: Ending, event: Event) -> Event:
    assert isinstance(event.payload, PositionPayload), "an adjustment tells of positions alone"
    return replace(event, payload=replace(event.payload, reason=ending.value))


def _ended_so(before: CloseRequest, after: CloseRequest) -> bool:
    return before.reason != after.reason == EXTERNALLY_CLOSED


OVER_AT_BROKER: Final = frozenset({"canceled", "expired", "rejected", "filled", "replaced"})


def end_order(
    book: Book, order: Order, *, at_broker: str | None, quantity_there: Decimal | None = None, now: datetime
) -> Outcome:
    """An operator's word that nothing more of the order will be filled as ours: somebody replaced it at the broker, or
    a split or another symbol made another order of it. What is booked stays, what is stated beyond that is not of it.

    `at_broker` is the broker's own status of it, asked just now, None when the broker does not know it;
    `quantity_there` is the order's quantity there, where it says one.
    """
    name = order.client_order_id
    if order_status.is_settled(order):
        return Already(f"order {name} is {order.status}, and every fill of it has its name")
    if not order_status.broker_statements(order):
        return Refused((f"the broker never spoke of order {name}: `closectl orders lost`",))
    if at_broker is not None and at_broker not in OVER_AT_BROKER:
        return Refused((f"the broker has order {name}: {at_broker}. Cancel it there first",))
    gap = order_status.unattributed(order)
    same = (
        order_status.known_cum(order) <= order.quantity if quantity_there is None else quantity_there == order.quantity
    )
    if gap > ZERO and same and at_broker not in (None, "replaced"):
        # An order that is simply over: what it filled is ours, and would be sold once more.
        told = f"the broker has order {name}: {at_broker}, and {decimal_text(gap)} of it filled without a name"
        return Refused((f"{told}: name it with `closectl orders execution`",))
    ended = Statement(
        kind=StatementKind.CANCELED,
        stated_at=now,
        heard_at=now,
        source=UpdateSource.OPERATOR,
        broker_seq=order.broker_update_seq,
        cum_quantity=order_status.executed(order),
        detail="ended by an operator",
    )
    rest = (one for one in order.statements if one.kind is not StatementKind.CANCELED)
    over = order_status.derive(replace(order, statements=tuple(sorted((*rest, ended), key=lambda one: one.kind))))
    if not order_status.is_settled(over):
        return Refused((f"order {name} would still be {over.status}: the broker's own statement says more",))
    concluded = conclude(book, replace(book, orders={**book.orders, name: over}), now=now, policy=POLICY)
    request = concluded.book.requests[order.close_request_id]
    frozen = f", frozen by {request.frozen_reason}: `closectl incidents close`" if request.frozen_reason else ""
    what = (
        f"order {name} is {over.status} with {decimal_text(order_status.executed(over))}; its close is {request.status}"
    )
    return Done(concluded.book, what + frozen, concluded.events, concluded.incidents)


def name_fill(book: Book, order: Order, fill: Fill, *, taken_by: str | None, now: datetime) -> Outcome:
    """Close a gap, or a part of it, with an execution whose source is the operator (rule R4); or book a trade that is
    withheld as it was told, although the broker does not state it (ADR 0018).

    `taken_by` is the client order id under which the execution id is booked, if it is.
    """
    known = order.aliases.get(fill.exec_id, fill.exec_id)
    for one in order.executions:
        if one.exec_id == known:
            same = (one.quantity, one.price) == (fill.quantity, fill.price)
            told = f"execution {fill.exec_id} is booked: {decimal_text(one.quantity)} @ {decimal_text(one.price)}"
            return Already(told) if same else Refused((told,))
    if taken_by is not None:
        return Refused((f"execution {fill.exec_id} is booked on order {taken_by}",))
    withheld = next((one for one in order_status.unclear_trades(order) if one.exec_id == fill.exec_id), None)
    problem = _fill_problem(order, fill, now) if withheld is None else _withheld_problem(withheld, fill)
    if problem is not None:
        return Refused((problem,))
    execution = withheld or Execution(
        broker=fill.broker,
        exec_id=fill.exec_id,
        client_order_id=order.client_order_id,
        side=order.side,
        quantity=fill.quantity,
        price=fill.price,
        occurred_at=fill.occurred_at or now,
        source=UpdateSource.OPERATOR,
        cum_quantity=fill.cum_quantity,
    )
    rest = tuple(one for one in order.withheld if one is not withheld)
    known_now = replace(order, executions=(*order.executions, execution), withheld=rest)
    named = order_status.derive(settle_names(known_now))
    folded = apply_update(book, order, Applied(named, execution))
    concluded = conclude(book, folded, now=now, policy=POLICY)
    request = book.requests[order.close_request_id]
    booked = tuple(
        ledger_event(book.position, request, order, entry) for entry in execution_ledger.entries(order, named)
    )
    left = order_status.unattributed(concluded.book.orders[order.client_order_id])
    what = f"booked {decimal_text(fill.quantity)} @ {decimal_text(fill.price)}; {decimal_text(left)} is still not named"
    return Done(concluded.book, what, (*booked, *concluded.events), concluded.incidents)


def _withheld_problem(withheld: Execution, fill: Fill) -> str | None:
    if (withheld.broker, withheld.quantity, withheld.price) == (fill.broker, fill.quantity, fill.price):
        return None
    told = f"{decimal_text(withheld.quantity)} @ {decimal_text(withheld.price)} by {withheld.broker}"
    return f"execution {fill.exec_id} was told as {told}: name it so"


def _fill_problem(order: Order, fill: Fill, now: datetime) -> str | None:
    if fill.occurred_at is not None and fill.occurred_at > now + CLOCKS_APART:
        return f"{fill.occurred_at.isoformat()} has not passed by the database's clock, which shows {now.isoformat()}"
    if not (fill.quantity.is_finite() and fill.quantity > ZERO):
        return "the quantity must be greater than 0"
    if not (fill.price.is_finite() and fill.price >= ZERO):
        return "the price must not be below 0; 0 is one (worthless expiry)"
    gap = order_status.unattributed(order)
    if fill.quantity > gap:
        told = f"{decimal_text(gap)} of it filled without a name" if gap else "every fill that is known has its name"
        return f"order {order.client_order_id}: {told}; an operator's execution only closes a gap"
    cum = fill.cum_quantity
    if cum is not None and not fill.quantity <= cum <= order_status.known_cum(order):
        return f"--cum {decimal_text(cum)} is not between the quantity and what is known to be filled"
    return None
