"""One claimed send: the fence, the call, the evidence, the record, in this order, for every answer of a broker."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from time import monotonic
from typing import cast
from uuid import UUID

import pytest

from closeflow.broker import Broker, MayBegin
from closeflow.domain.batch import BatchResult
from closeflow.domain.ids import broker_update_id, client_order_id
from closeflow.domain.model import (
    BrokerStatus,
    BrokerUpdate,
    ExecType,
    Order,
    OrderStatus,
    OrderType,
    RejectClass,
    Send,
    SendAnswer,
    SendKind,
    Side,
    TimeInForce,
    UpdateSource,
)
from closeflow.domain.sending.broker_answers import (
    Acknowledged,
    CancelAccepted,
    CancelAnswer,
    CancelRefused,
    DuplicateId,
    LookUpAnswer,
    NotAccepted,
    NotFound,
    NotSent,
    Refused,
    SubmitAnswer,
    Unanswered,
)
from closeflow.domain.sending.claim import fence_s
from closeflow.domain.sending.ticket import Ticket
from closeflow.storage.core.engine import CommitUnknown
from order_submitter.sending.breaker import CLOSED, Breaker, BreakerRules, BreakerState
from order_submitter.sending.claims import claiming
from order_submitter.sending.pool import Job, PoolLimits, SenderPool
from order_submitter.sending.send_log import Entry

NOW = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)
ORDER_ID = client_order_id(UUID("01932f4e-8a10-7c3b-9d21-5f0f7e6a1b22"), 1)
STATED = BrokerUpdate(
    event_id=broker_update_id("stated"),
    broker="fake",
    account_id="main",
    symbol="AAPL",
    client_order_id=ORDER_ID,
    broker_order_id="b-1",
    exec_type=ExecType.ORDER_STATUS,
    order_status=BrokerStatus.NEW,
    side=Side.SELL,
    source=UpdateSource.SUBMIT,
    transact_time=NOW,
    received_at=NOW,
)
ORDER = Order(
    client_order_id=ORDER_ID,
    close_request_id=UUID("01932f4e-8a10-7c3b-9d21-5f0f7e6a1b22"),
    attempt=1,
    position_id=41,
    account_id="main",
    symbol="AAPL",
    side=Side.SELL,
    quantity=Decimal(10),
    order_type=OrderType.LIMIT,
    limit_price=Decimal("99.98"),
    time_in_force=TimeInForce.DAY,
    status=OrderStatus.PLANNED,
    created_at=NOW,
    broker_order_id="b-1",
)
LIMITS = PoolLimits(in_flight=2, rate_per_s=1000, lease_s=30, breaker=BreakerRules(failures=2, refusals=9, probe_s=5))


@dataclass
class ScriptedBroker:
    """Answers as told and writes down what it was asked."""

    submits: SubmitAnswer = field(default_factory=lambda: Acknowledged(STATED))
    look_ups: LookUpAnswer = field(default_factory=lambda: Acknowledged(STATED))
    cancels: CancelAnswer = field(default_factory=CancelAccepted)
    name: str = "fake"
    account_id: str = "main"
    heard: list[str] = field(default_factory=list)
    gate: asyncio.Event | None = None

    async def submit(
        self, ticket: Ticket, *, begin_within_s: float | None = None, may_begin: MayBegin | None = None, **_: object
    ) -> SubmitAnswer:
        assert may_begin is not None
        if not await may_begin():
            return NotSent("it may not begin any more", withheld=True)
        self.heard.append(f"submit {ticket.client_order_id}")
        if self.gate is not None:
            await self.gate.wait()
        return self.submits

    async def look_up(self, client_order_id: str) -> LookUpAnswer:
        self.heard.append("look up")
        return self.look_ups

    async def cancel(self, ticket: Ticket, *, broker_order_id: str) -> CancelAnswer:
        self.heard.append(f"cancel {broker_order_id}")
        return self.cancels


@dataclass
class Outcome:
    """What a pool published and recorded, in order."""

    events: list[str] = field(default_factory=list)
    updates: list[BrokerUpdate] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    begins: bool = True
    rows_from: int = 0
    """Before so many answers the claim's row is not there."""

    async def begin(self, order: Order, send: Send) -> bool:
        self.events.append("begun")
        return self.begins

    async def publish(self, update: BrokerUpdate, *, traceparent: str | None = None) -> None:
        self.events.append("published")
        self.updates.append(update)

    async def record(self, entry: Entry) -> bool:
        self.events.append("recorded")
        self.entries.append(entry)
        return len(self.entries) > self.rows_from

    @property
    def answer(self) -> SendAnswer:
        [entry] = self.entries
        return entry.answered.answer


