"""PostgreSQL as its users see it: transactions that commit whole or not at all, and may end without saying which.

Steps of the simulation are atomic, so no two transactions overlap and the locks of rule R7 need no modelling.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TypeVar
from uuid import UUID

from closeflow.domain.account_limits import AccountLimits
from closeflow.domain.batch import BatchResult
from closeflow.domain.model import (
    Book,
    CloseRequest,
    Event,
    Incident,
    Order,
    OrderStatus,
    Position,
    Send,
    SendAnswer,
    SendKind,
    Topic,
)
from closeflow.domain.orders import status as order_status
from closeflow.domain.outbox.publication_audit import EventKey, OutboxRow
from closeflow.domain.trading_controls import Controls, TradingState, counted
from closeflow.domain.transitions import IllegalMove, illegal_moves
from closeflow.storage.order_sends import Answered
from tests.simulation.clock import Clock
from tests.simulation.core import ACCOUNT
from tests.simulation.faults import Fault, Faults, Violation

T = TypeVar("T")
FINISHED = frozenset(
    {
        OrderStatus.DENIED,
        OrderStatus.LOST,
        OrderStatus.FILLED,
        OrderStatus.CANCELED,
        OrderStatus.EXPIRED,
        OrderStatus.REJECTED,
    }
)


TRANSACTION_S = 0.000_001
"""No two transactions have one time, because none is over in less."""
WIDE = AccountLimits(max_order_quantity=Decimal(1000), max_order_notional=Decimal(1_000_000), submits_per_minute=100)


ClaimKey = tuple[str, SendKind, int, str, datetime]


def claim_key(client_order_id: str, send: Send | Answered) -> ClaimKey:
    """What tells a claim from every other, also from one of the same number."""
    return client_order_id, send.kind, send.n, send.sender, send.started_at


class CommitUnknown(Exception):
    """The connection was lost inside COMMIT."""


class Disconnected(Exception):
    """The connection was lost before COMMIT: nothing was written."""


@dataclass(frozen=True, slots=True)
class Row:
    """An outbox row in the order of the commits."""

    judged: OutboxRow
    event: Event


def answered(client_order_id: str, send: Send, answer: SendAnswer, again_in_s: float | None = None) -> Answered:
    return Answered(
        client_order_id=client_order_id,
        kind=send.kind,
        n=send.n,
        sender=send.sender,
        started_at=send.started_at,
        answer=answer,
        again_in_s=again_in_s,
    )


@dataclass(slots=True)
class Tx:
    """What one transaction has read and wants to write. Mirrors the functions of `closeflow.storage`."""

    database: Database
    now: datetime
    by_hand: bool = False
    """An operator's, whom market hours and the kill switch do not hold back from a retry."""
    changes: list[tuple[Book, Book]] = field(default_factory=list)
    sends: list[tuple[Order, Send]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    incidents: list[Incident] = field(default_factory=list)
    receipts: dict[tuple[str, UUID], str] = field(default_factory=dict)
    answers: list[Answered] = field(default_factory=list)
    begun: set[ClaimKey] = field(default_factory=set)
    closed: list[tuple[str, Collection[str]]] = field(default_factory=list)

    def lock_books(self, *, position_ids: Collection[int] = (), request_ids: Collection[UUID] = ()) -> dict[int, Book]:
        """As `books.lock_books`: with an order left out that is neither of a loaded request nor to_conclude."""
        stored = self.database
        wanted = {stored.position_of[one] for one in request_ids if one in stored.position_of} | set(position_ids)
        for position_id in wanted:
            stored.show(position_id)
        return {one: _loaded(stored.books[one], request_ids) for one in sorted(wanted) if one in stored.books}

    def save(self, result: BatchResult, *, consumer: str = "") -> None:
        """As `closeflow.unit_of_work.save`."""
        refused: list[IllegalMove] = [move for change in result.changes for move in illegal_moves(*change)]
        if refused:
            raise Violation(f"9 no regress: {'; '.join(map(str, refused))}")
        self.changes += result.changes
        self.sends += result.claimed
        self.events += result.events
        self.incidents += result.incidents
        self.receipts |= {(consumer, event_id): outcome for event_id, outcome in result.outcomes.items()}

    @property
    def controls(self) -> Controls:
        """As `controls.lock_controls`, with what this transaction has claimed."""
        stored = self.database
        controls = Controls(account_id=ACCOUNT, state=stored.trading, limits=stored.limits)
        for _ in self.submits():
            controls = counted(controls, now=self.now)
        return controls

    def submits(self) -> list[Send]:
        return [send for _, send in self.sends if send.kind is SendKind.SUBMIT]

    def close_incidents(self, kind: str, *, still: Collection[str]) -> None:
        self.closed.append((kind, still))


def _loaded(book: Book, request_ids: Collection[UUID]) -> Book:
    requests = {
        one.id: one
        for one in book.requests.values()
        if one.unfinished or one.frozen_reason is not None or one.id in request_ids
    }
    orders = {
        one.client_order_id: one
        for one in book.orders.values()
        if one.close_request_id in requests or one.status not in FINISHED or not order_status.is_named(one)
    }
    return replace(book, requests=requests, orders=orders, ledger_quantity=ledger(book))


def ledger(book: Book) -> Decimal:
    """As `books._FACTS`: the base and what each order has executed, which was derived when it was written."""
    moved = (order_status.signed(one.side, one.executed_quantity) for one in book.orders.values())
    return sum(moved, book.base_quantity)


@dataclass(slots=True)
class Database:
    """`books` hold everything ever written; `wal` the outbox rows. `committed` is told of every commit."""

    clock: Clock
    faults: Faults
    committed: Callable[[Mapping[int, Book], Tx], None]
    books: dict[int, Book] = field(default_factory=dict)
    position_of: dict[UUID, int] = field(default_factory=dict)
    hidden: dict[UUID, int] = field(default_factory=dict)
    """Requests whose commit is in the log and not yet visible to a reader."""
    taken: dict[tuple[str, str, str], str] = field(default_factory=dict)
    inbox: dict[tuple[str, UUID], str] = field(default_factory=dict)
    wal: list[Row] = field(default_factory=list)
    emitted: set[EventKey] = field(default_factory=set)
    incidents: dict[tuple[str, str], Incident] = field(default_factory=dict)
    """The open ones, by kind and subject."""
    raised: set[str] = field(default_factory=set)
    """Every kind of incident that was ever opened."""
    begun: set[ClaimKey] = field(default_factory=set)
    """Claims whose first byte may have gone."""
    handed_over: set[ClaimKey] = field(default_factory=set)
    """What the files of the senders' host say, whatever becomes of the senders."""
    exited: dict[str, datetime] = field(default_factory=dict)
    """Senders that a person has seen to be gone, and when that was written."""
    xact: int = 0
    trading: TradingState = TradingState.ACTIVE
    halted_at: float = 0.0
    """True time of the last halt."""
    limits: AccountLimits = WIDE

    def now(self) -> datetime:
        return self.clock.now("database")

    def add_position(self, position: Position) -> None:
        book = Book(position=position, base_quantity=position.quantity, ledger_quantity=position.quantity)
        self.books[position.id] = book

    def show(self, position_id: int) -> None:
        """Who locks the position waits until the commit that holds it is visible."""
        for request_id, hidden in list(self.hidden.items()):
            if hidden == position_id:
                del self.hidden[request_id]
                self.position_of[request_id] = position_id

    def transact(self, work: Callable[[Tx], T]) -> T:
        """Raises `CommitUnknown` or `Disconnected` where the run's faults say so."""
        self.clock.advance(TRANSACTION_S)
        tx = Tx(self, self.now())
        result = work(tx)
        if self.faults.happens(Fault.ROLLED_BACK):
            raise Disconnected
        if self.faults.happens(Fault.COMMIT_LOST):
            raise CommitUnknown
        self._apply(tx)
        if self.faults.happens(Fault.COMMIT_UNHEARD):
            raise CommitUnknown
        return result

    def read(self) -> Tx:
        """A transaction that writes nothing."""
        return Tx(self, self.now())

    def _apply(self, tx: Tx) -> None:
        self.xact += 1
        before = dict(self.books)
        for _, after in tx.changes:
            self._merge(after)
        if tx.submits():
            self.limits = tx.controls.limits or self.limits
        for order, send in tx.sends:
            self._insert_send(order, send)
        for answer in tx.answers:
            self._record(answer)
        self.begun |= tx.begun
        for event in tx.events:
            key = (event.event_id, event.emission)
            if key in self.emitted:
                raise Violation(f"12 once: outbox row {key} is written twice ({event.event_type})")
            self.emitted.add(key)
            self._raise_emission(event)
            self.wal.append(Row(OutboxRow(key, event.position_id, self.xact, tx.now), event))
        self.inbox |= tx.receipts
        for incident in tx.incidents:
            subject = incident.client_order_id or incident.close_request_id or incident.position_id or incident.subject
            self.incidents[(incident.kind, str(subject))] = incident
            self.raised.add(incident.kind)
        for kind, still in tx.closed:
            for one in [key for key in self.incidents if key[0] == kind and key[1] not in still]:
                del self.incidents[one]
        self.committed(before, tx)

    def _raise_emission(self, event: Event) -> None:
        """As `auditing.copy_events`: the request follows an emission that was not its own."""
        book = self.books[event.position_id]
        request = book.requests.get(event.close_request_id) if event.close_request_id else None
        if request is None or event.topic is not Topic.SUBMIT_ORDER or request.attempt != event.attempt:
            return
        if request.emission < event.emission:
            raised = replace(request, emission=event.emission)
            self.books[event.position_id] = replace(book, requests={**book.requests, request.id: raised})

    def _merge(self, after: Book) -> None:
        stored = self.books[after.position.id]
        book = replace(
            stored,
            position=after.position,
            requests={**stored.requests, **after.requests},
            orders={**stored.orders, **after.orders},
        )
        self.books[book.position.id] = replace(book, ledger_quantity=ledger(book))
        for request in after.requests.values():
            if request.id not in self.hidden:
                self.position_of[request.id] = book.position.id
        for order in after.orders.values():
            names = [(one.broker, one.exec_id) for one in order.executions]
            names += [(one.broker, alias) for one in order.executions for alias in order.aliases]
            for broker, exec_id in names:
                owner = self.taken.setdefault((broker, order.account_id, exec_id), order.client_order_id)
                if owner != order.client_order_id:
                    raise Violation(f"12 once: execution {exec_id} is booked on {owner} and {order.client_order_id}")

    def order(self, client_order_id: str) -> Order | None:
        return next((b.orders[client_order_id] for b in self.books.values() if client_order_id in b.orders), None)

    def put_order(self, order: Order) -> None:
        book = self.books[order.position_id]
        self.books[order.position_id] = replace(book, orders={**book.orders, order.client_order_id: order})

    def _insert_send(self, order: Order, send: Send) -> None:
        stored = self.books[order.position_id].orders[order.client_order_id]
        if any((one.kind, one.n) == (send.kind, send.n) for one in stored.sends):
            raise Violation(f"7: send {send.kind} {send.n} of {order.client_order_id} is claimed twice")
        self.put_order(replace(stored, sends=(*stored.sends, send)))

    def claim(self, key: ClaimKey) -> Send | None:
        order = self.order(key[0])
        sends = order.sends if order else ()
        return next((one for one in sends if claim_key(key[0], one) == key), None)

    def _record(self, said: Answered) -> None:
        """As `submitting.record_answers`."""
        order = self.order(said.client_order_id)
        mine = self.claim(claim_key(said.client_order_id, said))
        if order is None or mine is None or mine.answer is not None:
            return
        now = self.now()
        answered = replace(mine, answer=said.answer, answered_at=now)
        order = replace(order, sends=tuple(answered if one is mine else one for one in order.sends))
        unsent = order.status in (OrderStatus.PLANNED, OrderStatus.SUBMIT_UNKNOWN)
        if said.again_in_s is not None and (unsent or order.cancel_requested_at is not None):
            order = replace(order, next_send_at=now + timedelta(seconds=said.again_in_s))
        unknown = said.answer is SendAnswer.UNKNOWN and said.kind is SendKind.SUBMIT
        if unknown and order.status is OrderStatus.PLANNED:
            order = replace(order, status=OrderStatus.SUBMIT_UNKNOWN)
        self.put_order(order)

    def requests(self) -> Iterable[CloseRequest]:
        return (one for book in self.books.values() for one in book.requests.values())

    def orders(self) -> Iterable[Order]:
        return (one for book in self.books.values() for one in book.orders.values())
