"""Judge one broker update against everything known about its order, and keep what it says as facts (rules R1-R4).

The sequence gates statements, never executions: an execution id not seen before is always applied, however late.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Final

from closeflow.domain.frozen import replace
from closeflow.domain.incidents import IncidentKind, about_order
from closeflow.domain.model import (
    ZERO,
    BrokerStatus,
    BrokerUpdate,
    ExecKind,
    ExecType,
    Execution,
    Incident,
    Order,
    OrderStatus,
    RejectClass,
    Statement,
    StatementKind,
)
from closeflow.domain.orders import duplicate_fills, execution_ledger
from closeflow.domain.orders import status as order_status
from closeflow.domain.orders.charges import keep_charge
from closeflow.domain.orders.refusals import judge_refusal
from closeflow.domain.orders.verdicts import Applied, ProvesNothing, Quarantined, Repeated, Verdict

SILENT: Final = frozenset({ExecType.NOT_FOUND, ExecType.ABSENT})
"""Answers to a query that state nothing about an order (not-found is evidence only where rule R6 counts it)."""

_KIND_OF_EXEC_TYPE: Final = {
    ExecType.NEW: StatementKind.NEW,
    ExecType.CANCELED: StatementKind.CANCELED,
    ExecType.REJECTED: StatementKind.REJECTED,
    ExecType.EXPIRED: StatementKind.EXPIRED,
    ExecType.REPLACED: StatementKind.REPLACED,
    ExecType.PENDING_CANCEL: StatementKind.PENDING_CANCEL,
    ExecType.CANCEL_REJECTED: StatementKind.CANCEL_REJECTED,
    ExecType.SUSPENDED: StatementKind.SUSPENDED,
    ExecType.DONE_FOR_DAY: StatementKind.DONE_FOR_DAY,
    ExecType.TRADE: StatementKind.PARTIALLY_FILLED,
    # Without a status, because the broker's word for it is not one of ours: the order exists and may fill.
    ExecType.ORDER_STATUS: StatementKind.NEW,
}
_EXEC_KIND: Final = {
    ExecType.TRADE: ExecKind.TRADE,
    ExecType.TRADE_CANCEL: ExecKind.BUST,
    ExecType.TRADE_CORRECT: ExecKind.CORRECT,
}
_LIVE: Final = frozenset({BrokerStatus.NEW, BrokerStatus.PARTIALLY_FILLED, BrokerStatus.PENDING_CANCEL})
_MAY_FILL: Final = _LIVE | {BrokerStatus.SUSPENDED, BrokerStatus.DONE_FOR_DAY}


def judge_update(order: Order, update: BrokerUpdate, *, taken_by: str | None = None) -> Verdict:
    """Decide what one broker update changes, given everything already known about the order.

    `taken_by` is the client order id under which the update's execution id is booked already, if it is another's.
    """
    if update.exec_type in SILENT:
        return ProvesNothing()
    contradiction = _contradiction(order, update, taken_by)
    if contradiction is not None:
        return contradiction
    if update.broker_order_id is not None:
        return _apply(order, update)
    if update.exec_type in _EXEC_KIND:
        return Quarantined(IncidentKind.EXECUTION_WITHOUT_ORDER, f"execution {update.exec_id} names no broker order id")
    return judge_refusal(order, update)


def _apply(order: Order, update: BrokerUpdate) -> Verdict:
    changed, raised = _keep_execution(order, update)
    changed, of_charge = keep_charge(changed, update)
    raised += of_charge
    changed = duplicate_fills.settle_names(_keep_statement(changed, update))
    changed = _found_again(order, changed, update)
    if changed == order:
        return Applied(order, None, raised) if raised else Repeated()
    execution = next((one for one in changed.executions if one.exec_id == update.exec_id), None)
    if execution in order.executions:
        execution = None
    sequences = [seq for seq in (changed.broker_update_seq, update.broker_seq) if seq is not None]
    changed = _keep_rejection(order, changed, update)
    changed = order_status.derive(
        replace(
            changed,
            broker_order_id=order.broker_order_id or update.broker_order_id,
            broker_update_seq=max(sequences, default=None),
            last_broker_update_at=update.received_at,
            next_send_at=None,
        )
    )
    found = (_raise(order, kind, detail) for kind, detail in _contradicted(order, changed, update))
    return Applied(changed, execution, (*raised, *(one for some in found for one in some)))


def _found_again(before: Order, order: Order, update: BrokerUpdate) -> Order:
    """O20: what the broker says after an order was declared lost overrules that if it says that the order lives, also
    where nothing of it has changed since. So does a new statement whose age no sequence tells.

    No time is compared: whoever heard it, whoever declared the order lost and the broker have a clock each. If it was
    said before and comes late, a person looks twice; the other way round the position would be sold twice. An
    operator's word that lost its sequence gives way to any of the broker's.
    """
    lost = order_status.statement(before, StatementKind.LOST)
    new = (one for one in order.statements if one not in before.statements)
    if lost is None or not order_status.is_lost(before):
        return order
    unknown_word = update.order_status is None and update.exec_type is ExecType.ORDER_STATUS
    if update.order_status not in _MAY_FILL and not unknown_word and all(one.broker_seq is not None for one in new):
        return order
    rest = (one for one in order.statements if one is not lost)
    statements = (*rest, replace(lost, broker_seq=None))
    return replace(order, statements=tuple(sorted(statements, key=lambda one: one.kind)))


def _keep_rejection(order: Order, changed: Order, update: BrokerUpdate) -> Order:
    """The code and class of the rejection that is kept; one that nobody mapped is terminal for sending."""
    rejected = StatementKind.REJECTED
    if order_status.statement(changed, rejected) is order_status.statement(order, rejected):
        return changed
    return replace(
        changed,
        reject_code=update.reject_code or order.reject_code,
        reject_class=update.reject_class or order.reject_class or RejectClass.TERMINAL,
    )


def _contradiction(order: Order, update: BrokerUpdate, taken_by: str | None) -> Quarantined | None:
    for name, ours, theirs in (
        ("symbol", order.symbol, update.symbol),
        ("side", order.side, update.side),
        ("account", order.account_id, update.account_id),
        ("broker order id", order.broker_order_id, update.broker_order_id),
        ("order quantity", order.quantity, update.order_quantity),
    ):
        if ours is not None and theirs is not None and ours != theirs:
            return Quarantined(IncidentKind.CONTRADICTS_ORDER, f"{name} is {theirs}, the order's is {ours}")
    if taken_by is not None and taken_by != order.client_order_id:
        return Quarantined(
            IncidentKind.EXECUTION_OF_ANOTHER_ORDER, f"execution {update.exec_id} is booked on {taken_by}"
        )
    cum, leaves = update.cum_quantity, update.leaves_quantity
    if cum is not None and leaves is not None and update.order_status in _LIVE and cum + leaves != order.quantity:
        return Quarantined(IncidentKind.QUANTITIES_DISAGREE, f"cum {cum} + leaves {leaves} is not {order.quantity}")
    return None


def _keep_execution(order: Order, update: BrokerUpdate) -> tuple[Order, tuple[Incident, ...]]:
    """The order with what the update names: a bust or correction in the ledger, a trade among those that `settle_names`
    looks at."""
    execution = _execution(order, update)
    if execution is None:
        return order, ()
    known = order.aliases.get(execution.exec_id, execution.exec_id)
    for one in (*order.executions, *order.withheld):
        if one.exec_id == known:
            detail = f"execution {one.exec_id} came again with other content"
            if not duplicate_fills.same_content(order, one, execution):
                return order, _raise(order, IncidentKind.EXECUTION_CHANGED, detail)
            return duplicate_fills.told_by_both(order, one, execution), ()
    if execution.kind is ExecKind.TRADE:
        return replace(order, withheld=(*order.withheld, execution)), ()
    twin = duplicate_fills.duplicate_of_change(order, execution)
    if twin is not None:
        return replace(order, aliases={**order.aliases, execution.exec_id: twin.exec_id}), ()
    return replace(order, executions=(*order.executions, execution)), ()


def _execution(order: Order, update: BrokerUpdate) -> Execution | None:
    """The row of the ledger that the update is; without an id it is none, but a gap that a query will name (R4)."""
    kind = _EXEC_KIND.get(update.exec_type)
    if kind is None or update.exec_id is None:
        return None
    if kind is not ExecKind.BUST and (update.last_quantity is None or update.last_price is None):
        return None
    return Execution(
        broker=update.broker,
        exec_id=update.exec_id,
        client_order_id=order.client_order_id,
        side=order.side,
        quantity=update.last_quantity or ZERO,
        price=update.last_price or ZERO,
        cum_quantity=_own_cum(update),
        broker_seq=update.broker_seq,
        occurred_at=update.transact_time,
        source=update.source,
        kind=kind,
        ref_exec_id=None if kind is ExecKind.TRADE else update.exec_ref_id,
    )


def _own_cum(update: BrokerUpdate) -> Decimal | None:
    """What the order had filled with the update. Less than its own trade is of a snapshot from before that."""
    cum, last = update.cum_quantity, update.last_quantity
    before = update.exec_type is ExecType.TRADE and cum is not None and last is not None and cum < last
    return None if before else cum


def _keep_statement(order: Order, update: BrokerUpdate) -> Order:
    kind = _kind(update)
    if kind is None:
        return order
    if update.order_status is None and update.exec_type is ExecType.TRADE and order_status.has_reversal(order):
        return order  # What had been filled when it was; not what is, since something was taken back.
    cum = _own_cum(update)
    new = Statement(
        kind=kind,
        stated_at=update.transact_time,
        heard_at=update.received_at,
        source=update.source,
        broker_seq=update.broker_seq,
        cum_quantity=cum,
        leaves_quantity=update.leaves_quantity if cum is not None else None,
        detail=update.reason,
    )
    old = order_status.statement(order, kind)
    cum = max(order.stated_cum_quantity, cum or ZERO)
    if old is not None:
        if _rank(new) <= _rank(old):
            return order if cum == order.stated_cum_quantity else replace(order, stated_cum_quantity=cum)
        rest: Iterable[Statement] = (one for one in order.statements if one is not old)
    else:
        rest = order.statements
    statements = tuple(sorted((*rest, new), key=lambda one: one.kind))
    return replace(order, statements=statements, stated_cum_quantity=cum)


def _rank(one: Statement) -> tuple[object, ...]:
    """A total order, so that which of two statements of one kind is kept does not depend on which came first. The time
    comes before the quantity, which a bust lowers; that one is stated at all comes before both."""
    return (
        one.broker_seq if one.broker_seq is not None else -1,
        one.cum_quantity is not None,
        one.stated_at,
        one.cum_quantity if one.cum_quantity is not None else -1,
        one.leaves_quantity if one.leaves_quantity is not None else -1,
        one.source,
        one.detail or "",
    )


def _kind(update: BrokerUpdate) -> StatementKind | None:
    """What kind of statement it is: the cancel's refusal by its type, everything else by the order's stated status. A
    bust or correction without one says nothing of the order's state."""
    if update.exec_type is ExecType.CANCEL_REJECTED:
        return StatementKind.CANCEL_REJECTED
    if update.order_status is not None:
        return StatementKind(update.order_status.value)
    return _KIND_OF_EXEC_TYPE.get(update.exec_type)


