"""What is done about the orders that are due: unsent plans, repeats, unknown outcomes, cancels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, assert_never

from closeflow.domain.batch import BatchResult
from closeflow.domain.close.outcome import conclude_all
from closeflow.domain.frozen import replace
from closeflow.domain.model import Book, Order, SendKind
from closeflow.domain.retry import FARTHEST, RetryPolicy
from closeflow.domain.sending.claim import Sender, being_looked_up, withdrawn
from closeflow.domain.sending.next_step import (
    GiveUp,
    LookUp,
    NothingToDo,
    SendCancel,
    SendOrder,
    Wait,
    next_step,
)
from closeflow.domain.sending.send_check import Withdraw
from closeflow.domain.trading_controls import Controls

LOOKED_AT_AGAIN: Final = timedelta(seconds=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What was read in the transaction that writes."""

    books: Mapping[int, Book]
    controls: Controls
    now: datetime
    watched: Mapping[str, Set[int]]
    """By client order id, as in `next_step`: the sends that this process has itself seen unanswered for a lease."""


@dataclass(slots=True, kw_only=True)
class DueResult(BatchResult):
    """What one look at the due orders came to."""

    look_ups: list[tuple[Order, bool]] = field(default_factory=list)
    """Orders to look up, each with whether an explicit not-found counts as evidence of absence."""
    withdrawn: list[tuple[str, str]] = field(default_factory=list)
    """Client order ids, and why the order is not sent."""
    waiting: int = 0
    """Orders that had to go without a send; each one's turn is behind those before it."""


def attend(known: Known, due: Sequence[tuple[int, str]], *, sender: Sender, policy: RetryPolicy) -> DueResult:
    """Take the next step of each due order (position id, client order id). One that is in no book any more is passed
    over."""
    result = DueResult(before=known.books, now=known.now, policy=policy, controls=known.controls)
    to_conclude: dict[int, None] = {}
    for position_id, client_order_id in due:
        order = result.books[position_id].orders.get(client_order_id)
        if order is not None and _take_step(result, order, known.watched.get(client_order_id, frozenset()), sender):
            to_conclude[position_id] = None
    conclude_all(result, to_conclude)
    return result


def _take_step(result: DueResult, order: Order, watched: Set[int], sender: Sender) -> bool:
    """Whether the order has ended by it, so that its position has to be concluded."""
    now, controls = result.now, result.controls
    assert controls is not None, "they are known"
    step = next_step(result.books[order.position_id], order, controls=controls, now=now, watched=watched)
    match step:
        case SendOrder():
            _claim(result, order, SendKind.SUBMIT, sender)
        case SendCancel():
            _claim(result, order, SendKind.CANCEL, sender)
        case LookUp(absence_counts=counts):
            order = being_looked_up(order, now=now)
            result.put_order(order)
            result.look_ups.append((order, counts))
        case Withdraw():
            result.put_order(withdrawn(order, step))
            result.withdrawn.append((order.client_order_id, step.code))
            result.incidents += [step.incident] if step.incident is not None else []
        case Wait(until=until):
            result.put_order(replace(order, next_send_at=until))
        case GiveUp(until=until, incident=incident):
            result.put_order(replace(order, next_send_at=until))
            result.incidents.append(incident)
        case NothingToDo():
            # A guard against looking again and again at an order whose status lags behind its facts.
            result.put_order(replace(order, next_send_at=now + LOOKED_AT_AGAIN))
        case _:
            assert_never(step)
    return isinstance(step, Withdraw)


def _claim(result: DueResult, order: Order, kind: SendKind, sender: Sender) -> None:
    """Without a free slot the order stays due, or waits for the circuit breaker, or for its turn among the calls."""
    if sender.claim(result, order, kind):
        return
    wait_s = min(sender.turns.wait_s(kind, ahead=result.waiting), FARTHEST.total_seconds())
    result.waiting += 1
    if wait_s > 0:
        result.put_order(replace(order, next_send_at=result.now + timedelta(seconds=wait_s)))
