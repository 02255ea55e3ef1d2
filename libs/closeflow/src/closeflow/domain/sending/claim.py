"""A send is claimed before it is made, so that nobody else makes it: its number, its lease, and what answers it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from closeflow.domain.batch import BatchResult
from closeflow.domain.frozen import replace
from closeflow.domain.model import Order, OrderStatus, Send, SendKind
from closeflow.domain.orders import status as order_status
from closeflow.domain.retry import look_up_again_at
from closeflow.domain.sending.send_check import Withdraw

FENCE_CAP_S: Final = 1.0


class Turns(Protocol):
    """When the process that makes the sends has room for another one."""

    def reserve(self, kind: SendKind) -> bool:
        """Take a free slot and the turn of a call, for a send that is claimed next. False when there is none."""

    @property
    def probing(self) -> bool:
        """Whether the order that was reserved last is the probe of an open circuit breaker."""

    def wait_s(self, kind: SendKind, *, ahead: int) -> float:
        """After how many seconds a send may have its turn, with so many waiting before it; 0 when that is not known."""

    def plans_resume_in_s(self) -> float | None:
        """Set while no new order may be planned, because none could be sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """The instance that claims sends. A claim is its own for `lease_s` seconds."""

    instance_id: str
    lease_s: float
    turns: Turns

    def claim(self, result: BatchResult, order: Order, kind: SendKind) -> bool:
        """Put the order's next send of a kind into the result, if it has its turn now."""
        if not self.turns.reserve(kind):
            return False
        probe = kind is SendKind.SUBMIT and self.turns.probing
        by = self.instance_id
        result.put_claim(*claim(order, kind, sender=by, now=result.now, lease_s=self.lease_s, probe=probe))
        return True


def next_number(order: Order, kind: SendKind) -> int:
    """The number of the next send of this kind; the first is 1."""
    return max((one.n for one in order.sends if one.kind is kind), default=0) + 1


def claim(
    order: Order, kind: SendKind, *, sender: str, now: datetime, lease_s: float, probe: bool = False
) -> tuple[Order, Send]:
    """The order with the next send of a kind, and that send. Somebody looks at the order again when the lease is over;
    not-founds counted before it prove nothing about it."""
    lease_until = now + timedelta(seconds=lease_s)
    n = next_number(order, kind)
    send = Send(kind=kind, n=n, sender=sender, lease_until=lease_until, started_at=now, probe=probe)
    absent = 0 if kind is SendKind.SUBMIT else order.not_found_count
    return replace(order, next_send_at=lease_until, not_found_count=absent), send


def fence_s(lease_s: float) -> float:
    """How old a check may be when its send begins."""
    return min(lease_s / 3, FENCE_CAP_S)


def with_send(order: Order, send: Send) -> Order:
    """The order with this send among its facts."""
    return replace(order, sends=(*order.sends, send))


def being_looked_up(order: Order, *, now: datetime) -> Order:
    """O4 for an order of which nothing is known although it was sent, whatever the answer that was not followed by the
    broker's word; and when to ask again if this look-up tells nothing."""
    unknown = order_status.sends_that_count(order) > 0 and order.status is OrderStatus.PLANNED
    return replace(
        order,
        status=OrderStatus.SUBMIT_UNKNOWN if unknown else order.status,
        next_send_at=look_up_again_at(order, now=now),
    )


def withdrawn(order: Order, why: Withdraw) -> Order:
    """O2: denied by the check before the wire; the broker cannot have seen it."""
    return replace(
        order, status=OrderStatus.DENIED, reject_code=why.code, reject_class=why.reject_class, next_send_at=None
    )


def not_found(order: Order, *, now: datetime) -> Order:
    """After an explicit not-found: counted as evidence of absence once the lease of every send that counts is over."""
    over = all(one.lease_until <= now for one in order_status.submits(order) if one.counts)
    return replace(
        order,
        not_found_count=order.not_found_count + over,
        next_send_at=look_up_again_at(order, now=now),
    )
