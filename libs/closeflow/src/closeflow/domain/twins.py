"""One fill under two names (rule R3a): found where the figures allow it, and noticed where a fill was booked twice."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from closeflow.domain import facts, ledger
from closeflow.domain.model import ZERO, ExecKind, Execution, Order, Statement, StatementKind, UpdateSource

SAME_FILL_WITHIN: Final = timedelta(seconds=1)
"""How far the times may be apart that two feeds give for one fill."""


def same_content(order: Order, one: Execution, other: Execution) -> bool:
    """Whether two reports say the same. What a bust states besides the execution it names proves nothing."""
    if one.kind is not other.kind or _replaces(order, one) != _replaces(order, other):
        return False
    return one.kind is ExecKind.BUST or (one.quantity, one.price) == (other.quantity, other.price)


def _replaces(order: Order, one: Execution) -> str | None:
    """What a bust or correction names, by the name under which it is booked."""
    return None if one.ref_exec_id is None else order.aliases.get(one.ref_exec_id, one.ref_exec_id)


def twin_of(order: Order, execution: Execution) -> Execution | None:
    """The execution that this one is another name of: the stream and the activities may name one fill differently, and
    an operator's may be named by both. A bust or correction is one if it says the same of the same execution; that a
    correction says so at the same time too, because a later one may correct back to what was there."""
    if execution.kind is not ExecKind.TRADE:
        told = [one for one in _unnamed(order, execution) if same_content(order, one, execution)]
        return next((one for one in told if execution.kind is ExecKind.BUST or _near(one, execution)), None)
    alike = [
        one
        for one in _unnamed(order, execution)
        if (one.quantity, one.price) == (execution.quantity, execution.price) and _may_be_one(order, one, execution)
    ]
    if execution.cum_quantity is not None:
        same = next((one for one in alike if one.cum_quantity == execution.cum_quantity), None)
        if same is not None:
            return same
    return _named_by_hand(order, alike, execution) or _nearest(alike, execution)


def _unnamed(order: Order, execution: Execution) -> Iterator[Execution]:
    """Executions of its kind from other feeds that have no other name yet; only an operator's may have several."""
    aliased = set(order.aliases.values())
    for one in order.executions:
        if one.kind is not execution.kind or _feed(one.source) == _feed(execution.source):
            continue
        if one.exec_id not in aliased or one.source is UpdateSource.OPERATOR:
            yield one


def _may_be_one(order: Order, one: Execution, execution: Execution) -> bool:
    """After a bust the same cumulative quantity may be reached a second time."""
    return not facts.has_reversal(order) or _near(one, execution)


def _near(one: Execution, other: Execution) -> bool:
    return abs(one.occurred_at - other.occurred_at) <= SAME_FILL_WITHIN


def _named_by_hand(order: Order, alike: list[Execution], execution: Execution) -> Execution | None:
    """An operator's execution without a cumulative quantity is the feed's where the broker states no more than that."""
    stated = max(order.stated_cum_quantity, execution.cum_quantity or ZERO)
    if facts.executed(order) + execution.quantity <= stated:
        return None
    return next((one for one in alike if one.source is UpdateSource.OPERATOR and _cum_unknown(one, execution)), None)


def _nearest(alike: list[Execution], execution: Execution) -> Execution | None:
    """Where a feed states no cumulative quantity: the execution of these figures that is nearest to it in time. Each
    has one such name, so that of several fills that are alike none is booked twice, and a new one is booked once the
    feeds are even; until then it is a gap."""
    found = [
        one
        for one in alike
        if one.source is not UpdateSource.OPERATOR and _cum_unknown(one, execution) and _near(one, execution)
    ]

    def distance(one: Execution) -> tuple[timedelta, datetime, str]:
        return (abs(one.occurred_at - execution.occurred_at), one.occurred_at, one.exec_id)

    return min(found, key=distance, default=None)


def _cum_unknown(one: Execution, other: Execution) -> bool:
    return one.cum_quantity is None or other.cum_quantity is None


def _feed(source: UpdateSource) -> str:
    if source is UpdateSource.OPERATOR:
        return "operator"
    return "stream" if source is UpdateSource.STREAM else "activities"


def booked_above_stated(order: Order) -> Decimal:
    """How much more is booked than the broker says is filled: of fills that are booked, some are one.

    Every report of a trade states what the order had filled with it, so that a fill which is new, late or early is
    below what is stated. One that states nothing is only held against a statement that is newer, or the order's end.
    """
    last = ledger.last_reversal(order)
    trades = [one.trade for one in ledger.standings(order)]
    if last is not None and (_reversal_waits(order) or not _stands_and_falls(order)):
        return ZERO  # What is too much may be what another bust takes back, whose report has not come yet.
    standing = [one for one in ledger.standings(order) if one.quantity]
    told = [one for one in facts.broker_statements(order) if one.cum_quantity is not None and facts.counts(one, last)]
    if not told and all(one.cum_quantity is None for one in trades):
        return ZERO
    excused = ZERO
    if not _over(order, told):
        # When we heard that a cancel was refused says nothing of the broker's time.
        stated = [one.stated_at for one in told if one.kind is not StatementKind.CANCEL_REJECTED]
        newest = max(stated + [one.occurred_at for one in trades if one.cum_quantity], default=None)
        excused = sum((one.quantity for one in standing if _newer(one.trade, newest)), ZERO)
    return max(ZERO, facts.executed(order) - excused - order.stated_cum_quantity)


def _stands_and_falls(order: Order) -> bool:
    """Whether something that stands looks like what was taken back, under the other feed's name."""
    standings = ledger.standings(order)
    fallen = [one.trade for one in standings if one.by is not one.trade]
    standing = [one.trade for one in standings if one.by is one.trade]
    return any(_feed(a.source) != _feed(b.source) and _figures(a) == _figures(b) for a in standing for b in fallen)


def _figures(trade: Execution) -> tuple[Decimal | None, Decimal, Decimal]:
    return trade.cum_quantity, trade.quantity, trade.price


def _reversal_waits(order: Order) -> bool:
    """Whether a bust or correction names an execution that is not known yet."""
    known = {one.exec_id for one in order.executions}
    return any(
        one.kind is not ExecKind.TRADE and order.aliases.get(one.ref_exec_id or "", one.ref_exec_id) not in known
        for one in order.executions
    )


def _over(order: Order, told: list[Statement]) -> bool:
    return facts.terminal_statement(order) is not None or any(one.kind is StatementKind.FILLED for one in told)


def _newer(trade: Execution, newest: datetime | None) -> bool:
    return trade.cum_quantity is None and (newest is None or trade.occurred_at + SAME_FILL_WITHIN >= newest)
