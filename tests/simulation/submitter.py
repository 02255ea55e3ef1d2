"""The order-submitter: the decisions are the real ones, the shells around them have the seams where things go wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from typing import ClassVar, Final, TypeVar

from closeflow.broker.protocol import IdDeduplication
from closeflow.domain.batch import BatchResult
from closeflow.domain.close import due_orders
from closeflow.domain.close import plan_batch as planning
from closeflow.domain.close.plan_order import Asked, Market
from closeflow.domain.market_data import MarketClock, Quote
from closeflow.domain.model import Event, Order, Send, SendKind
from closeflow.domain.outbox.payloads import SubmitOrderPayload
from closeflow.domain.sending import absence
from closeflow.domain.sending.broker_answers import Acknowledged, LookUpAnswer, NotFound
from closeflow.domain.sending.claim import Sender
from order_submitter.look_up import Watch
from order_submitter.sending.breaker import CLOSED, Breaker, BreakerState, admitted
from tests.simulation.broker import Exchange
from tests.simulation.core import ABSENT_FOR, BREAKER, LEASE_S, POLICY, RULES, VISIBLE_WITHIN_S
from tests.simulation.database import CommitUnknown, Disconnected, Tx
from tests.simulation.faults import Crashed, Fault
from tests.simulation.jobs import Job
from tests.simulation.log import Consumer, Group
from tests.simulation.process import DATABASE_ERRORS, KafkaAway, Process
from tests.simulation.queries import due_orders as orders_due
from tests.simulation.sends import step

CONSUMER: Final = "order-submitter"
IN_FLIGHT: Final = 4
R = TypeVar("R", bound=BatchResult | None)


@dataclass(slots=True)
class Question:
    """A look-up under way: asked, then answered by what the broker saw at some moment, then concluded from."""

    client_order_id: str
    position_id: int | None
    answer: LookUpAnswer | None = None
    asked: absence.Asked | None = None
    """The broker's own evidence, once nothing else is missing."""


