"""The spans of a batch of plans: one in the trace of each close, and one of the batch, linked to each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from closeflow.contracts import SUBMIT_ORDER, SubmitOrder
from closeflow.domain.close.deferral import Defer
from closeflow.domain.close.plan_batch import PlansResult
from closeflow.domain.close.plan_order import Deny, Disagrees
from closeflow.kafka import Record
from closeflow.kafka.record_spans import batch_of, published
from closeflow.telemetry.spans import BatchOfSpans, Kind, Span, is_tracing


class PlanSpans:
    """Begun with the records. Without tracing it is empty, and does nothing."""

    def __init__(self, records: Sequence[Record[SubmitOrder]]) -> None:
        self._batch: BatchOfSpans | None = None
        self._by_request: dict[UUID, Span] = {}
        if not is_tracing():
            return
        self._batch = batch_of("plan batch", SUBMIT_ORDER)
        for record in records:
            request_id = record.value.close_request_id
            span = self._batch.member("plan close", published(record), kind=Kind.CONSUMER)
            span.attributes["closeflow.close_request.id"] = str(request_id)
            span.attributes["closeflow.attempt"] = record.value.attempt
            self._by_request[request_id] = span

    @property
    def headers(self) -> Mapping[UUID, str]:
        """The `traceparent` of each close's span, for what follows from its plan."""
        return {request_id: span.context.header() for request_id, span in self._by_request.items()}

    def end(self, result: PlansResult) -> None:
        """After the commit: say what was decided."""
        if self._batch is None:
            return
        for asked, decided in result.plans:
            span = self._by_request[asked.close_request_id]
            span.attributes["closeflow.plan"] = type(decided).__name__
            match decided:
                case Defer(reason=reason):
                    span.attributes["closeflow.reason"] = reason
                case Deny(code=code):
                    span.fail(code)
                case Disagrees():
                    span.fail("message and request disagree")
        for incident in result.incidents:
            about = None if incident.close_request_id is None else self._by_request.get(incident.close_request_id)
            if about is not None:
                about.fail(f"incident {incident.kind}")
        self._batch.end()
