"""One fill under two names (rule R3a): found where figures, counts or the broker's statements leave no choice, withheld
until they do, and noticed where more is booked than the broker states.

Within one feed two execution ids are two fills. Between the feeds one fill may have two names, and what they say beside
its quantity and price may differ: the stream's cumulative quantity is of an order snapshot, which can be ahead of the
fill or behind it, and their times need not agree. So neither decides alone; what may be told already, and may be new,
is neither booked nor dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Final

from closeflow.domain.frozen import kept, replace
from closeflow.domain.model import ZERO, ExecKind, Execution, Order, Statement, StatementKind, UpdateSource
from closeflow.domain.orders import execution_ledger
from closeflow.domain.orders import status as order_status

_SAME_CHANGE_WITHIN: Final = timedelta(seconds=1)
"""How far the times may be apart that two feeds give for one correction: a later one may correct back to what was."""


class Name(Enum):
    """What an execution id can be when its order has executions of the other feed."""

    NEW = "new"
    """Of a fill that nobody told before."""
    UNCLEAR = "unclear"
    """Perhaps of a fill that another feed told, perhaps of more than the broker states: it is withheld."""


def same_content(order: Order, one: Execution, other: Execution) -> bool:
    """Whether two reports say the same. What a bust states besides the execution it names proves nothing."""
    if one.kind is not other.kind or _replaces(order, one) != _replaces(order, other):
        return False
    return one.kind is ExecKind.BUST or _figures(one) == _figures(other)


def _replaces(order: Order, one: Execution) -> str | None:
    """What a bust or correction names, by the name under which it is booked."""
    return None if one.ref_exec_id is None else order.aliases.get(one.ref_exec_id, one.ref_exec_id)


def duplicate_of_change(order: Order, change: Execution) -> Execution | None:
    """The bust or correction that this one is another name of, if it says the same of the same execution; that a
    correction says so at the same time too, because a later one may correct back to what was there."""
    told = (one for one in _unnamed(order, change) if same_content(order, one, change))
    near = (one for one in told if change.kind is ExecKind.BUST or _apart(one, change) <= _SAME_CHANGE_WITHIN)
    return next(near, None)


def settle_names(order: Order) -> Order:
    """The order with every withheld trade booked, or made another name of one that is, for which it is clear now."""
    waiting = sorted(order.withheld, key=_place)
    while waiting:
        for trade in waiting:
            found = _name(order, trade)
            if found is not Name.UNCLEAR:
                break
        else:
            return order
        waiting.remove(trade)
        order = replace(order, withheld=tuple(one for one in order.withheld if one.exec_id != trade.exec_id))
        if isinstance(found, Execution):
            order = replace(order, aliases={**order.aliases, trade.exec_id: found.exec_id})
        else:
            order = replace(order, executions=(*order.executions, trade))
    return order


def told_by_both(order: Order, one: Execution, other: Execution) -> Order:
    """The order with `one` known under its name to both feeds, so that it is no other fill that either of them told; it
    is booked if it was withheld. Only an operator may have named it already."""
    if one.kind is not ExecKind.TRADE or one.exec_id != other.exec_id or _feed(one.source) == _feed(other.source):
        return order
    if one in order.withheld:
        by_hand = (row for row in order.executions if row.source is UpdateSource.OPERATOR)
        if any(_figures(row) == _figures(one) for row in by_hand):
            return order
        rest = tuple(row for row in order.withheld if row is not one)
        order = replace(order, withheld=rest, executions=(*order.executions, one))
    return replace(order, aliases={**order.aliases, one.exec_id: one.exec_id})


def _place(trade: Execution) -> tuple[Decimal, datetime, str]:
    return (trade.cum_quantity or ZERO, trade.occurred_at, trade.exec_id)


def _name(order: Order, trade: Execution) -> Execution | Name:
    """What the trade is: another name of an execution, a new one, or nothing that can be said yet.

    Proof of the same fill: the broker's own name, or the same cumulative quantity while nothing was taken back. Where
    booking it would go beyond what the broker states, it is one that was told; where the other feed has told fewer
    fills of these figures than its own, one of its own is new.
    """
    others = list(_unnamed(order, trade))
    alike = [one for one in others if _figures(one) == _figures(trade)]
    named = next((one for one in alike if _one_name(one, trade)), None)
    if named is not None:
        return named
    changed = order_status.has_reversal(order)
    if not changed and trade.cum_quantity is not None:
        exact = [one for one in alike if one.cum_quantity == trade.cum_quantity]
        if exact:
            return min(exact, key=lambda one: _distance(one, trade))
    # After a bust the same may have been filled again, of which the broker's statement may be on its way.
    last = execution_ledger.last_reversal(order)
    stands = {one.trade.exec_id for one in execution_ledger.effective_executions(order) if one.quantity}
    again = (
        last is not None and trade.occurred_at > last.occurred_at and not any(one.exec_id in stands for one in alike)
    )
    if _is_room(order, trade):
        alike = [one for one in alike if _may_be_one(order, one, trade)]
        return Name.NEW if again or not alike or _counts_more(order, trade, alike) else Name.UNCLEAR
    if not alike:
        return Name.UNCLEAR if _has_to_wait(order, trade, others) else Name.NEW
    if again or _nothing_states(order, trade):
        return Name.UNCLEAR
    return min(alike, key=lambda one: _distance(one, trade))


def _unnamed(order: Order, execution: Execution) -> Iterator[Execution]:
    """Executions of its kind from other feeds that have no other name yet. An operator's may get one of each feed, the
    second where there is no room for it."""
    aliased = set(order.aliases.values())
    for one in order.executions:
        if one.kind is not execution.kind or _feed(one.source) == _feed(execution.source):
            continue
        by_hand = one.source is UpdateSource.OPERATOR
        if one.exec_id not in aliased or (by_hand and not _is_room(order, execution)):
            yield one


def _one_name(one: Execution, other: Execution) -> bool:
    """A broker's list of executions may put a time and `::` before the id that its stream has given (Alpaca's does)."""
    return one.exec_id.rpartition("::")[2] == other.exec_id.rpartition("::")[2]


def _may_be_one(order: Order, one: Execution, other: Execution) -> bool:
    """Whether what each says of the order's quantity leaves it open. The list's is of its own fill; the stream's may be
    ahead of it, and be behind where others of it were. After a reversal both mean another thing than before it."""
    if one.cum_quantity is None or other.cum_quantity is None or order_status.has_reversal(order):
        return True
    streamed = [row for row in (*order.executions, *order.withheld) if row.source is UpdateSource.STREAM]
    if any(row.cum_quantity is None for row in streamed):
        return True
    stream, listed = (one, other) if one.source is UpdateSource.STREAM else (other, one)
    return (stream.cum_quantity or ZERO) > (listed.cum_quantity or ZERO) - listed.quantity


def _has_to_wait(order: Order, trade: Execution, others: list[Execution]) -> bool:
    """Whether a trade that is like none that was told would still be too much. What one feed alone told is always
    booked once the order is over (R3a); before that the broker's statement may be behind."""
    with_it = _with(order, trade)
    if order_status.executed(with_it) <= order_status.executed(order) or _nothing_states(order, trade):
        return False
    if others or not _is_ours(order, trade):
        return True
    return not _is_over(order) and booked_above_stated(with_it) > ZERO