@dataclass(slots=True, kw_only=True)
class Submitter(Process):
    """It gives its claims their turns itself (`closeflow.domain.sending.claim.Turns`)."""

    AT_ONCE: ClassVar[int] = 4
    group: Group[Event]
    consumer: Consumer[Event] = field(init=False)
    watch: Watch = field(init=False)
    jobs: list[Job] = field(init=False)
    questions: dict[str, Question] = field(init=False)
    breaker: Breaker = field(init=False)
    reserved: int = 0
    waiting_since: float | None = field(init=False)
    seen: set[tuple[str, int]] = field(init=False)

    def start(self) -> None:
        Process.start(self)
        self.consumer = self.group.join(self.name)
        self.watch = Watch(LEASE_S)
        self.jobs, self.questions = [], {}
        self.breaker = CLOSED
        self.waiting_since = None
        self.seen = set()

    @property
    def busy(self) -> bool:
        return bool(self.jobs or self.questions or self.consumer.batch)

    @property
    def sender(self) -> Sender:
        return Sender(instance_id=self.instance_id, lease_s=LEASE_S, turns=self)

    def reserve(self, kind: SendKind) -> bool:
        if sum(not one.not_sent for one in self.jobs) + self.reserved >= IN_FLIGHT:
            return False
        if kind is SendKind.SUBMIT:
            if self.breaker.resumes_at(self.monotonic()) is not None:
                return False
            self.breaker = admitted(self.breaker, now=self.monotonic(), rules=BREAKER)
        self.reserved += 1
        return True

    @property
    def probing(self) -> bool:
        return self.breaker.state is not BreakerState.CLOSED

    def wait_s(self, kind: SendKind, *, ahead: int) -> float:
        return 0.0 if kind is SendKind.CANCEL else self.plans_resume_in_s() or 0.0

    def plans_resume_in_s(self) -> float | None:
        resumes_at = self.breaker.resumes_at(self.monotonic())
        return None if resumes_at is None else resumes_at - self.monotonic()

    def claiming(self, decide: Callable[[Tx], R]) -> R:
        """A transaction that writes what is decided and may claim sends: they start once it has committed, and are
        marked as not sent when it may have. Raises what the database does."""
        checked_at, sends = self.monotonic(), list[tuple[Order, Send]]()

        def work(tx: Tx) -> R:
            decided = decide(tx)
            if decided is not None:
                tx.save(decided, consumer=CONSUMER)
                sends.extend(decided.claimed)
            return decided

        self.reserved = 0
        try:
            decided = self.around.database.transact(work)
        except CommitUnknown:
            self.jobs += [Job(order, send, checked_at, not_sent=True) for order, send in sends]
            raise
        finally:
            self.reserved = 0
        self.may_crash()
        self.jobs += [Job(order, send, checked_at) for order, send in sends]
        return decided

    def process_batch(self) -> bool:
        """As `Planner.plan_batch`; what cannot be seen yet keeps the batch in hand until it is given up."""
        began = self.monotonic()
        try:
            planned = self.claiming(self._plan)
        except CommitUnknown:
            return True
        except Disconnected:
            raise Crashed from None
        if planned.invisible:
            self.around.faults.saw(Fault.CDC_EARLY)
            self.waiting_since = began if self.waiting_since is None else self.waiting_since
            if began - self.waiting_since < VISIBLE_WITHIN_S:
                return True
        self.waiting_since = None
        self.group.has_processed(self.consumer)
        return True

    def _plan(self, tx: Tx) -> planning.PlansResult:
        records = [(entry.value.event_id, _asked(entry.value)) for entry in self.consumer.batch]
        books = tx.lock_books(request_ids={asked.close_request_id for _, asked in records})
        market = self._market({asked.symbol for _, asked in records})
        known = planning.Known(books=books, controls=tx.controls, now=tx.now, market=market)
        return planning.plan_batch(known, records, sender=self.sender, rules=RULES, policy=POLICY)

    def _market(self, symbols: set[str]) -> Market:
        faults, now, price = self.around.faults, self.around.database.now(), self.around.exchange.price
        is_open = not faults.happens(Fault.MARKET_CLOSED)
        clock = MarketClock(is_open=is_open, next_open=now + timedelta(seconds=20), at=now)
        bid, ask = Decimal(price - 1), Decimal(price + 1)
        quoted = [one for one in sorted(symbols) if not faults.happens(Fault.NO_QUOTE)]
        return Market(clock=clock, quotes={one: Quote(symbol=one, bid=bid, ask=ask, at=now) for one in quoted})

    def attend(self) -> bool:
        """As `DueOrderPoller.attend_once`."""
        due = orders_due(self.around.database)
        if not due:
            return False
        try:
            attended = self.claiming(lambda tx: self._attend(tx, due))
        except CommitUnknown:
            # The process stops: its drain records that these were not sent, if it lives to do so.
            self.may_crash()
            return True
        except Disconnected:
            raise Crashed from None
        for order, counts in attended.look_ups:
            self.ask(order.client_order_id, order.position_id if counts else None)
        return True

    def _attend(self, tx: Tx, due: Sequence[Order]) -> due_orders.DueResult:
        ids = {one.position_id for one in due}, {one.close_request_id for one in due}
        books = tx.lock_books(position_ids=ids[0], request_ids=ids[1])
        watched = {one.client_order_id: self.watch.silent(one.client_order_id, now=self.monotonic()) for one in due}
        known = due_orders.Known(books=books, controls=tx.controls, now=tx.now, watched=watched)
        named = [(one.position_id, one.client_order_id) for one in due]
        return due_orders.attend(known, named, sender=self.sender, policy=POLICY)

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
                self.watch.found(question.client_order_id)
                try:
                    self.around.publish(update)
                except KafkaAway:
                    return True
            case NotFound() if question.position_id is not None:
                self._note_absence(question)
            case _:
                pass
        return True

    def _note_absence(self, question: Question) -> None:
        """As `Recovery._note_absence`, with other steps between its two halves."""
        try:
            decided = self.claiming(lambda tx: self._judge(tx, question))
        except DATABASE_ERRORS:
            return
        if decided is not None and decided.to_ask is not None:
            asked = gather(self.around.exchange, decided.to_ask, tx=self.around.database.read())
            self.questions[question.client_order_id] = replace(question, asked=asked)
        if decided is not None and decided.claimed and question.asked is not None:
            self.around.faults.saw(Fault.SENT_AGAIN)

    def _judge(self, tx: Tx, question: Question) -> absence.AbsenceResult | None:
        assert question.position_id is not None, "only then a not-found counts"
        book = tx.lock_books(position_ids=[question.position_id])[question.position_id]
        order = book.orders.get(question.client_order_id)
        if order is None:
            return None
        exited, now = self.around.database.exited, self.monotonic()
        rules = absence_rules(self.around.exchange)
        closing = {one.sender for one in order.sends} if rules.refuses_to_exceed else ()
        return absence.decide_not_found(
            book,
            order,
            asked=question.asked,
            known=absence.Known(exited=exited, says_it_closes=closing, expected=book.position.quantity),
            controls=tx.controls,
            now=tx.now,
            watched=self.watch.silent(order.client_order_id, now=now),
            absent_s=lambda: self.watch.absent_s(order, exited, now=now),
            sender=self.sender,
            rules=rules,
        )

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


def absence_rules(exchange: Exchange) -> absence.AbsenceRules:
    forgets_no_id = exchange.deduplication is IdDeduplication.FOREVER
    enforced = exchange.refuses_to_exceed
    return absence.AbsenceRules(within=ABSENT_FOR, forgets_no_id=forgets_no_id, refuses_to_exceed=enforced)


def gather(exchange: Exchange, order: Order, *, tx: Tx) -> absence.Asked:
    """As `closeflow.broker.evidence.gather`."""
    listed = (one for one in exchange.executions() if one.client_order_id == order.client_order_id)
    executions = tuple(one.exec_id or "" for one in listed)
    answer, held = exchange.look_up(order.client_order_id), exchange.quantities[order.symbol]
    looked_up = None if isinstance(answer, NotFound) else type(answer).__name__
    return absence.Asked(order=order, at=tx.now, looked_up=looked_up, executions=executions, held=held)


def _asked(message: Event) -> Asked:
    """As the planner's, from the payload that was published."""
    said = message.payload
    assert isinstance(said, SubmitOrderPayload)
    return Asked(
        close_request_id=said.close_request_id,
        attempt=said.attempt,
        position_id=said.position_id,
        account_id=said.account_id,
        symbol=said.symbol,
        side=said.side,
    )