def a_pool(broker: ScriptedBroker, outcome: Outcome) -> SenderPool:
    return SenderPool(cast(Broker, broker), outcome.publish, outcome, LIMITS)


def a_job(kind: SendKind = SendKind.SUBMIT, *, age_s: float = 0) -> Job:
    send = Send(kind=kind, n=1, sender="me", lease_until=NOW + timedelta(seconds=30), started_at=NOW)
    return Job(order=ORDER, send=send, checked_at=monotonic() - age_s)


async def done(broker: ScriptedBroker, job: Job) -> tuple[Outcome, SenderPool]:
    outcome = Outcome()
    pool = a_pool(broker, outcome)
    assert pool.reserve(job.send.kind)
    pool.start([job])
    await asyncio.wait_for(asyncio.gather(*pool.tasks), 5)
    return outcome, pool


REFUSAL = Refused("market_closed", RejectClass.RETRYABLE, "market is closed")
ANSWERS: dict[str, tuple[ScriptedBroker, SendAnswer, int]] = {
    "acknowledged": (ScriptedBroker(), SendAnswer.ACCEPTED, 1),
    "refused": (ScriptedBroker(REFUSAL), SendAnswer.REJECTED, 1),
    "a duplicate that is found": (ScriptedBroker(DuplicateId()), SendAnswer.ACCEPTED, 1),
    "a duplicate that is not found yet": (ScriptedBroker(DuplicateId(), NotFound()), SendAnswer.UNKNOWN, 0),
    "not accepted": (ScriptedBroker(NotAccepted("rate limited", 2.0)), SendAnswer.NOT_ACCEPTED, 0),
    "not sent": (ScriptedBroker(NotSent("connection refused")), SendAnswer.NOT_SENT, 0),
    "unanswered": (ScriptedBroker(Unanswered("timed out")), SendAnswer.UNKNOWN, 0),
}


@pytest.mark.parametrize(("broker", "answer", "published"), ANSWERS.values(), ids=ANSWERS)
async def test_a_submit_is_recorded_as_what_its_answer_proves(
    broker: ScriptedBroker, answer: SendAnswer, published: int
) -> None:
    outcome, _ = await done(replace(broker, heard=[]), a_job())
    assert outcome.answer is answer
    assert outcome.events == ["begun"] + ["published"] * published + ["recorded"]
    again = outcome.entries[0].answered.again_in_s
    assert (again is None) is (answer in (SendAnswer.ACCEPTED, SendAnswer.REJECTED))


async def test_a_refusal_is_published_without_a_broker_order_id() -> None:
    outcome, _ = await done(ScriptedBroker(REFUSAL), a_job())
    [update] = outcome.updates
    assert (update.exec_type, update.broker_order_id, update.broker) == (ExecType.REJECTED, None, "fake")


FILLED = Acknowledged(replace(STATED, order_status=BrokerStatus.FILLED))
CANCELS: dict[str, tuple[ScriptedBroker, SendAnswer, int]] = {
    "accepted": (ScriptedBroker(), SendAnswer.ACCEPTED, 0),
    "refused, and it had filled": (ScriptedBroker(look_ups=FILLED, cancels=CancelRefused("")), SendAnswer.ACCEPTED, 1),
    "refused: its state is asked for": (ScriptedBroker(cancels=CancelRefused("filled")), SendAnswer.REJECTED, 1),
    "not found: its state is asked for": (ScriptedBroker(cancels=NotFound()), SendAnswer.REJECTED, 1),
    "unanswered: its state is asked for": (ScriptedBroker(cancels=Unanswered("reset")), SendAnswer.UNKNOWN, 1),
    "not accepted": (ScriptedBroker(cancels=NotAccepted("rate limited", 1.0)), SendAnswer.NOT_ACCEPTED, 0),
    "not sent": (ScriptedBroker(cancels=NotSent("no connection")), SendAnswer.NOT_SENT, 0),
}


@pytest.mark.parametrize(("broker", "answer", "published"), CANCELS.values(), ids=CANCELS)
async def test_a_cancel_is_recorded_as_what_its_answer_proves(
    broker: ScriptedBroker, answer: SendAnswer, published: int
) -> None:
    outcome, pool = await done(replace(broker, heard=[]), a_job(SendKind.CANCEL))
    assert outcome.answer is answer
    assert len(outcome.updates) == published
    assert pool.breaker.state is BreakerState.CLOSED