def _contradicted(before: Order, after: Order, update: BrokerUpdate) -> Iterator[tuple[IncidentKind, str]]:
    """What a person must know of the update: kind and detail. The facts are kept all the same."""
    if before.status is OrderStatus.DENIED or order_status.refused(before) or order_status.is_lost(before):
        # O20 for a lost order: it is found again.
        yield IncidentKind.RECORD_WAS_WRONG, f"O14: the broker reports {update.exec_type} on a {before.status} order"
    reversal = execution_ledger.last_reversal(after)
    if reversal is not execution_ledger.last_reversal(before) and reversal is not None:
        kind = IncidentKind.EXECUTION_BUSTED if reversal.kind is ExecKind.BUST else IncidentKind.EXECUTION_CORRECTED
        yield kind, f"the broker changed execution {reversal.ref_exec_id} afterwards"
    elif _lives_again(after) and not _lives_again(before):
        yield (
            IncidentKind.RECORD_WAS_WRONG,
            "the broker stated an end of the order, and that it lives in a newer statement",
        )
    if _filled_though_rejected(after) and not _filled_though_rejected(before):
        yield IncidentKind.RECORD_WAS_WRONG, "O14: an order that the broker calls rejected has fills"
    if update.order_status is BrokerStatus.REPLACED:
        yield IncidentKind.ORDER_REPLACED, "the broker replaced the order; nothing here asks for that"
    if order_status.known_cum(after) > max(after.quantity, order_status.known_cum(before)):
        yield IncidentKind.OVERFILL, f"O17: {order_status.known_cum(after)} filled of an order of {after.quantity}"
    above = duplicate_fills.booked_above_stated(after)
    if above > duplicate_fills.booked_above_stated(before):
        yield (
            IncidentKind.EXECUTED_ABOVE_STATED,
            f"{order_status.executed(after)} is booked, {above} more than the broker states as filled",
        )
    if after.reject_class is not before.reject_class and update.reject_class is None:
        yield IncidentKind.UNMAPPED_REFUSAL, f"{update.reject_code}: {update.reason}"
    if update.exec_type is ExecType.ORDER_STATUS and update.order_status is None:
        yield IncidentKind.UNKNOWN_BROKER_STATUS, update.reason or "the order's status is not one that we know"


def _lives_again(order: Order) -> bool:
    ended = any(one.kind in order_status.TERMINAL_STATEMENTS for one in order.statements)
    last = order_status.newest_state(order)
    return (
        ended
        and last is not None
        and last.kind not in order_status.TERMINAL_STATEMENTS
        and not order_status.is_done(order)
    )


def _filled_though_rejected(order: Order) -> bool:
    last = order_status.terminal_statement(order)
    return last is not None and last.kind is StatementKind.REJECTED and order_status.known_cum(order) > ZERO


def _raise(order: Order, kind: IncidentKind, detail: str) -> tuple[Incident, ...]:
    return (about_order(order, kind, detail),)
