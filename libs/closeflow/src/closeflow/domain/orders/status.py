"""What follows from the facts about orders: status, done, exposure, owed, clear (the design's rules R1-R5).

Nothing here is added up from messages: every figure is computed again from executions and statements, so any order and
any repetition of the same facts gives the same answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from closeflow.domain.frozen import kept, replace
from closeflow.domain.model import (
    ZERO,
    Execution,
    Order,
    OrderStatus,
    Send,
    SendKind,
    Side,
    Statement,
    StatementKind,
    UpdateSource,
)
from closeflow.domain.orders import execution_ledger

TERMINAL_STATEMENTS: Final = frozenset({StatementKind.CANCELED, StatementKind.EXPIRED, StatementKind.REJECTED})
PAUSED_STATEMENTS: Final = frozenset({StatementKind.SUSPENDED, StatementKind.DONE_FOR_DAY})
LOCAL_STATEMENTS: Final = frozenset({StatementKind.REFUSED, StatementKind.LOST})
"""Statements without a broker order id: quantities in them prove nothing."""
LOCAL_STATUSES: Final = frozenset({OrderStatus.PLANNED, OrderStatus.DENIED, OrderStatus.SUBMIT_UNKNOWN})


def signed(side: Side, quantity: Decimal) -> Decimal:
    """A quantity as it moves the position: a sell lowers it."""
    return quantity if side is Side.BUY else quantity.copy_negate()  # Unlike a minus sign, this never rounds.


def statement(order: Order, kind: StatementKind) -> Statement | None:
    """The order's statement of this kind; one is kept of each."""
    return next((one for one in order.statements if one.kind is kind), None)


@kept
def broker_statements(order: Order) -> tuple[Statement, ...]:
    """What the broker itself stated under its own order id: neither refusals nor an operator's "lost"."""
    return tuple(one for one in order.statements if one.kind not in LOCAL_STATEMENTS)


def newest(statements: Iterable[Statement]) -> Statement | None:
    """The newest by broker sequence. Without a sequence a terminal statement wins, then the later time."""

    def rank(one: Statement) -> tuple[bool, int, bool, object]:
        terminal = one.kind in TERMINAL_STATEMENTS
        return (terminal and one.broker_seq is None, one.broker_seq or 0, terminal, one.stated_at)

    return max(statements, key=rank, default=None)


@kept
def newest_state(order: Order) -> Statement | None:
    """The broker's newest word on the order itself; that a cancel was refused says nothing of its state."""
    return newest(one for one in broker_statements(order) if one.kind is not StatementKind.CANCEL_REJECTED)


@kept
def executed(order: Order) -> Decimal:
    """The sum of the order's effective executions: busts and corrections applied."""
    return sum((one.quantity for one in execution_ledger.effective_executions(order)), ZERO)


@kept
def known_cum(order: Order) -> Decimal:
    """The most that is known to be filled: what we can name, or what the broker stated, whichever is more."""
    return max(executed(order), order.stated_cum_quantity)


@kept
def stated_cum(order: Order) -> Decimal:
    """The highest cumulative quantity the broker stated since its last bust or correction.

    Without one it never falls, so a statement that gave way to a newer one of its kind still counts.
    """
    ended = newest_state(order)
    if ended is not None and ended.source == UpdateSource.OPERATOR:
        return ended.cum_quantity or ZERO  # What the broker states of what the order became is not of ours.
    last = execution_ledger.last_reversal(order)
    told = [one.cum_quantity for one in broker_statements(order) if counts(one, last)]
    told += [one.cum_quantity for one in order.executions if last is None or one is last or _after(one, last)]
    if last is None:
        told.append(order.stated_cum_quantity)
    return max((cum for cum in told if cum is not None), default=ZERO)


def counts(one: Statement, last: Execution | None) -> bool:
    """Whether a statement's quantities are of the time since the last bust or correction."""
    return last is None or not _before(one, last)


def newer(one: Statement, last: Execution) -> bool:
    """Whether the statement is of a later state of the order than the bust or correction: not the one it brought."""
    if one.broker_seq is not None and last.broker_seq is not None:
        return one.broker_seq > last.broker_seq
    return one.stated_at > last.occurred_at


def _before(one: Statement, last: Execution) -> bool:
    if one.broker_seq is not None and last.broker_seq is not None:
        return one.broker_seq < last.broker_seq  # The bust's own statement has its sequence, and counts.
    return one.stated_at < last.occurred_at


def _after(one: Execution, last: Execution) -> bool:
    if one.broker_seq is not None and last.broker_seq is not None:
        return one.broker_seq > last.broker_seq
    return one.occurred_at > last.occurred_at


def unattributed(order: Order) -> Decimal:
    """Fills that we know of but cannot name yet (rule R4); they are never booked."""
    return known_cum(order) - executed(order)


@kept
def terminal_statement(order: Order) -> Statement | None:
    """The broker's word that the order is over, if that is its newest word and says how much was filled.

    A terminal statement without a cumulative quantity ends nothing: the order has to be looked up. "Filled" with less
    than the order's quantity is an end only after a bust or correction, which explains it.
    """
    last = newest_state(order)
    if last is None or last.cum_quantity is None:
        return None
    if last.kind is StatementKind.FILLED:
        reversal = execution_ledger.last_reversal(order)
        return None if reversal is None or _before(last, reversal) else last
    return last if last.kind in TERMINAL_STATEMENTS else None


