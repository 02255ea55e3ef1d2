"""One send from its claim to its recorded answer, in the steps between which anything may happen.

Mirrors `order_submitter.sending.pool.SenderPool`: the fence, the call, evidence to Kafka before the answer is recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, assert_never

from closeflow.domain.model import Incident, SendAnswer, SendKind
from closeflow.domain.retry import retry_in_s
from closeflow.domain.sending.broker_answers import (
    Acknowledged,
    CancelAccepted,
    CancelRefused,
    DuplicateId,
    LookUpAnswer,
    NotAccepted,
    NotFound,
    NotSent,
    Refused,
    SubmitAnswer,
    Unanswered,
    refused_cancel,
)
from closeflow.domain.sending.claim import with_send
from closeflow.domain.sending.ticket import refusal_update, ticket
from order_submitter.sending.breaker import Breaker, after_answer
from tests.simulation.core import ACCOUNT, BREAKER, BROKER, HTTP_DEADLINE_S, LEASE_S
from tests.simulation.database import Answer, Tx, claim_key
from tests.simulation.faults import Fault
from tests.simulation.jobs import Call, Job, Stage
from tests.simulation.process import DATABASE_ERRORS, KafkaAway

if TYPE_CHECKING:
    from tests.simulation.submitter import Submitter

SOON_S: Final = 0.5
MOST_WRITES: Final = 6


def step(of: Submitter, job: Job, breaker: Breaker) -> tuple[Breaker, bool]:
    """Returns the circuit breaker after it, and whether the send is over for this process."""
    match job.stage:
        case Stage.CLAIMED:
            if job.disowned or _is_late(of, job):
                job.answer, job.fenced, job.stage = NotSent("fence"), True, Stage.ANSWERED
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
            if job.send.kind is SendKind.SUBMIT and not job.fenced:
                breaker = after_answer(breaker, _submitted(job), now=of.monotonic(), rules=BREAKER)
            try:
                job.said = _conclude_submit(of, job) if job.send.kind is SendKind.SUBMIT else _conclude_cancel(of, job)
            except KafkaAway:
                return breaker, True  # The row stays open, and its lease ends it.
            job.stage = Stage.CONCLUDED
        case Stage.CONCLUDED:
            return breaker, _record(of, job)
        case _:
            assert_never(job.stage)
    return breaker, False


def _submitted(job: Job) -> SubmitAnswer:
    assert isinstance(job.answer, Acknowledged | Refused | DuplicateId | NotAccepted | NotSent | Unanswered)
    return job.answer


def _is_late(of: Submitter, job: Job) -> bool:
    return of.monotonic() - job.checked_at >= of.around.core.fence_s(LEASE_S)


def _begin(of: Submitter, job: Job) -> None:
    """As `SendLog.begin`, for a submit: the claim says that it begins, unless somebody has answered it."""
    key = claim_key(job.order.client_order_id, job.send)

    def work(tx: Tx) -> bool:
        claim = of.around.database.claim(key)
        begins = claim is not None and of.around.core.may_begin(claim)
        tx.begun |= {key} if begins else set()
        return begins

    try:
        begun = job.send.kind is SendKind.CANCEL or of.around.database.transact(work)
    except DATABASE_ERRORS:
        begun = False
    if begun:
        job.stage = Stage.BEGUN
    else:
        job.answer, job.fenced, job.stage = NotSent("not_begun"), True, Stage.ANSWERED


def _write(of: Submitter, job: Job) -> None:
    """As `Broker.submit` with `begin_within_s`: the first byte goes within the fence, or none at all."""
    if _is_late(of, job):
        job.answer, job.fenced, job.stage = NotSent("fence"), True, Stage.ANSWERED
        return
    if of.around.faults.happens(Fault.NOT_SENT):
        job.answer, job.stage = NotSent("connection refused"), Stage.ANSWERED
        return
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


def _conclude_submit(of: Submitter, job: Job) -> Answer:
    """As `SenderPool._conclude`."""
    answer = _submitted(job)
    match answer:
        case Acknowledged(update):
            of.around.publish(update)
            return _answer(job, SendAnswer.ACCEPTED)
        case Refused():
            of.around.publish(refusal_update(ticket(job.order), job.send.n, answer, broker=BROKER, at=of.wall()))
            return _answer(job, SendAnswer.REJECTED)
        case DuplicateId():
            found = _look_up(of, job)
            return _answer(job, SendAnswer.ACCEPTED if found else SendAnswer.UNKNOWN, None if found else SOON_S)
        case NotAccepted(retry_after_s=asked_s):
            return _answer(job, SendAnswer.NOT_ACCEPTED, _pause(of, job, asked_s))
        case NotSent():
            return _answer(job, SendAnswer.NOT_SENT, SOON_S if job.fenced else _pause(of, job, None))
        case Unanswered():
            return _answer(job, SendAnswer.UNKNOWN, SOON_S)
        case _:
            assert_never(answer)


def _conclude_cancel(of: Submitter, job: Job) -> Answer:
    """As `SenderPool._cancel`."""
    answer = job.answer
    found = _look_up(of, job) if isinstance(answer, CancelRefused | NotFound | Unanswered) else None
    match answer:
        case CancelAccepted():
            recorded = SendAnswer.ACCEPTED
        case CancelRefused() | NotFound():
            assert found is not None
            recorded = refused_cancel(found)
        case NotAccepted():
            recorded = SendAnswer.NOT_ACCEPTED
        case NotSent():
            recorded = SendAnswer.NOT_SENT
        case _:
            recorded = SendAnswer.UNKNOWN
    return _answer(job, recorded, SOON_S)


def _look_up(of: Submitter, job: Job) -> LookUpAnswer:
    answer = of.around.exchange.look_up(job.order.client_order_id)
    if isinstance(answer, Acknowledged):
        of.around.publish(answer.update)
    return answer


def _pause(of: Submitter, job: Job, asked_s: float | None) -> float:
    order = with_send(job.order, job.send)
    return retry_in_s(order, jitter=of.around.faults.random.random(), asked_s=asked_s)


def _answer(job: Job, answer: SendAnswer, again_in_s: float | None = None) -> Answer:
    return Answer(
        client_order_id=job.order.client_order_id,
        kind=job.send.kind,
        n=job.send.n,
        sender=job.send.sender,
        started_at=job.send.started_at,
        answer=answer,
        again_in_s=again_in_s,
    )


def _record(of: Submitter, job: Job) -> bool:
    """As `AnswerLog`: written again until it is known to be there, a few times."""
    said = job.said
    assert said is not None

    def work(tx: Tx) -> None:
        tx.answers.append(said)
        if isinstance(job.answer, NotAccepted) and job.answer.credentials:
            detail = f"no order can be sent for account {ACCOUNT}: {job.answer.reason}"
            tx.incidents.append(
                Incident(kind="broker_credentials_refused", severity="critical", subject=ACCOUNT, detail=detail)
            )

    job.writes += 1
    try:
        of.around.database.transact(work)
    except DATABASE_ERRORS:
        return job.writes >= MOST_WRITES and not job.disowned
    claim = of.around.database.claim(claim_key(said.client_order_id, said))
    return not job.disowned or claim is not None or of.monotonic() - job.checked_at >= LEASE_S
