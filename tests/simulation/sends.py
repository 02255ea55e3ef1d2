"""One send from its claim to its recorded answer, in the steps between which anything may happen.

The shell of `order_submitter.sending.pool.SenderPool`: the fence, the call, evidence before the answer is recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, assert_never, cast

from closeflow.domain.model import Send, SendKind
from closeflow.domain.sending import claim
from closeflow.domain.sending.answered import (
    Conclusion,
    account_incident,
    asks_for_order,
    conclude_cancel,
    conclude_submit,
)
from closeflow.domain.sending.broker_answers import Acknowledged, CancelAnswer, NotSent, SubmitAnswer, Unanswered
from order_submitter.sending.breaker import Breaker, after_answer
from tests.simulation.core import ACCOUNT, BREAKER, BROKER, HTTP_DEADLINE_S, LEASE_S
from tests.simulation.database import Tx, answered, claim_key
from tests.simulation.faults import Fault
from tests.simulation.jobs import Call, Job, Stage
from tests.simulation.process import DATABASE_ERRORS, KafkaAway

if TYPE_CHECKING:
    from tests.simulation.submitter import Submitter

MOST_WRITES: Final = 6


def step(of: Submitter, job: Job, breaker: Breaker) -> tuple[Breaker, bool]:
    """Returns the circuit breaker after it, and whether the send is over for this process."""
    match job.stage:
        case Stage.CLAIMED:
            if job.not_sent or _is_late(of, job):
                _withhold(job, "fence")
            else:
                job.stage = Stage.CHECKED
        case Stage.CHECKED:
            _begin(of, job)
        case Stage.BEGUN:
            _write(of, job)
        case Stage.CALLING:
            _read(of, job)
        case Stage.ANSWERED:
            assert job.answer is not None
            if job.send.kind is SendKind.SUBMIT:
                breaker = after_answer(breaker, cast(SubmitAnswer, job.answer), now=of.monotonic(), rules=BREAKER)
            try:
                done = _conclude(of, job)
            except KafkaAway:
                return breaker, True  # The row stays open, and its lease ends it.
            job.said = answered(job.order.client_order_id, job.send, done.answer, done.again_in_s)
            job.stage = Stage.CONCLUDED
        case Stage.CONCLUDED:
            return breaker, _record(of, job)
        case _:
            assert_never(job.stage)
    return breaker, False


def _withhold(job: Job, why: str) -> None:
    job.answer, job.stage = NotSent(why, withheld=True), Stage.ANSWERED


def _is_late(of: Submitter, job: Job) -> bool:
    return of.monotonic() - job.checked_at >= claim.fence_s(LEASE_S)


def may_begin(send: Send) -> bool:
    """As the statement of `closeflow.storage.order_sends`: a claim that somebody answered is not written."""
    return send.answer is None


def _begin(of: Submitter, job: Job) -> None:
    """As `SendLog.begin`, for a submit: the claim says that it begins, unless somebody has answered it."""
    key = claim_key(job.order.client_order_id, job.send)

    def work(tx: Tx) -> bool:
        claimed = of.around.database.claim(key)
        begins = claimed is not None and may_begin(claimed)
        tx.begun |= {key} if begins else set()
        return begins

    try:
        begun = job.send.kind is SendKind.CANCEL or of.around.database.transact(work)
    except DATABASE_ERRORS:
        begun = False
    if begun:
        job.stage = Stage.BEGUN
    else:
        _withhold(job, "not_begun")


def _write(of: Submitter, job: Job) -> None:
    """As `Broker.submit` with `begin_within_s`: the first byte goes within the fence, or none at all."""
    if _is_late(of, job):
        _withhold(job, "fence")
        return
    if of.around.faults.happens(Fault.NOT_SENT):
        job.answer, job.stage = NotSent("connection refused"), Stage.ANSWERED
        return
    of.around.database.handed_over.add(claim_key(job.order.client_order_id, job.send))
    job.call = Call(job)
    job.called_at, job.stage = of.monotonic(), Stage.CALLING
    of.around.network.write(job.call, of.instance_id)


def _read(of: Submitter, job: Job) -> None:
    """The answer if it is there; the time-out if it is due. An answer that came and was lost ends the same way."""
    assert job.call is not None
    faults = of.around.faults
    answer_lost = job.call.answer is not None and faults.strikes(Fault.ANSWER_LOST)
    if answer_lost and isinstance(job.call.answer, Acknowledged):
        faults.saw(Fault.ANSWER_LOST)
    if job.call.answer is not None and not answer_lost:
        job.answer, job.stage = job.call.answer, Stage.ANSWERED
    elif job.call.answer is not None or of.monotonic() - job.called_at >= HTTP_DEADLINE_S:
        job.call.given_up = True
        job.answer, job.stage = Unanswered("time-out"), Stage.ANSWERED


def _conclude(of: Submitter, job: Job) -> Conclusion:
    """As `SenderPool._conclude` and `_cancel`: evidence to Kafka before the answer is recorded."""
    cancel = job.send.kind is SendKind.CANCEL
    assert job.answer is not None
    found = of.around.exchange.look_up(job.order.client_order_id) if asks_for_order(job.answer, cancel=cancel) else None
    if cancel:
        done = conclude_cancel(cast(CancelAnswer, job.answer), found)
    else:
        at, jitter, answer = of.wall(), of.around.faults.random.random(), cast(SubmitAnswer, job.answer)
        done = conclude_submit(job.order, job.send, answer, found, broker=BROKER, at=at, jitter=jitter)
    if done.publish is not None:
        of.around.publish(done.publish)
    return done


def _record(of: Submitter, job: Job) -> bool:
    """As `AnswerLog`: written again until it is known to be there, a few times."""
    said = job.said
    assert said is not None

    def work(tx: Tx) -> None:
        tx.answers.append(said)
        incident = (
            account_incident(cast(SubmitAnswer, job.answer), ACCOUNT) if job.send.kind is SendKind.SUBMIT else None
        )
        tx.incidents += [incident] if incident is not None else []

    job.writes += 1
    try:
        of.around.database.transact(work)
    except DATABASE_ERRORS:
        return job.writes >= MOST_WRITES and not job.not_sent
    claimed = of.around.database.claim(claim_key(said.client_order_id, said))
    return not job.not_sent or claimed is not None or of.monotonic() - job.checked_at >= LEASE_S
