"""The order-submitter: mirrors `submit.Planner`, `attend.DueOrderPoller` and `recover.Recovery`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, assert_never
from uuid import UUID

from closeflow.contracts.outbox import event_value
from closeflow.domain.close import plan_order as planning
from closeflow.domain.close.outcome import settle
from closeflow.domain.market_data import MarketClock, Quote
from closeflow.domain.model import Book, Event, Order, OrderStatus, Send, SendKind, Side
from closeflow.domain.operator.declare_lost import Asked
from closeflow.domain.sending.broker_answers import Acknowledged, LookUpAnswer, NotFound
from closeflow.domain.sending.claim import being_looked_up, claim, withdrawn
from closeflow.domain.sending.next_step import GiveUp, LookUp, SendCancel, SendOrder, Settled, Wait
from closeflow.domain.sending.send_check import Clear, Withdraw
from order_submitter.look_up import Watch
from order_submitter.sending.breaker import CLOSED, Breaker, BreakerState, admitted
from tests.simulation.core import BREAKER, LEASE_S, POLICY, RULES, VISIBLE_WITHIN_S
from tests.simulation.database import CommitUnknown, Disconnected, Tx
from tests.simulation.faults import Crashed, Fault
from tests.simulation.jobs import Job
from tests.simulation.keeping import keep
from tests.simulation.log import Consumer, Entry, Group
from tests.simulation.process import KafkaAway, Process
from tests.simulation.queries import due_orders
from tests.simulation.recovering import gather, note_absence
from tests.simulation.sends import step

CONSUMER: Final = "order-submitter"
IN_FLIGHT: Final = 4
BATCH: Final = 4


@dataclass(slots=True)
class Question:
    """A look-up under way: asked, then answered by what the broker saw at some moment, then concluded from."""

    client_order_id: str
    position_id: int | None
    answer: LookUpAnswer | None = None
    asked: Asked | None = None
    """The broker's own evidence, once nothing else is missing."""