def refused(order: Order) -> bool:
    """Whether an accepted refusal (rule R3b) stands: any statement or execution of the broker's overrules it."""
    return (
        statement(order, StatementKind.REFUSED) is not None
        and not broker_statements(order)
        and known_cum(order) == ZERO
    )


def is_lost(order: Order) -> bool:
    """Whether an operator's word that the order is lost stands (O18, O19). A newer statement of the broker's overrules
    it, and so does any at all if there was none with a sequence when it was given. One without a sequence takes the
    word's own away when it comes (`judge_update`), so those that are here were there before."""
    lost = statement(order, StatementKind.LOST)
    if lost is None:
        return False
    since = lost.broker_seq
    if since is None:
        return not broker_statements(order)
    return all(one.broker_seq is None or one.broker_seq <= since for one in broker_statements(order))


def cancel_pending(order: Order) -> bool:
    """A cancel was requested, or the broker says one is under way, and the broker did not refuse it since."""
    refusal = statement(order, StatementKind.CANCEL_REJECTED)
    asked = order.cancel_requested_at
    if asked is not None and (refusal is None or refusal.known_since < asked):
        return True
    last = newest_state(order)
    if last is None or last.kind is not StatementKind.PENDING_CANCEL:
        return False
    return refusal is None or newest((refusal, last)) is last


def derive_status(order: Order) -> OrderStatus:
    """Rule R2: the status as a function of the facts; the first line that matches wins.

    So what an update does to an order (O3, O5-O8, O10-O17) is not done anywhere: it follows from what was kept of it.
    """
    cum = known_cum(order)
    if cum >= order.quantity:
        return OrderStatus.FILLED
    terminal = terminal_statement(order)
    if terminal is not None and not (terminal.kind is StatementKind.REJECTED and cum > ZERO):
        return OrderStatus(terminal.kind.value)
    if refused(order):
        return OrderStatus.REJECTED
    if is_lost(order):
        return OrderStatus.LOST
    stated = broker_statements(order)
    if stated and cancel_pending(order):
        return OrderStatus.PENDING_CANCEL
    last = newest_state(order)
    if last is not None and last.kind in PAUSED_STATEMENTS:
        return OrderStatus(last.kind.value)
    if cum > ZERO:
        return OrderStatus.PARTIALLY_FILLED
    if stated or order.executions:  # What a bust has taken back was filled: the broker has the order.
        return OrderStatus.NEW
    return order.status if order.status in LOCAL_STATUSES else OrderStatus.SUBMIT_UNKNOWN


def derive(order: Order) -> Order:
    """The order with its derived columns computed again from its facts."""
    done_quantity = executed(order)
    notional = sum((one.quantity * one.price for one in execution_ledger.effective_executions(order)), ZERO)
    order = replace(
        order,
        executed_quantity=done_quantity,
        average_price=notional / done_quantity if done_quantity else None,
        stated_cum_quantity=stated_cum(order),
    )
    return replace(order, status=derive_status(order))


def is_done(order: Order) -> bool:
    """Whether the broker can fill no more of it, as far as that can be proven (lifecycle.md, "done")."""
    if known_cum(order) >= order.quantity:
        return True
    if order.status is OrderStatus.DENIED and not broker_statements(order):
        return True
    return terminal_statement(order) is not None or refused(order) or is_lost(order)


def unclear_trades(order: Order) -> tuple[Execution, ...]:
    """Trades of an order that is over which are neither booked nor other names of what is (ADR 0018): the position may
    have less than it shows. While an order works, its exposure leaves room for them; an operator's end drops them, and
    so does a bust or correction under the trade's own name."""
    last = newest_state(order)
    ended_by_hand = last is not None and last.source == UpdateSource.OPERATOR
    if ended_by_hand or not order.withheld or not is_done(order):
        return ()
    taken_back = {one.ref_exec_id for one in order.executions}
    return tuple(one for one in order.withheld if one.exec_id not in taken_back)


def is_named(order: Order) -> bool:
    """Whether every fill that is known, or that somebody told, has its name."""
    return unattributed(order) == ZERO and not unclear_trades(order)


def is_settled(order: Order) -> bool:
    """Done, and every fill of it has its name."""
    return is_done(order) and is_named(order)


def has_reversal(order: Order) -> bool:
    """Whether the broker ever busted or corrected an execution of the order."""
    return execution_ledger.last_reversal(order) is not None


def submits(order: Order) -> list[Send]:
    """Its sends but for cancels, the first first."""
    return sorted((one for one in order.sends if one.kind is SendKind.SUBMIT), key=lambda one: one.n)


def sends_that_count(order: Order, kind: SendKind = SendKind.SUBMIT) -> int:
    """How many sends the broker may have seen (rule R3b)."""
    return sum(1 for one in order.sends if one.kind is kind and one.counts)


def never_taken(order: Order) -> bool:
    """Whether the broker cannot have seen the order, so that it may be sent as for the first time (O1a),
    or withdrawn (O2).

    One that was thought unknown, because its sender was silent for a whole lease, is so too once every sender has said
    after all that it did not send; one that is unknown without a send on record is not explained, and stays unknown.
    """
    if order.status is OrderStatus.SUBMIT_UNKNOWN and not any(one.kind is SendKind.SUBMIT for one in order.sends):
        return False
    return order.status in (OrderStatus.PLANNED, OrderStatus.SUBMIT_UNKNOWN) and sends_that_count(order) == 0
