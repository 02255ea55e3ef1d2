"""The spans of a batch of updates: in the trace of each close how long the update took to get here, and what it did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from closeflow.contracts.topics import BROKER_FILL
from closeflow.domain.ids import parse_client_order_id
from closeflow.domain.orders.verdicts import Repeated
from closeflow.kafka.record_spans import batch_of, told, trace_of
from closeflow.telemetry import parse_traceparent
from closeflow.telemetry.spans import BatchOfSpans, Kind, Span, is_tracing
from closeflow.unit_of_work import traceparents, write_in_spans
from fill_processor.apply_batch import UpdateRecord, UpdatesResult


@dataclass(slots=True)
class UpdateSpans:
    """Begun with the records. Without tracing it does nothing."""

    records: Sequence[UpdateRecord]
    _batch: BatchOfSpans | None = field(init=False)
    _by_request: dict[UUID, Span] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._batch = None

    def begin(self) -> None:
        """As the transaction begins, also when it is done again."""
        self._batch = batch_of("apply batch", BROKER_FILL) if is_tracing() else None
        self._by_request.clear()

    def name(self, result: UpdatesResult) -> None:
        """Give each update that says something new its span, and the events that come of it theirs: that of the last
        update of the close."""
        if self._batch is None:
            return
        traces = traceparents(result)
        for record, verdict in zip(self.records, result.verdicts, strict=True):
            ours = parse_client_order_id(record.value.client_order_id)
            trace = parse_traceparent(None if ours is None else traces.get(ours[0]))
            if ours is None or trace is None or verdict == Repeated.__name__:
                continue
            by = trace_of(record.headers)
            parent = by if by is not None and by.trace_id == trace.trace_id else trace
            heard = told(record, parent, record.value.transact_time, by)
            span = self._batch.member("apply update", heard, kind=Kind.CONSUMER)
            span.attributes |= {
                "closeflow.close_request.id": str(ours[0]),
                "closeflow.order.id": record.value.client_order_id,
                "closeflow.update.type": str(record.value.exec_type),
                "closeflow.verdict": verdict,
            }
            self._by_request[ours[0]] = span
        for incident in result.incidents:
            about = None if incident.close_request_id is None else self._by_request.get(incident.close_request_id)
            if about is not None:
                about.fail(f"incident {incident.kind}")
        write_in_spans(result, {request_id: span.context.header() for request_id, span in self._by_request.items()})

    def end(self) -> None:
        """After the commit."""
        if self._batch is not None:
            self._batch.end()
