"""The bounded pool of senders: one claimed send → one call to the broker → evidence in Kafka → the answer recorded."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

import structlog

from closeflow.broker import Broker
from closeflow.broker.budget import CallBudget, Urgency
from closeflow.clock import monotonic, sleep, timeout, utc_now
from closeflow.domain.model import BrokerUpdate, Order, Send, SendAnswer, SendKind
from closeflow.domain.sending.answered import (
    SOON_S,
    Conclusion,
    account_incident,
    asks_for_order,
    conclude_cancel,
    conclude_submit,
)
from closeflow.domain.sending.broker_answers import (
    Acknowledged,
    CancelAnswer,
    LookUpAnswer,
    NotAccepted,
    NotSent,
    Refused,
    SubmitAnswer,
)
from closeflow.domain.sending.claim import fence_s
from closeflow.domain.sending.ticket import ticket
from closeflow.storage.order_sends import Answered
from closeflow.telemetry import in_trace, parse_traceparent
from closeflow.telemetry.metrics import STAGE_SECONDS, counter, gauge, histogram
from closeflow.telemetry.spans import Span, is_tracing
from order_submitter.sending.breaker import (
    CLOSED,
    Breaker,
    BreakerRules,
    BreakerState,
    admitted,
    after_answer,
    after_judged,
    shared,
    to_row,
)
from order_submitter.sending.hand_overs import HandOvers
from order_submitter.sending.refusals import COMPANY_S, UnmappedRefusals
from order_submitter.sending.send_log import Entry
from order_submitter.sending.send_spans import begin_send, note_answer

log = structlog.get_logger(__name__)

ANSWERS: Final = counter("closeflow_broker_answers_total")
CALL_SECONDS: Final = histogram("closeflow_broker_call_seconds")
SENT: Final = STAGE_SECONDS.labels("send")
IN_FLIGHT: Final = gauge("closeflow_sends_in_flight")
ROOM_SHARE: Final = 4
"""So large a part of the slots has to be free before more is claimed."""
_MARK_AGAIN_S: Final = 0.5
_TOKENS_AGAIN_S: Final = 0.02


class Sends(Protocol):
    """What is written about claimed sends; see `send_log.SendLog`."""

    async def begin(self, order: Order, send: Send) -> bool:
        """Write down that the send begins; False when it must not, because somebody else may have taken it over."""

    async def record(self, entry: Entry) -> bool:
        """Write down what became of it; False when its row is not there (yet)."""


class Publish(Protocol):
    """Hands an update to Kafka."""

    async def __call__(self, update: BrokerUpdate, *, traceparent: str | None = None) -> None:
        """Returns once Kafka has it; raises KafkaError where that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A send whose row is committed. `checked_at` is the monotonic time at which its check was made, under locks."""

    order: Order
    send: Send
    checked_at: float
    traceparent: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """How many sends go on at a time, how many begin a second, and how long each belongs to this process."""

    in_flight: int
    rate_per_s: float
    lease_s: float
    breaker: BreakerRules


class SenderPool:
    """Slots are reserved before a send is claimed, so that a claimed send starts at once.

    What the broker answered is published before it is recorded: evidence first, conclusions after.
    """

    def __init__(
        self,
        broker: Broker,
        publish: Publish,
        sends: Sends,
        limits: PoolLimits,
        budget: CallBudget | None = None,
        hand_overs: HandOvers | None = None,
    ) -> None:
        """The `budget` is the one that the broker's other calls of this process have their turn from."""
        self._broker = broker
        self._publish = publish
        self._sends = sends
        self._limits = limits
        self.hand_overs = hand_overs or HandOvers(Path())
        self._free = limits.in_flight
        self._freed = asyncio.Event()
        self.budget = budget or CallBudget(limits.rate_per_s)
        self.tasks: set[asyncio.Task[None]] = set()
        self._unmapped = UnmappedRefusals(min(COMPANY_S, limits.lease_s / 3))
        self._stopping = False
        self._unsaved = 0
        self.breaker: Breaker = CLOSED
        self._probe: tuple[Breaker, Breaker] | None = None
        """The breaker without and with a probe that is reserved and whose send is not claimed yet."""

    def resumes_in_s(self) -> float | None:
        """Set while the circuit breaker lets no order through."""
        now = monotonic()
        resumes_at = self.breaker.resumes_at(now)
        return None if resumes_at is None else resumes_at - now

    def plans_resume_in_s(self) -> float | None:
        """The same for plans, which need quotes: after a refusal the broker is asked for those some seconds later."""
        resumes_in_s = self.resumes_in_s()
        return None if resumes_in_s is None else max(resumes_in_s, self.budget.wait_s(Urgency.MARKET))

    def wait_s(self, kind: SendKind, *, ahead: int) -> float:
        """After how many seconds a send that could not be reserved may be, behind so many others; 0: any time."""
        resumes_in_s = None if kind is SendKind.CANCEL else self.resumes_in_s()
        return max(self.budget.wait_s(Urgency.SEND, ahead=ahead), resumes_in_s or 0.0)

    def reserve(self, kind: SendKind) -> bool:
        """Take a slot and the turn of a call if both are free. A cancel goes out whatever the breaker says."""
        if self._stopping or self._free == 0:
            return False
        now = monotonic()
        if kind is SendKind.SUBMIT and self.breaker.resumes_at(now) is not None:
            return False
        if not self.budget.take(Urgency.SEND):
            return False
        if kind is SendKind.SUBMIT and self.breaker.state is not BreakerState.CLOSED:
            self._probe = self.breaker, admitted(self.breaker, now=now, rules=self._limits.breaker)
            self.breaker = self._probe[1]
        self._free -= 1
        return True

    async def room(self, wanted: int, *, within_s: float) -> int:
        """How many of the wanted sends can be claimed now. Waits until it is a good part, so that few transactions plan
        and claim them; all of them when that takes too long, because an order can be planned now and sent later."""
        enough = min(wanted, max(1, self._limits.in_flight // ROOM_SHARE))
        give_up_at = monotonic() + within_s
        while not self._stopping and self.resumes_in_s() is None:
            room, left_s = min(self._free, self.budget.room()), give_up_at - monotonic()
            if room >= enough:
                return min(room, wanted)
            if left_s <= 0:
                break
            self._freed.clear()
            with suppress(TimeoutError):
                async with timeout(min(left_s, _TOKENS_AGAIN_S)):
                    await self._freed.wait()
        return wanted

    def share_breaker(self, known: Breaker) -> None:
        """Take over what the database says, unless an answer of our own is still on its way there, or a probe to the
        broker."""
        if self._unsaved == 0:
            self.breaker = shared(self.breaker, known)

    @property
    def probing(self) -> bool:
        """Whether the order that was reserved last, and is not claimed yet, is the probe of an open circuit breaker."""
        return self._probe is not None

    def release(self, slots: int) -> None:
        """Give back slots whose sends were not claimed after all, and the probe that was for one of them."""
        self._free += slots
        self._freed.set()
        if slots and self._probe is not None and self.breaker == self._probe[1]:
            self.breaker, self._probe = self._probe[0], None

    def start(self, jobs: Iterable[Job]) -> None:
        """Send what was claimed; each is in flight from now on."""
        for job in jobs:
            self._probe = None
            self._spawn(self._run(job))

    def mark_not_sent(self, jobs: Iterable[Job], reason: str) -> None:
        """Answer sends that may be claimed in the database and that this process will never make."""
        for job in jobs:
            self._probe = None
            self._free += 1
            self._freed.set()
            log.warning("send_marked_not_sent", client_order_id=job.order.client_order_id, n=job.send.n, reason=reason)
            self._spawn(self._answer_not_sent(job))

    async def drain(self, deadline_s: float) -> None:
        """No new sends; those in flight get their answers recorded. What is left at the deadline is cut off, and its
        send stays open until its lease is over."""
        self._stopping = True
        if self.tasks:
            _, late = await asyncio.wait(self.tasks, timeout=deadline_s)
            for task in late:
                task.cancel()
            if late:
                log.warning("sends_cut_off", count=len(late))
                await asyncio.wait(late)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _answer_not_sent(self, job: Job) -> None:
        """The claim's COMMIT may still be on its way: until the row is there, or its lease is over."""
        ANSWERS.labels(job.send.kind.value, NotSent.__name__).inc()
        answered = False
        while not answered and monotonic() < job.checked_at + self._limits.lease_s:
            entry = Entry(answered=_answered(job, Conclusion(SendAnswer.NOT_SENT, SOON_S)))
            try:
                answered = await self._sends.record(entry)
            except Exception as error:
                log.warning("send_not_marked", client_order_id=job.order.client_order_id, error=str(error))
            if not answered:
                await sleep(_MARK_AGAIN_S)

    async def _run(self, job: Job) -> None:
        context = parse_traceparent(job.traceparent)
        span = begin_send(job.order, job.send, context)
        if is_tracing():
            context = span.context
            job = replace(job, traceparent=context.header())
        bound = log.bind(client_order_id=job.order.client_order_id, kind=job.send.kind.value, n=job.send.n)
        IN_FLIGHT.inc()
        try:
            with in_trace(context):
                if job.send.kind is SendKind.SUBMIT:
                    await self._submit(job, bound, span)
                else:
                    await self._cancel(job, bound, span)
        except Exception as error:
            # The row stays without an answer: when its lease is over, somebody looks the order up.
            bound.exception("send_left_open")
            span.fail(type(error).__name__)
        finally:
            span.end()
            IN_FLIGHT.dec()
            self._free += 1
            self._freed.set()

    def _fenced(self, job: Job) -> NotSent | None:
        if self._stopping:
            return NotSent("stopping", withheld=True)
        return NotSent("fence", withheld=True) if self._fence_left_s(job) <= 0 else None

    def _fence_left_s(self, job: Job) -> float:
        """How long the check still stands: within it the first byte has to go, or none at all."""
        return fence_s(self._limits.lease_s) - (monotonic() - job.checked_at)

    async def _submit(self, job: Job, bound: structlog.stdlib.BoundLogger, span: Span) -> None:
        order = ticket(job.order)
        fenced = self._fenced(job)
        unmapped = False

        async def may_begin() -> bool:
            return await self._sends.begin(job.order, job.send) and self._fenced(job) is None

        def handing_over() -> None:
            if self._fenced(job) is not None:
                raise OSError("the check is too old by now")
            self.hand_overs.note(job.order.client_order_id, job.send.n)

        answer: SubmitAnswer
        if fenced is not None:
            answer = fenced
        else:
            with CALL_SECONDS.labels("submit").time():
                within_s = self._fence_left_s(job)
                answer = await self._broker.submit(
                    order, begin_within_s=within_s, may_begin=may_begin, handing_over=handing_over
                )
            unmapped = isinstance(answer, Refused) and not answer.mapped
            if isinstance(answer, Refused) and unmapped:
                answer = await self._unmapped.judge(job.order, answer)
            elif isinstance(answer, Acknowledged):
                self._unmapped.taken()
        note_answer(span, answer)
        ANSWERS.labels("submit", type(answer).__name__).inc()
        SENT.observe(max(0.0, (utc_now() - job.order.created_at).total_seconds()))
        bound.info("order_answered", answer=type(answer).__name__, reason=getattr(answer, "reason", None))
        before = self.breaker
        if unmapped and isinstance(answer, NotAccepted):
            self.breaker = after_judged(before, rules=self._limits.breaker)
        else:
            self.breaker = after_answer(before, answer, now=monotonic(), rules=self._limits.breaker)
        moved = self.breaker != before
        self._unsaved += moved
        try:
            done = await self._conclude(job, answer)
            breaker = to_row(self.breaker, now=monotonic()) if moved else None
            incident = account_incident(answer, self._broker.account_id)
            await self._sends.record(Entry(answered=_answered(job, done), incident=incident, breaker=breaker))
        finally:
            self._unsaved -= moved

    async def _conclude(self, job: Job, answer: SubmitAnswer) -> Conclusion:
        """Publish what the answer proves, then say what is to be recorded."""
        found = await self._look_up(job) if asks_for_order(answer, cancel=False) else None
        broker, at, jitter = self._broker.name, utc_now(), random.random()
        done = conclude_submit(job.order, job.send, answer, found, broker=broker, at=at, jitter=jitter)
        await self._publish_first(job, done)
        return done

    async def _publish_first(self, job: Job, done: Conclusion) -> None:
        if done.publish is not None:
            await self._publish(done.publish, traceparent=job.traceparent)

    async def _look_up(self, job: Job) -> LookUpAnswer:
        return await self._broker.look_up(job.order.client_order_id)

    async def _cancel(self, job: Job, bound: structlog.stdlib.BoundLogger, span: Span) -> None:
        broker_order_id = job.order.broker_order_id
        assert broker_order_id is not None, "a cancel is claimed only for an order that the broker has named"
        fenced = self._fenced(job)
        answer: CancelAnswer
        if fenced is not None:
            answer = fenced
        else:
            with CALL_SECONDS.labels("cancel").time():
                answer = await self._broker.cancel(ticket(job.order), broker_order_id=broker_order_id)
        note_answer(span, answer)
        ANSWERS.labels("cancel", type(answer).__name__).inc()
        bound.info("cancel_answered", answer=type(answer).__name__, reason=getattr(answer, "reason", None))
        found = await self._look_up(job) if asks_for_order(answer, cancel=True) else None
        done = conclude_cancel(answer, found)
        await self._publish_first(job, done)
        await self._sends.record(Entry(answered=_answered(job, done)))


def _answered(job: Job, done: Conclusion) -> Answered:
    return Answered(
        client_order_id=job.order.client_order_id,
        kind=job.send.kind,
        n=job.send.n,
        sender=job.send.sender,
        started_at=job.send.started_at,
        answer=done.answer,
        again_in_s=done.again_in_s,
    )