@pytest.mark.parametrize("kind", SendKind)
async def test_a_check_that_has_grown_old_stops_the_send_before_the_wire(kind: SendKind) -> None:
    broker = ScriptedBroker()
    outcome, pool = await done(broker, a_job(kind, age_s=1.1))
    assert broker.heard == []
    assert outcome.answer is SendAnswer.NOT_SENT
    assert pool.breaker.failures == 0


def test_the_fence_is_a_third_of_a_short_lease() -> None:
    assert fence_s(30) == 1
    assert fence_s(0.6) == pytest.approx(0.2)


async def test_a_send_that_is_marked_not_sent_is_answered_and_never_made() -> None:
    broker, outcome = ScriptedBroker(), Outcome()
    pool = a_pool(broker, outcome)
    assert pool.reserve(SendKind.SUBMIT)
    pool.mark_not_sent([a_job()], "commit_unknown")
    await asyncio.gather(*pool.tasks)
    assert (broker.heard, outcome.answer) == ([], SendAnswer.NOT_SENT)


async def test_a_send_whose_claim_was_answered_by_another_is_not_made() -> None:
    """A paused process that wakes after somebody took its claim over."""
    broker, outcome = ScriptedBroker(), Outcome(begins=False)
    pool = a_pool(broker, outcome)
    assert pool.reserve(SendKind.SUBMIT)
    pool.start([a_job()])
    await asyncio.gather(*pool.tasks)
    assert (broker.heard, outcome.answer) == ([], SendAnswer.NOT_SENT)
    assert pool.breaker == CLOSED, "the broker has no part in it"


async def test_a_send_that_is_marked_not_sent_is_answered_again_until_its_row_is_there_and_holds_no_slot() -> None:
    outcome = Outcome(rows_from=1)
    pool = a_pool(ScriptedBroker(), outcome)
    assert [pool.reserve(SendKind.SUBMIT) for _ in range(2)] == [True, True]
    pool.mark_not_sent([a_job(), a_job(age_s=30)], "commit_unknown")
    assert [pool.reserve(SendKind.SUBMIT) for _ in range(2)] == [True, True]
    await asyncio.gather(*pool.tasks)
    assert [one.answered.answer for one in outcome.entries] == [SendAnswer.NOT_SENT] * 2, "and not after the lease"


@pytest.mark.parametrize(
    ("error", "written", "answers"),
    [
        (CommitUnknown(), True, 1),
        (asyncio.CancelledError(), True, 1),
        (asyncio.CancelledError(), False, 0),
        (ValueError(), False, 0),
    ],
)
async def test_what_a_transaction_that_broke_off_may_have_claimed_is_marked_not_sent(
    error: BaseException, written: bool, answers: int
) -> None:
    outcome = Outcome()
    pool = a_pool(ScriptedBroker(), outcome)

    async def transaction() -> None:
        async with claiming(pool) as claims:
            for _ in range(2):  # It is done again, as the victim of a deadlock.
                claims.anew()
                assert claims.reserve(SendKind.SUBMIT)
            if written:
                claims.written(BatchResult(before={}, now=NOW, claimed=[(ORDER, a_job().send)]), checked_at=monotonic())
            raise error

    with pytest.raises(type(error)):
        await transaction()
    await asyncio.gather(*pool.tasks)
    assert [one.answered.answer for one in outcome.entries] == [SendAnswer.NOT_SENT] * answers
    assert [pool.reserve(SendKind.SUBMIT) for _ in range(3)] == [True, True, False]


async def test_slots_are_bounded_and_come_back() -> None:
    broker, outcome = ScriptedBroker(gate=asyncio.Event()), Outcome()
    pool = a_pool(broker, outcome)
    assert [pool.reserve(SendKind.SUBMIT) for _ in range(3)] == [True, True, False]
    pool.release(1)
    assert pool.reserve(SendKind.CANCEL)
    pool.start([a_job(), a_job()])
    tasks = list(pool.tasks)
    assert not pool.reserve(SendKind.SUBMIT)
    assert broker.gate is not None
    broker.gate.set()
    await asyncio.gather(*tasks)
    assert pool.reserve(SendKind.SUBMIT)