def _is_room(order: Order, trade: Execution) -> bool:
    """Whether the broker states as much as would be booked with the trade."""
    return order_status.executed(_with(order, trade)) <= order_status.stated_cum(order) and _is_ours(order, trade)


def _is_ours(order: Order, trade: Execution) -> bool:
    """Whether the order would hold it. Beyond its own quantity only the order's own statement says so: of one that a
    split has multiplied the list tells more than was ever ours."""
    if trade.source is not UpdateSource.BACKFILL:
        return True
    booked = order_status.executed(_with(order, trade))
    told = (one.cum_quantity or ZERO for one in order_status.broker_statements(order) if _of_order(one))
    return booked <= max(order.quantity, *told, ZERO)


def _with(order: Order, trade: Execution) -> Order:
    return replace(order, executions=(*order.executions, trade))


def _of_order(one: Statement) -> bool:
    """Whether the order itself was looked at, and not one execution in the list."""
    return one.broker_seq is not None or one.source is not UpdateSource.BACKFILL


def _nothing_states(order: Order, trade: Execution) -> bool:
    """Whether the trade states no cumulative quantity, and nothing that does is as new as it is."""
    newest = _newest_stated(order, execution_ledger.last_reversal(order))
    newer = newest is None or trade.occurred_at > newest
    return trade.cum_quantity is None and newer and _is_ours(order, trade)