@dataclass(slots=True, kw_only=True)
class Submitter(Process):
    group: Group[Event]
    consumer: Consumer[Event] = field(init=False)
    watch: Watch = field(init=False)
    jobs: list[Job] = field(init=False)
    questions: dict[str, Question] = field(init=False)
    breaker: Breaker = field(init=False)
    waiting_since: float | None = field(init=False)
    seen: set[tuple[str, int]] = field(init=False)
    absent_since: dict[str, tuple[tuple[int, frozenset[str]], float]] = field(init=False)

    def start(self) -> None:
        Process.start(self)
        self.consumer = self.group.join(self.name)
        self.watch = Watch(LEASE_S)
        self.jobs, self.questions = [], {}
        self.breaker = CLOSED
        self.waiting_since = None
        self.seen, self.absent_since = set(), {}

    def reserve(self, tx: Tx, kind: SendKind) -> bool:
        """As `SenderPool.reserve`; the send that is then claimed takes the slot."""
        if sum(not one.disowned for one in self.jobs) + len(tx.sends) >= IN_FLIGHT:
            return False
        if kind is SendKind.SUBMIT:
            if self.breaker.resumes_at(self.monotonic()) is not None:
                return False
            self.breaker = admitted(self.breaker, now=self.monotonic(), rules=BREAKER)
        return True

    def claim(self, tx: Tx, order: Order, kind: SendKind) -> Order:
        probe = kind is SendKind.SUBMIT and self.breaker.state is not BreakerState.CLOSED
        order, send = claim(order, kind, sender=self.instance_id, now=tx.now, lease_s=LEASE_S, probe=probe)
        tx.sends.append((order, send))
        return order

    def start_jobs(self, sends: list[tuple[Order, Send]], checked_at: float) -> None:
        self.may_crash()
        self.jobs += [Job(order, send, checked_at) for order, send in sends]

    def mark_not_sent(self, sends: list[tuple[Order, Send]], checked_at: float) -> None:
        """As `SenderPool.mark_not_sent`: they may be claimed in the database, and will never be made."""
        self.jobs += [Job(order, send, checked_at, disowned=True) for order, send in sends]

    def plan_batch(self) -> bool:
        """As `Planner.plan_batch`; what cannot be seen yet keeps the batch in hand until it is given up."""
        database, consumer = self.around.database, self.consumer
        sends: list[tuple[Order, Send]] = []
        checked_at = self.monotonic()

        def work(tx: Tx) -> list[Entry[Event]]:
            invisible = self._fold(tx, consumer.batch)
            sends.extend(tx.sends)
            return invisible

        try:
            invisible = database.transact(work)
        except CommitUnknown:
            self.mark_not_sent(sends, checked_at)
            return True
        except Disconnected:
            raise Crashed from None
        self.start_jobs(sends, checked_at)
        if invisible:
            self.around.faults.saw(Fault.CDC_EARLY)
            self.waiting_since = checked_at if self.waiting_since is None else self.waiting_since
            if checked_at - self.waiting_since < VISIBLE_WITHIN_S:
                return True
        self.waiting_since = None
        self.group.has_processed(consumer)
        return True

    def _fold(self, tx: Tx, records: list[Entry[Event]]) -> list[Entry[Event]]:
        before = tx.lock_books(request_ids=set(map(_request_id, records)))
        books = dict(before)
        position_of = {request_id: book.position.id for book in before.values() for request_id in book.requests}
        unsettled: dict[int, None] = {}
        invisible: list[Entry[Event]] = []
        for record in records:
            position_id = position_of.get(_request_id(record))
            if position_id is None:
                invisible.append(record)
                continue
            decided = self._plan_one(tx, books, position_id, record.value)
            if isinstance(decided, planning.Defer | planning.Deny):
                unsettled[position_id] = None
        for position_id in unsettled:
            settled = settle(before[position_id], books[position_id], now=tx.now, policy=POLICY)
            books[position_id] = settled.book
            tx.events += settled.events
            tx.incidents += settled.incidents
        tx.save_books([(before[key], book) for key, book in books.items() if book is not before[key]])
        return invisible

    def _plan_one(self, tx: Tx, books: dict[int, Book], position_id: int, message: Event) -> planning.Plan:
        book, core = books[position_id], self.around.core
        asked = _asked(message)
        market = replace(self._market(asked.symbol), sends_resume_at=self._sends_resume_at(tx))
        decided = core.plan(book, asked, controls=tx.controls, market=market, now=tx.now, rules=RULES)
        book = planning.apply_plan(book, asked.close_request_id, decided, now=tx.now)
        if isinstance(decided, planning.Submit):
            check = core.recheck(book, decided.order, controls=tx.controls, now=tx.now)
            if isinstance(check, Clear) and self.reserve(tx, SendKind.SUBMIT):
                order = self.claim(tx, decided.order, SendKind.SUBMIT)
                book = replace(book, orders={**book.orders, order.client_order_id: order})
        incident = planning.plan_incident(book.requests[asked.close_request_id], decided)
        tx.incidents += [incident] if incident is not None else []
        applied = not isinstance(decided, planning.Defer | planning.Disagrees)
        tx.receipts[(CONSUMER, message.event_id)] = "applied" if applied else "ignored"
        books[position_id] = book
        return decided

    def _sends_resume_at(self, tx: Tx) -> datetime | None:
        """As `SenderPool.resumes_in_s`, counted from the database's time."""
        resumes_at = self.breaker.resumes_at(self.monotonic())
        return None if resumes_at is None else tx.now + timedelta(seconds=resumes_at - self.monotonic())

    def _market(self, symbol: str) -> planning.Market:
        faults, now = self.around.faults, self.around.database.now()
        is_open = not faults.happens(Fault.MARKET_CLOSED)
        clock = MarketClock(is_open=is_open, next_open=now + timedelta(seconds=20), at=now)
        price = self.around.exchange.price
        quotes = {} if faults.happens(Fault.NO_QUOTE) else {symbol: _quote(symbol, price, self)}
        return planning.Market(clock=clock, quotes=quotes)

    def attend(self) -> bool:
        """As `DueOrderPoller.attend_once`."""
        due = due_orders(self.around.database)
        if not due:
            return False
        sends: list[tuple[Order, Send]] = []
        asked: list[tuple[Order, bool]] = []
        checked_at = self.monotonic()

        def work(tx: Tx) -> None:
            self._attend(tx, due, asked)
            sends.extend(tx.sends)

        try:
            self.around.database.transact(work)
        except CommitUnknown:
            # The process stops: its drain records that these were not sent, if it lives to do so.
            self.mark_not_sent(sends, checked_at)
            self.may_crash()
            return True
        except Disconnected:
            raise Crashed from None
        self.start_jobs(sends, checked_at)
        for order, counts in asked:
            self.ask(order.client_order_id, order.position_id if counts else None)
        return True

    def _attend(self, tx: Tx, due: list[Order], asked: list[tuple[Order, bool]]) -> None:
        before = tx.lock_books(
            position_ids={one.position_id for one in due}, request_ids={one.close_request_id for one in due}
        )
        books = dict(before)
        unsettled: dict[int, None] = {}
        for one in due:
            book = books[one.position_id]
            order = self._take_step(tx, book, book.orders[one.client_order_id], asked)
            if order.status is OrderStatus.DENIED:
                unsettled[one.position_id] = None
            books[one.position_id] = replace(book, orders={**book.orders, order.client_order_id: order})
        for position_id in unsettled:
            settled = settle(before[position_id], books[position_id], now=tx.now, policy=POLICY)
            books[position_id] = settled.book
            tx.events += settled.events
            tx.incidents += settled.incidents
        tx.save_books([(before[key], book) for key, book in books.items() if book is not before[key]])

    def _take_step(self, tx: Tx, book: Book, order: Order, asked: list[tuple[Order, bool]]) -> Order:
        now = tx.now
        watched = self.watch.silent(order.client_order_id, now=self.monotonic())
        taken = self.around.core.next_step(book, order, controls=tx.controls, now=now, watched=watched)
        match taken:
            case SendOrder():
                return self._claim_or_wait(tx, order, SendKind.SUBMIT)
            case SendCancel():
                return self._claim_or_wait(tx, order, SendKind.CANCEL)
            case LookUp(absence_counts=counts):
                order = being_looked_up(order, now=now)
                asked.append((order, counts))
                return order
            case Withdraw():
                tx.incidents += [taken.incident] if taken.incident is not None else []
                return withdrawn(order, taken)
            case Wait(until=until):
                return replace(order, next_send_at=until)
            case GiveUp(until=until, incident=incident):
                tx.incidents.append(incident)
                return replace(order, next_send_at=until)
            case Settled():
                return replace(order, next_send_at=now + timedelta(seconds=30))
            case _:
                assert_never(taken)

    def _claim_or_wait(self, tx: Tx, order: Order, kind: SendKind) -> Order:
        if self.reserve(tx, kind):
            return self.claim(tx, order, kind)
        resumes_at = self._sends_resume_at(tx)
        if kind is SendKind.CANCEL or resumes_at is None:
            return order
        return replace(order, next_send_at=resumes_at)

    def ask(self, client_order_id: str, position_id: int | None) -> None:
        self.questions.setdefault(client_order_id, Question(client_order_id, position_id))

    def look_up(self) -> bool:
        """One step of one look-up: ask the broker, or conclude from what it answered a while ago."""
        if not self.questions:
            return False
        question = self.around.faults.random.choice(list(self.questions.values()))
        if question.answer is None:
            question.answer = self.around.exchange.look_up(question.client_order_id)
            return True
        del self.questions[question.client_order_id]
        match question.answer:
            case Acknowledged(update):
                self.absent_since.pop(question.client_order_id, None)
                try:
                    self.around.publish(update)
                except KafkaAway:
                    return True
            case NotFound() if question.position_id is not None:
                order = note_absence(self, question.client_order_id, question.position_id, question.asked)
                if order is not None:
                    self.questions[question.client_order_id] = replace(question, asked=gather(self, order))
            case _:
                pass
        return True

    def keep(self) -> bool:
        return keep(self)

    def send(self) -> bool:
        """One step of one send."""
        if not self.jobs:
            return False
        job = self.around.faults.random.choice(self.jobs)
        before, stage = self.breaker, job.stage
        self.breaker, over = step(self, job, before)
        if over:
            self.jobs.remove(job)
        return over or job.stage is not stage


def _request_id(record: Entry[Event]) -> UUID:
    assert record.value.close_request_id is not None
    return record.value.close_request_id


def _asked(message: Event) -> planning.Asked:
    """As `submit._asked`, from the payload that was published."""
    said = event_value(message)
    return planning.Asked(
        close_request_id=UUID(str(said["close_request_id"])),
        attempt=int(str(said["attempt"])),
        position_id=int(str(said["position_id"])),
        account_id=str(said["account_id"]),
        symbol=str(said["symbol"]),
        side=Side(str(said["side"])),
    )


def _quote(symbol: str, price: int, of: Submitter) -> Quote:
    return Quote(symbol=symbol, bid=Decimal(price - 1), ask=Decimal(price + 1), at=of.around.database.now())
