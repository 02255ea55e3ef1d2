"""What is recorded of a send that the broker answered, and what has to be in Kafka before that."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, assert_never

from closeflow.domain.incidents import IncidentKind
from closeflow.domain.model import BrokerUpdate, Incident, Order, Send, SendAnswer
from closeflow.domain.retry import retry_in_s
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
    refused_cancel,
)
from closeflow.domain.sending.claim import with_send
from closeflow.domain.sending.ticket import refusal_update, ticket

SOON_S: Final = 0.5
"""After how long an order whose send told nothing is looked at again."""


@dataclass(frozen=True, slots=True)
class Conclusion:
    """`publish` is evidence for `broker-fill`, acknowledged by Kafka before the answer is recorded; `again_in_s` is
    when the order is looked at again."""

    answer: SendAnswer
    again_in_s: float | None = None
    publish: BrokerUpdate | None = None


def asks_for_order(answer: SubmitAnswer | CancelAnswer, *, cancel: bool) -> bool:
    """Whether the answer proves so little that the order is looked up before it is recorded: the order exists already,
    or only a statement about it says what became of its cancel."""
    return isinstance(answer, DuplicateId) or (cancel and isinstance(answer, CancelRefused | NotFound | Unanswered))


def conclude_submit(
    order: Order,
    send: Send,
    answer: SubmitAnswer,
    found: LookUpAnswer | None,
    *,
    broker: str,
    at: datetime,
    jitter: float,
) -> Conclusion:
    """What follows from the answer to a submit. `found` is what the look-up gave that the answer asked for; `jitter` is
    drawn from [0, 1)."""
    match answer:
        case Acknowledged(update):
            return Conclusion(SendAnswer.ACCEPTED, publish=update)
        case Refused():
            return Conclusion(
                SendAnswer.REJECTED, publish=refusal_update(ticket(order), send.n, answer, broker=broker, at=at)
            )
        case DuplicateId():
            if isinstance(found, Acknowledged):
                return Conclusion(SendAnswer.ACCEPTED, publish=found.update)
            return Conclusion(SendAnswer.UNKNOWN, SOON_S)
        case NotAccepted(retry_after_s=asked_s):
            return Conclusion(SendAnswer.NOT_ACCEPTED, _retry_in_s(order, send, jitter, asked_s))
        case NotSent():
            return Conclusion(SendAnswer.NOT_SENT, _retry_in_s(order, send, jitter, None))
        case Unanswered():
            return Conclusion(SendAnswer.UNKNOWN, SOON_S)
        case _:
            assert_never(answer)


def conclude_cancel(answer: CancelAnswer, found: LookUpAnswer | None) -> Conclusion:
    """What follows from the answer to a cancel. Only a statement about the order ends it; a refusal does not."""
    publish = found.update if isinstance(found, Acknowledged) else None
    match answer:
        case CancelAccepted():
            recorded = SendAnswer.ACCEPTED
        case CancelRefused() | NotFound():
            recorded = SendAnswer.UNKNOWN if found is None else refused_cancel(found)
        case NotAccepted():
            recorded = SendAnswer.NOT_ACCEPTED
        case NotSent():
            recorded = SendAnswer.NOT_SENT
        case Unanswered():
            recorded = SendAnswer.UNKNOWN
        case _:
            assert_never(answer)
    return Conclusion(recorded, SOON_S, publish)


def account_incident(answer: SubmitAnswer, account_id: str) -> Incident | None:
    """Set when no order of the account can pass, whatever it is."""
    match answer:
        case NotAccepted(reason=reason, credentials=True):
            kind = IncidentKind.BROKER_CREDENTIALS_REFUSED
        case NotAccepted(reason=reason, account_wide=True):
            kind = IncidentKind.BROKER_REFUSES_ORDERS
        case _:
            return None
    detail = f"no order can be sent for account {account_id}: {reason}"
    return Incident(kind=kind, severity="critical", subject=account_id, detail=detail)


def _retry_in_s(order: Order, send: Send, jitter: float, asked_s: float | None) -> float:
    return retry_in_s(with_send(order, send), jitter=jitter, asked_s=asked_s)
