"""The span of a call to the broker. What is said of it is the order's id and the answer: nothing of the account."""

from __future__ import annotations

from closeflow.domain.model import Order, Send, SendKind
from closeflow.domain.sending.broker_answers import Acknowledged, CancelAccepted, CancelAnswer, SubmitAnswer
from closeflow.telemetry import TraceContext
from closeflow.telemetry.spans import Kind, Span, begin


def begin_send(order: Order, send: Send, parent: TraceContext | None) -> Span:
    """Begins when the send does."""
    return begin(
        "send order" if send.kind is SendKind.SUBMIT else "cancel order",
        parent,
        kind=Kind.CLIENT,
        closeflow__order__id=order.client_order_id,
        closeflow__close_request__id=str(order.close_request_id),
        closeflow__attempt=order.attempt,
        closeflow__send__number=send.n,
    )


def note_answer(span: Span, answer: SubmitAnswer | CancelAnswer) -> None:
    """What the broker answered; all but a plain yes is an error."""
    name = type(answer).__name__
    span.attributes["closeflow.broker.answer"] = name
    if not isinstance(answer, Acknowledged | CancelAccepted):
        span.fail(name)