def _counts_more(order: Order, trade: Execution, told: list[Execution]) -> bool:
    """Whether its feed has told more fills of these figures than there are for them to be other names of, and the trade
    is least like any of those."""
    rivals = [one for one in order.withheld if _feed(one.source) == _feed(trade.source)]
    rivals = [one for one in rivals if _figures(one) == _figures(trade)]
    pairs = sorted((_distance(one, rival), rival.exec_id, one.exec_id) for rival in rivals for one in told)
    taken: dict[str, str] = {}
    for _, rival, one in pairs:
        if rival not in taken and one not in taken.values():
            taken[rival] = one
    return trade.exec_id not in taken


def _distance(one: Execution, other: Execution) -> tuple[bool, timedelta, datetime, str]:
    """How unlike two reports of the same figures are; it only chooses between those that may be meant."""
    return (one.cum_quantity != other.cum_quantity, _apart(one, other), one.occurred_at, one.exec_id)


def _apart(one: Execution, other: Execution) -> timedelta:
    return abs(one.occurred_at - other.occurred_at)


def _told(trade: Execution) -> tuple[object, ...]:
    return trade.cum_quantity, *_figures(trade)


def _figures(trade: Execution) -> tuple[Decimal, Decimal]:
    return trade.quantity, trade.price


def _feed(source: UpdateSource) -> str:
    if source is UpdateSource.OPERATOR:
        return "operator"
    return "stream" if source is UpdateSource.STREAM else "activities"


@kept
def booked_above_stated(order: Order) -> Decimal:
    """How much more is booked than the broker says is filled: of fills that are booked, some are one.

    What is as new as the newest statement may not be in it yet, but for the order's end. What a bust or correction
    states itself is not held against the order where another may be on its way; anything newer is.
    """
    last = execution_ledger.last_reversal(order)
    told = [
        one
        for one in order_status.broker_statements(order)
        if one.cum_quantity is not None and order_status.counts(one, last)
    ]
    nothing_newer = last is not None and not any(order_status.newer(one, last) for one in told)
    if nothing_newer and (_reversal_waits(order) or not _stands_and_falls(order)):
        return ZERO
    newest = _newest_stated(order, last)
    if newest is None:
        return ZERO
    excused = ZERO
    if not _is_over(order):
        standing = [one for one in execution_ledger.effective_executions(order) if one.quantity]
        excused = sum((one.quantity for one in standing if one.trade.occurred_at >= newest), ZERO)
    return max(ZERO, order_status.executed(order) - excused - order_status.stated_cum(order))


def _newest_stated(order: Order, last: Execution | None) -> datetime | None:
    """When the broker last said how much is filled."""
    stated = [
        one.stated_at
        for one in order_status.broker_statements(order)
        if one.cum_quantity is not None and order_status.counts(one, last)
    ]
    trades = [
        one.trade.occurred_at
        for one in execution_ledger.effective_executions(order)
        if one.trade.cum_quantity is not None
    ]
    return max(stated + trades, default=None)


def _stands_and_falls(order: Order) -> bool:
    """Whether something that stands looks like what was taken back, under the other feed's name."""
    effective_executions = execution_ledger.effective_executions(order)
    fallen = [one.trade for one in effective_executions if one.by is not one.trade]
    standing = [one.trade for one in effective_executions if one.by is one.trade]
    return any(_feed(a.source) != _feed(b.source) and _told(a) == _told(b) for a in standing for b in fallen)


def _reversal_waits(order: Order) -> bool:
    """Whether a bust or correction names an execution that is not known yet."""
    known = {one.exec_id for one in order.executions}
    return any(
        one.kind is not ExecKind.TRADE and order.aliases.get(one.ref_exec_id or "", one.ref_exec_id) not in known
        for one in order.executions
    )


@kept
def _is_over(order: Order) -> bool:
    filled = (one for one in order_status.broker_statements(order) if one.kind is StatementKind.FILLED)
    last = execution_ledger.last_reversal(order)
    return order_status.terminal_statement(order) is not None or any(order_status.counts(one, last) for one in filled)
