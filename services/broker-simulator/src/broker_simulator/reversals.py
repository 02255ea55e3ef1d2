"""Busts and corrections: an execution that was reported is taken back, or gets another quantity and price.

Both are executions of their own that name the one they replace; the next one names the last of the chain (FIX ExecID
and ExecRefID). An order that is open stays open with more left. One that is over stays over with what is left of its
fills, `filled` becoming `canceled`, unless it is to live again: then it rests until somebody scripts what follows.
"""

from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal
from uuid import uuid4

from .execution import Progress
from .orders import ZERO, Execution, ExecutionKind, Order, Side
from .positions import Position, after_fill


class NotReversible(ValueError):
    """No execution stands under this id: there is none, or it was busted or corrected already."""


def standing(executions: Iterable[Execution], execution_id: str) -> Execution:
    """The execution with this id, if nothing has replaced it. Raises NotReversible."""
    found = None
    for one in executions:
        if one.ref_id == execution_id:
            raise NotReversible(f"execution {execution_id} was replaced by the {one.kind} {one.id}; name that one")
        if one.id == execution_id:
            found = one
    if found is None:
        raise NotReversible(f"no execution has the id {execution_id}")
    if found.kind == "bust":
        raise NotReversible(f"{execution_id} is a bust itself")
    return found


def any_execution(executions: Iterable[Execution], execution_id: str) -> Execution:
    """The execution with this id, whether it stands or not. Raises NotReversible."""
    found = next((one for one in executions if one.id == execution_id), None)
    if found is None:
        raise NotReversible(f"no execution has the id {execution_id}")
    return found


def busted(order: Order, position: Position | None, one: Execution, *, at_us: int, revive: bool) -> Progress:
    """The order and the position without this execution."""
    return _replaced(order, position, one, "bust", ZERO, one.price, at_us=at_us, revive=revive)


def corrected(
    order: Order, position: Position | None, one: Execution, *, qty: Decimal, price: Decimal, at_us: int, revive: bool
) -> Progress:
    """The order and the position as if this execution had been of `qty` at `price`; it may exceed the order."""
    return _replaced(order, position, one, "correct", qty, price, at_us=at_us, revive=revive)


def _replaced(
    order: Order,
    position: Position | None,
    one: Execution,
    kind: ExecutionKind,
    qty: Decimal,
    price: Decimal,
    *,
    at_us: int,
    revive: bool,
) -> Progress:
    progress = Progress(_reversed(order, one, qty=qty, price=price, at_us=at_us, revive=revive))
    symbol, asset_class = order.ticket.symbol, order.ticket.asset_class
    opposite: Side = "buy" if one.side == "sell" else "sell"
    progress.position = after_fill(position, symbol, asset_class, opposite, one.qty, one.price)
    if qty:
        progress.position = after_fill(progress.position, symbol, asset_class, one.side, qty, price)
    execution = Execution(
        id=str(uuid4()),
        order_id=order.id,
        symbol=symbol,
        side=one.side,
        qty=qty or one.qty,
        price=price,
        cum_qty=progress.order.filled_qty,
        leaves_qty=progress.order.leaves_qty,
        order_status=progress.order.status,
        position_qty=progress.position.qty,
        at_us=at_us,
        kind=kind,
        ref_id=one.id,
    )
    progress.executions.append(execution)
    progress.note(f"trade_{kind}", at_us, execution)
    return progress


def _reversed(order: Order, one: Execution, *, qty: Decimal, price: Decimal, at_us: int, revive: bool) -> Order:
    cum = order.filled_qty - one.qty + qty
    changed = replace(
        order,
        filled_qty=cum,
        filled_value=order.filled_value - one.qty * one.price + qty * price,
        updated_us=at_us,
    )
    if cum >= order.ticket.qty:
        return replace(
            changed, status="filled", filled_us=at_us, canceled_us=None, expired_us=None, steps=(), due_us=None
        )
    live = "partially_filled" if cum else "new"
    if order.is_open:
        return changed if order.status == "pending_cancel" else replace(changed, status=live)
    if revive:
        return replace(changed, status=live, filled_us=None, canceled_us=None, expired_us=None, steps=(), due_us=None)
    return (
        replace(changed, status="canceled", filled_us=None, canceled_us=at_us) if order.status == "filled" else changed
    )