async def test_an_open_breaker_holds_orders_back_and_lets_cancels_pass() -> None:
    outcome, pool = await done(ScriptedBroker(NotAccepted("401", None, credentials=True)), a_job())
    assert outcome.entries[0].incident is not None
    assert outcome.entries[0].incident.kind == "broker_credentials_refused"
    assert outcome.entries[0].breaker is not None
    assert pool.resumes_in_s() is not None
    assert [pool.reserve(kind) for kind in (SendKind.SUBMIT, SendKind.CANCEL)] == [False, True]
    pool.budget.refused(600)
    assert (pool.plans_resume_in_s() or 0) > 602, "a plan needs a quote, which is asked for after that"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (NotAccepted("new orders are rejected", None, account_wide=True), "broker_refuses_orders"),
        (NotAccepted("rate limited", 1.0), None),
    ],
)
async def test_what_no_order_passes_is_one_incident_of_the_account(answer: NotAccepted, kind: str | None) -> None:
    outcome, pool = await done(ScriptedBroker(answer), a_job())
    [entry] = outcome.entries
    assert (entry.incident and (entry.incident.kind, entry.incident.subject)) == (kind and (kind, "main"))
    assert (outcome.answer, outcome.updates) == (SendAnswer.NOT_ACCEPTED, [])
    assert pool.resumes_in_s() is not None


async def test_evidence_that_kafka_did_not_take_leaves_the_send_open() -> None:
    outcome, broker = Outcome(), ScriptedBroker()

    async def unreachable(update: BrokerUpdate, *, traceparent: str | None = None) -> None:
        raise ConnectionError("no broker")

    pool = SenderPool(cast(Broker, broker), unreachable, outcome, LIMITS)
    assert pool.reserve(SendKind.SUBMIT)
    pool.start([a_job()])
    await asyncio.gather(*pool.tasks)
    assert outcome.entries == []
    assert [pool.reserve(SendKind.SUBMIT) for _ in range(2)] == [True, True]


async def test_draining_waits_for_answers_and_sends_nothing_new() -> None:
    broker, outcome = ScriptedBroker(gate=asyncio.Event()), Outcome()
    pool = a_pool(broker, outcome)
    assert pool.reserve(SendKind.SUBMIT)
    pool.start([a_job()])
    await asyncio.sleep(0)
    draining = asyncio.create_task(pool.drain(5))
    await asyncio.sleep(0)
    assert not pool.reserve(SendKind.SUBMIT)
    assert broker.gate is not None
    broker.gate.set()
    await draining
    assert outcome.answer is SendAnswer.ACCEPTED


async def test_draining_ends_at_its_deadline_and_leaves_the_send_open() -> None:
    broker, outcome = ScriptedBroker(gate=asyncio.Event()), Outcome()
    pool = a_pool(broker, outcome)
    assert pool.reserve(SendKind.SUBMIT)
    pool.start([a_job()])
    await asyncio.sleep(0)
    await pool.drain(0.01)
    assert (outcome.entries, len(pool.tasks)) == ([], 0)


async def test_a_probe_under_way_keeps_the_next_order_back_though_the_database_does_not_know_of_it() -> None:
    known = Breaker(state=BreakerState.OPEN, failures=2, probe_at=monotonic() - 1)
    pool = a_pool(ScriptedBroker(), Outcome())
    pool.share_breaker(known)
    assert pool.reserve(SendKind.SUBMIT), "the probe"
    pool.share_breaker(known)
    assert not pool.reserve(SendKind.SUBMIT)
    pool.share_breaker(CLOSED)
    assert pool.reserve(SendKind.SUBMIT), "another's order was taken"


async def test_a_probe_that_was_not_claimed_after_all_is_given_back() -> None:
    """Else an order that breaks its transaction each time would take every probe from the orders behind it."""
    pool = a_pool(ScriptedBroker(), Outcome())
    pool.share_breaker(Breaker(state=BreakerState.OPEN, failures=2, probe_at=monotonic() - 1))

    assert [pool.reserve(SendKind.SUBMIT) for _ in range(2)] == [True, False]
    pool.release(0)
    assert not pool.reserve(SendKind.SUBMIT), "nothing was given back"
    pool.release(1)
    assert pool.reserve(SendKind.SUBMIT)
    pool.start([a_job(SendKind.SUBMIT)])
    pool.release(1)
    assert not pool.reserve(SendKind.SUBMIT), "the probe is under way, whatever else is given back"
    await pool.drain(1)
