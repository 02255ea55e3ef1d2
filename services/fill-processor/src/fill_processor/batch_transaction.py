"""Turn a batch of `broker-fill` records into executions, orders, requests, positions and events, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import structlog

from closeflow.contracts import ErrorClass, peek
from closeflow.contracts.broker_fill import BrokerFillV1
from closeflow.contracts.topics import BROKER_FILL
from closeflow.domain.batch import BatchResult
from closeflow.domain.enums import RequestStatus
from closeflow.domain.frozen import replace
from closeflow.domain.ids import parse_client_order_id
from closeflow.domain.incidents import IncidentKind, about
from closeflow.domain.monitoring import log_tail_lost
from closeflow.domain.position.freeze import freeze_request
from closeflow.domain.retry import RetryPolicy
from closeflow.kafka.lost_tail import LostTail
from closeflow.kafka.records import DeadLetter, Rejected
from closeflow.storage.book.load import lock_books, positions_of_requests
from closeflow.storage.core.engine import Database, StatementError, Transaction, database_now, retrying
from closeflow.storage.inbox import load_context
from closeflow.storage.incidents import report_incidents
from closeflow.storage.parked_records import park_records
from closeflow.telemetry import trace_fields
from closeflow.telemetry.metrics import STAGE_SECONDS, counter
from closeflow.unit_of_work import MoveRefused, apart_where_one_breaks, first_line, save, traceparents
from fill_processor.apply_batch import Known, UpdateRecord, UpdatesResult, apply_batch, poisoned
from fill_processor.update_spans import UpdateSpans

CONSUMER: Final = "fill-processor"
FIRST_FILL: Final = STAGE_SECONDS.labels("first_fill")
CLOSED: Final = STAGE_SECONDS.labels("closed")
VERDICTS: Final = counter("closeflow_broker_updates_total")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Processor:
    """The fill-processor's use-case; `process_batch` is what the consume loop calls."""

    engine: Database
    policy: RetryPolicy

    async def process_batch(self, records: Sequence[UpdateRecord]) -> Sequence[Rejected[BrokerFillV1]]:
        """Commits the batch; returns the records that contradict their order, for the dead letter topic.

        When a record's own data makes the batch fail, the records are done one by one and that one is parked.
        """
        rejected = await apart_where_one_breaks(records, self._commit, alone=self._park)
        return [one for part in rejected for one in part]

    async def _commit(self, records: Sequence[UpdateRecord]) -> Sequence[Rejected[BrokerFillV1]]:
        spans = UpdateSpans(records)

        async def work(tx: Transaction) -> UpdatesResult:
            spans.begin()
            folded = apply_batch(await _load(tx, records), records, policy=self.policy)
            spans.name(folded)
            await _save(tx, folded)
            return folded

        folded = await retrying(self.engine, work)
        spans.end()
        return _report(folded)

    async def _park(
        self, record: UpdateRecord, error: StatementError | MoveRefused
    ) -> Sequence[Rejected[BrokerFillV1]]:
        reason = first_line(error)
        log.error("record_poisoned", partition=record.partition, offset=record.offset, reason=reason)

        spans = UpdateSpans([record])

        async def work(tx: Transaction) -> UpdatesResult:
            spans.begin()
            folded = poisoned(await _load(tx, [record]), record, reason)
            spans.name(folded)
            await _save(tx, folded)
            return folded

        folded = await retrying(self.engine, work)
        spans.end()
        return _report(folded)

    async def freeze_unreadable(self, letters: Sequence[DeadLetter]) -> None:
        """An incident for every unreadable record, and its request frozen where the record or its key names one."""
        log.warning("records_unreadable", count=len(letters))
        await retrying(self.engine, lambda tx: _freeze(tx, letters))

    async def report_lost_tail(self, group: str, lost: Sequence[LostTail]) -> None:
        """Tell a person of what Kafka lost. Nothing is frozen: what the broker said is asked for again by itself."""
        incident = log_tail_lost(group, BROKER_FILL, map(str, lost))
        await retrying(self.engine, lambda tx: report_incidents(tx, incidents=[incident]))


async def _freeze(tx: Transaction, letters: Sequence[DeadLetter]) -> None:
    orders = [str(peek(letter.raw).get("client_order_id", "")) for letter in letters]
    requests = [_request_of(letter, order) for letter, order in zip(letters, orders, strict=True)]
    before = await lock_books(tx, request_ids={one for one in requests if one is not None})
    positions = positions_of_requests(before.values())
    result = BatchResult(before=before, now=await database_now(tx))
    for letter, client_order_id, request_id in zip(letters, orders, requests, strict=True):
        place = f"{letter.topic}/{letter.partition}/{letter.offset}"
        incident = about(IncidentKind.UNREADABLE_UPDATE, f"{letter.error_class}: {letter.reason}", subject=place)
        position_id = positions.get(request_id) if request_id is not None else None
        if position_id is not None and request_id is not None:
            book = result.books[position_id]
            result.put(freeze_request(book, request_id, IncidentKind.UNREADABLE_UPDATE))
            order = client_order_id if client_order_id in book.orders else None
            # Named, so that whoever closes the incident lets the request go on.
            incident = replace(incident, position_id=position_id, close_request_id=request_id, client_order_id=order)
        result.incidents.append(incident)
    await save(tx, result)


def _request_of(letter: DeadLetter, client_order_id: str) -> UUID | None:
    """The request that the letter's order is of; where that cannot be read, the one that its key names."""
    ours = parse_client_order_id(client_order_id)
    if ours is not None:
        return ours[0]
    try:
        return UUID((letter.key or b"").decode())
    except ValueError:
        return None


async def _load(tx: Transaction, records: Sequence[UpdateRecord]) -> Known:
    updates = [record.value.to_domain() for record in records]
    parsed = [parse_client_order_id(update.client_order_id) for update in updates]
    books = await lock_books(tx, request_ids={one[0] for one in parsed if one is not None})
    context = await load_context(tx, consumer=CONSUMER, updates=updates)
    return Known(
        books=books,
        positions=positions_of_requests(books.values()),
        now=context.now,
        applied=context.applied,
        taken=context.taken,
    )


async def _save(tx: Transaction, folded: UpdatesResult) -> None:
    await save(tx, folded, consumer=CONSUMER)
    await park_records(tx, records=folded.parked, now=folded.now)


def _report(folded: UpdatesResult) -> list[Rejected[BrokerFillV1]]:
    for verdict in folded.verdicts:
        VERDICTS.labels(verdict).inc()
    for incident in folded.incidents:
        of = None if incident.close_request_id is None else traceparents(folded).get(incident.close_request_id)
        log.warning(
            "incident_reported",
            kind=incident.kind,
            detail=incident.detail,
            order=incident.client_order_id,
            **trace_fields(of),
        )
    _measure(folded)
    return [Rejected(record, reason, ErrorClass.CONTRADICTION) for record, reason in folded.quarantined]


def _measure(folded: UpdatesResult) -> None:
    """How long the orders took to their first execution, and the closes to their end."""
    for before, book in folded.changes:
        for name, order in book.orders.items():
            known = before.orders.get(name)
            if order.executions and known is not None and not known.executions:
                FIRST_FILL.observe(max(0.0, (folded.now - order.created_at).total_seconds()))
        for request_id, request in book.requests.items():
            was = before.requests.get(request_id)
            ended = request.status is RequestStatus.COMPLETED and was is not None and was.status is not request.status
            if ended:
                CLOSED.observe(max(0.0, (folded.now - request.created_at).total_seconds()))
