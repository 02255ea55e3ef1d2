"""The broker: what it has accepted and done, apart from what it says of it (`reports`) and when that arrives."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final
from uuid import UUID

from closeflow.broker.protocol import IdDeduplication
from closeflow.domain.ids import parse_client_order_id
from closeflow.domain.model import ZERO, BrokerStatus, BrokerUpdate, ExecType, RejectClass, Side, UpdateSource
from closeflow.domain.sending.broker_answers import (
    Acknowledged,
    CancelAccepted,
    CancelAnswer,
    CancelRefused,
    DuplicateId,
    LookUpAnswer,
    NotAccepted,
    NotFound,
    Refused,
    SubmitAnswer,
    Unanswered,
)
from closeflow.domain.sending.ticket import Ticket
from tests.simulation import reports
from tests.simulation.clock import START, Clock
from tests.simulation.core import VISIBILITY_LAG_S
from tests.simulation.faults import Fault, Faults, Violation
from tests.simulation.reports import BrokerOrder, Fill

LIVE: Final = frozenset(
    {
        BrokerStatus.NEW,
        BrokerStatus.PARTIALLY_FILLED,
        BrokerStatus.PENDING_CANCEL,
        BrokerStatus.SUSPENDED,
        BrokerStatus.DONE_FOR_DAY,
    }
)
_WORKING: Final = frozenset({BrokerStatus.NEW, BrokerStatus.PARTIALLY_FILLED})
CALMLY: Final = (BrokerStatus.CANCELED, BrokerStatus.EXPIRED)
REFUSALS: Final = (
    Refused("market_closed", RejectClass.RETRYABLE, "the market is closed"),
    Refused("price_band", RejectClass.RETRYABLE, "outside of the price band"),
    Refused("restricted", RejectClass.TERMINAL, "the asset is restricted"),
)
UNMAPPED: Final = Refused("40310099", RejectClass.TERMINAL, "something new", mapped=False)
REPEATED: Final = Refused("insufficient_qty", RejectClass.TERMINAL, "insufficient qty available for order")


@dataclass(slots=True)
class Exchange:
    """`quantities` are the account's positions by symbol; `stream` is what was said and not yet delivered."""

    clock: Clock
    faults: Faults
    deduplication: IdDeduplication
    style: reports.Style
    refuses_to_exceed: bool = False
    """Whether it refuses what exceeds the position, its live orders counted; every order says that it closes."""
    quantities: defaultdict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    orders: list[BrokerOrder] = field(default_factory=list)
    stream: list[BrokerUpdate] = field(default_factory=list)
    reversed: set[str] = field(default_factory=set)
    """Orders that executions were taken back from or changed of: what we know of them may be too much for a while."""
    told_at: datetime = START
    price: int = 100
    named: int = 0

    def now(self) -> datetime:
        now = self.clock.now("broker")
        if self.style.reverses:
            now = self.told_at = max(now, self.told_at + timedelta(microseconds=1))
        return now

    def live(self) -> Iterator[BrokerOrder]:
        return (one for one in self.orders if one.status in LIVE)

    def named_by(self, client_order_id: str) -> list[BrokerOrder]:
        return [one for one in self.orders if one.ticket.client_order_id == client_order_id]

    def submit(self, ticket: Ticket) -> SubmitAnswer:
        """What the broker does with an order that has reached it, and what it answers."""
        faults = self.faults
        if faults.happens(Fault.RATE_LIMITED):
            return NotAccepted("429", 2.0)
        if faults.happens(Fault.KEY_REFUSED):
            return NotAccepted("401", None, credentials=True)
        if faults.happens(Fault.SERVER_ERROR):
            return Unanswered("500")
        known = self.named_by(ticket.client_order_id)
        if known and faults.happens(Fault.REPEAT_REFUSED):
            return REPEATED
        forever = self.deduplication is IdDeduplication.FOREVER
        open_now = self.deduplication is IdDeduplication.WHILE_OPEN and any(one.status in LIVE for one in known)
        if known and (forever or open_now):
            faults.saw(Fault.DUPLICATE_ID)
            return DuplicateId()
        if self.refuses_to_exceed and self._exceeds(ticket):
            faults.saw(Fault.EXCESS_REFUSED)
            return REPEATED
        if faults.happens(Fault.REFUSED):
            return faults.random.choice(REFUSALS)
        if faults.happens(Fault.UNMAPPED):
            return UNMAPPED
        return self._accept(ticket)

    def _exceeds(self, ticket: Ticket) -> bool:
        leaves = sum((one.leaves for one in self.live() if one.ticket.symbol == ticket.symbol), ticket.quantity)
        held = self.quantities[ticket.symbol]
        return leaves > (held if ticket.side is Side.SELL else -held)

    def _accept(self, ticket: Ticket) -> SubmitAnswer:
        self.named += 1
        order = BrokerOrder(f"b-{self.named}", ticket, visible_at=self.clock.elapsed)
        if self.faults.strikes(Fault.NOT_VISIBLE):
            order.visible_at += self.faults.random.uniform(0, VISIBILITY_LAG_S)
        self.orders.append(order)
        self._check_oversell(ticket)
        self._say(order, ExecType.NEW)
        if self.faults.happens(Fault.REJECTED_LATER):
            self._end(order, BrokerStatus.REJECTED)
        return Acknowledged(self.statement(order, UpdateSource.SUBMIT))

    def _check_oversell(self, ticket: Ticket) -> None:
        """Invariants 2, 3 and 7 where they count: at the broker."""
        named = self.named_by(ticket.client_order_id)
        if len(named) > 1:
            raise Violation(f"7 deterministic id: the broker has {len(named)} orders named {ticket.client_order_id}")
        live = [one for one in self.live() if one.ticket.symbol == ticket.symbol]
        together = [one for one in live if _request_of(one) == _request_of(live[-1])]
        if len(together) > 1:
            raise Violation(f"3 one live: {[one.ticket.client_order_id for one in live]} live together at the broker")
        leaves = sum((one.leaves for one in live), ZERO)
        held = self.quantities[ticket.symbol]
        if leaves > abs(held) or (held > ZERO) is not (ticket.side is Side.SELL):
            raise Violation(f"2 no oversell: {ticket.side} {leaves} of {ticket.symbol} live, {held} held")

    def fill(self, order: BrokerOrder, quantity: Decimal) -> None:
        self.named += 1
        if order.cancel_asked:
            self.faults.saw(Fault.CANCEL_RACE)
        order.cum += quantity
        order.seq += 1
        order.status = BrokerStatus.FILLED if order.leaves == ZERO else BrokerStatus.PARTIALLY_FILLED
        price = Decimal(self.price + self.faults.random.randint(-3, 3))
        while any((one.cum, one.quantity, one.price) == (order.cum, quantity, price) for one in order.fills):
            price += 1  # Two fills that are alike in all their figures nothing tells apart but their names (R3a).
        fill = Fill(f"e-{self.named}", f"a-{self.named}", quantity, price, order.cum, self.now())
        self._book(order, fill, quantity)

    def _book(self, order: BrokerOrder, fill: Fill, moved: Decimal) -> None:
        order.fills.append(fill)
        self.quantities[order.ticket.symbol] += moved if order.ticket.side is Side.BUY else -moved
        self.stream.append(reports.trade(order, fill, self.style, at=fill.at))

    def reverse(self, order: BrokerOrder, fill: Fill, quantity: Decimal, *, revive: bool) -> None:
        """Bust the fill, or correct it to another quantity and price. As the broker-simulator's `reversals`: an order
        that is over stays over, `filled` becoming `canceled`, unless it is to live again."""
        self.named += 1
        kind = ExecType.TRADE_CORRECT if quantity else ExecType.TRADE_CANCEL
        self.faults.saw(Fault.CORRECTED if quantity else Fault.BUSTED)
        moved = quantity - fill.quantity
        order.cum += moved
        order.seq += 1
        if order.leaves == ZERO:
            order.status = BrokerStatus.FILLED
        elif order.status in _WORKING or (order.status is BrokerStatus.FILLED and revive):
            if order.status is BrokerStatus.FILLED and order.cancel_asked:
                order.cancel_asked, order.cancel_refused = False, True
            order.status = BrokerStatus.PARTIALLY_FILLED if order.cum else BrokerStatus.NEW
        elif order.status is BrokerStatus.FILLED:
            order.status = BrokerStatus.CANCELED
        price = Decimal(self.price + self.faults.random.randint(-3, 3))
        fill.replaced = True
        self.reversed.add(order.ticket.client_order_id)
        names = f"e-{self.named}", f"a-{self.named}"
        self._book(order, Fill(*names, quantity, price, order.cum, self.now(), kind, fill), moved)

    def cancel(self, broker_order_id: str) -> CancelAnswer:
        order = next((one for one in self.orders if one.broker_order_id == broker_order_id), None)
        if self.faults.happens(Fault.SERVER_ERROR):
            return Unanswered("500")
        if order is None:
            return NotFound()
        if order.status not in LIVE:
            return CancelRefused("not open")
        if self.faults.happens(Fault.CANCEL_REFUSED):
            order.cancel_refused = True
            self._say(order, ExecType.CANCEL_REJECTED)
            return CancelRefused("too late to cancel")
        order.cancel_asked = True
        if self.faults.random.random() < 0.5:
            order.seq += 1
            order.status = BrokerStatus.PENDING_CANCEL
            self._say(order, ExecType.PENDING_CANCEL)
        return CancelAccepted()

    def end(self, order: BrokerOrder) -> None:
        """The outcome of a cancel; without one, the broker's own end of a live order."""
        if not order.cancel_asked:
            self.faults.saw(Fault.CANCELED_UNASKED)
        status = BrokerStatus.CANCELED if order.cancel_asked else self.faults.random.choice(CALMLY)
        self._end(order, status)

    def pause(self, order: BrokerOrder) -> None:
        self.faults.saw(Fault.PAUSED_ORDER)
        order.seq += 1
        order.status = self.faults.random.choice((BrokerStatus.SUSPENDED, BrokerStatus.DONE_FOR_DAY))
        self._say(order, ExecType(order.status.value))

    def resume(self, order: BrokerOrder) -> None:
        order.seq += 1
        order.status = BrokerStatus.PARTIALLY_FILLED if order.cum else BrokerStatus.NEW
        self._say(order, ExecType.ORDER_STATUS)

    def _end(self, order: BrokerOrder, status: BrokerStatus) -> None:
        order.status = status
        order.seq += 1
        self._say(order, ExecType(status.value), without_quantity=self.faults.happens(Fault.NO_QUANTITY))

    def _say(self, order: BrokerOrder, exec_type: ExecType, *, without_quantity: bool = False) -> None:
        at = self.now()
        self.stream.append(reports.event(order, exec_type, self.style, at=at, without_quantity=without_quantity))

    def statement(self, order: BrokerOrder, source: UpdateSource) -> BrokerUpdate:
        return reports.statement(order, self.style, source=source, at=self.now())

    def look_up(self, client_order_id: str, source: UpdateSource = UpdateSource.QUERY) -> LookUpAnswer:
        if self.faults.happens(Fault.LOOK_UP_FAILED):
            return Unanswered("time-out")
        named = self.named_by(client_order_id)
        visible = [one for one in named if one.visible_at <= self.clock.elapsed]
        if named and not visible:
            self.faults.saw(Fault.NOT_VISIBLE)
        return Acknowledged(self.statement(visible[-1], source)) if visible else NotFound()

    def hidden(self) -> set[str]:
        """The ids that were taken and that no look-up finds yet."""
        return {one.ticket.client_order_id for one in self.orders if one.visible_at > self.clock.elapsed}

    def executions(self) -> list[BrokerUpdate]:
        """Every execution that may be listed by now, oldest first."""
        at = self.now()
        listed = [
            (fill.at, reports.activity(order, fill, self.style, at=at)) for order in self.orders for fill in order.fills
        ]
        return [update for _, update in sorted(listed, key=lambda one: one[0])]


def _request_of(order: BrokerOrder) -> UUID:
    ours = parse_client_order_id(order.ticket.client_order_id)
    if ours is None:
        raise Violation(f"7 deterministic id: {order.ticket.client_order_id} is no id of ours")
    return ours[0]
