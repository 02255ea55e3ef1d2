"""What a batch of broker updates makes of the books: a pure fold, the second update seeing what the first decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import assert_never
from uuid import UUID

from closeflow.contracts.broker_fill import BrokerFillV1
from closeflow.domain.batch import APPLIED, IGNORED, PARKED, BatchResult
from closeflow.domain.close.apply_update import apply_update
from closeflow.domain.close.outcome import conclude_all
from closeflow.domain.frozen import replace
from closeflow.domain.ids import parse_client_order_id
from closeflow.domain.incidents import IncidentKind, about, about_order
from closeflow.domain.model import Book, BrokerUpdate
from closeflow.domain.orders import execution_ledger
from closeflow.domain.orders import status as order_status
from closeflow.domain.orders.charges import in_currency_of
from closeflow.domain.orders.judge_update import judge_update
from closeflow.domain.orders.verdicts import Applied, ProvesNothing, Quarantined, Repeated
from closeflow.domain.outbox.events import ledger_event
from closeflow.domain.position.freeze import freeze
from closeflow.domain.retry import RetryPolicy
from closeflow.kafka.records import Record
from closeflow.storage.inbox import ExecutionKey
from closeflow.storage.parked_records import ParkedRecord
from closeflow.unit_of_work import parked_record

UpdateRecord = Record[BrokerFillV1]


@dataclass(slots=True, kw_only=True)
class UpdatesResult(BatchResult):
    """What a batch of updates came to. `verdicts` count by name, for the log and the metrics."""

    parked: list[ParkedRecord] = field(default_factory=list)
    quarantined: list[tuple[UpdateRecord, str]] = field(default_factory=list)
    verdicts: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the database said before the fold."""

    books: Mapping[int, Book]
    positions: Mapping[UUID, int]
    """Position id by close request id, for the requests that exist."""
    now: datetime
    applied: frozenset[UUID]
    taken: Mapping[ExecutionKey, str]


def apply_batch(known: Known, records: Sequence[UpdateRecord], *, policy: RetryPolicy) -> UpdatesResult:
    """Apply every record in order, then conclude each touched position once."""
    folded = UpdatesResult(before=known.books, now=known.now, policy=policy)
    taken = dict(known.taken)
    touched: dict[int, None] = {}
    for record in records:
        # The database tells when we heard of it, because that is compared with times of the database; the time in the
        # record is of the host that published it.
        update = replace(record.value.to_domain(), received_at=known.now)
        applied = update.event_id in known.applied or folded.outcomes.get(update.event_id) == APPLIED
        if applied and not _declared_lost(folded, known.positions, update):
            folded.verdicts.append(Repeated.__name__)
            continue
        position_id = _fold_one(folded, known.positions, taken, record, update)
        if position_id is not None:
            touched[position_id] = None
    conclude_all(folded, touched)
    return folded


def _declared_lost(folded: UpdatesResult, positions: Mapping[UUID, int], update: BrokerUpdate) -> bool:
    """A statement that was applied before its order was declared lost means something else when it comes again."""
    ours = parse_client_order_id(update.client_order_id)
    position_id = positions.get(ours[0]) if ours else None
    order = folded.books[position_id].orders.get(update.client_order_id) if position_id is not None else None
    return order is not None and order_status.is_lost(order)


def _fold_one(
    folded: UpdatesResult,
    positions: Mapping[UUID, int],
    taken: dict[ExecutionKey, str],
    record: UpdateRecord,
    update: BrokerUpdate,
) -> int | None:
    """Returns the position that has to be concluded, if the update changed anything."""
    ours = parse_client_order_id(update.client_order_id)
    position_id = positions.get(ours[0]) if ours else None
    order = folded.books[position_id].orders.get(update.client_order_id) if position_id is not None else None
    if position_id is None or order is None:
        _park(folded, record, update, IncidentKind.UNKNOWN_ORDER if ours else IncidentKind.FOREIGN_ORDER)
        return None
    book = folded.books[position_id]
    taken_by = taken.get((update.broker, update.account_id, update.exec_id)) if update.exec_id else None
    update, of_currency = in_currency_of(book.position, order, update)
    folded.incidents += of_currency
    verdict = judge_update(order, update, taken_by=taken_by)
    folded.verdicts.append(type(verdict).__name__)
    match verdict:
        case Applied():
            book = apply_update(book, order, verdict)
            folded.outcomes[update.event_id] = APPLIED
            folded.incidents += verdict.incidents
            for one in verdict.order.executions:
                taken[(one.broker, update.account_id, one.exec_id)] = order.client_order_id
            request = book.requests[order.close_request_id]
            booked = execution_ledger.entries(order, verdict.order)
            folded.events += [ledger_event(book.position, request, order, entry) for entry in booked]
        case Repeated() | ProvesNothing():
            folded.outcomes[update.event_id] = IGNORED
            return None
        case Quarantined():
            book = freeze(book, order, verdict.error)
            folded.outcomes[update.event_id] = PARKED
            folded.quarantined.append((record, verdict.reason))
            folded.incidents.append(about_order(order, verdict.error, verdict.reason))
        case _:
            assert_never(verdict)
    folded.put(book)
    return position_id


def _park(folded: UpdatesResult, record: UpdateRecord, update: BrokerUpdate, kind: IncidentKind) -> None:
    """An order we do not know: kept whole, to be matched by its id later, and never guessed by symbol. Whoever else
    trades on the account does so often: that is one incident of the account, counted."""
    folded.verdicts.append("Parked")
    folded.outcomes[update.event_id] = PARKED
    folded.parked.append(parked_record(record, kind, client_order_id=record.value.client_order_id))
    said = f"{update.exec_type} of {update.symbol} for an order that is not in the database"
    if kind == IncidentKind.FOREIGN_ORDER:
        incident = about(kind, f"{said}, the latest: {update.client_order_id}", subject=update.account_id)
    else:
        incident = about(kind, said, client_order_id=update.client_order_id)
    folded.incidents.append(incident)


def poisoned(known: Known, record: UpdateRecord, reason: str) -> UpdatesResult:
    """A record whose SQL fails alone: parked whole, with its request frozen, so that the partition can go on."""
    update = record.value.to_domain()
    folded = UpdatesResult(before=known.books, now=known.now)
    book = next(iter(known.books.values()), None)
    order = book.orders.get(update.client_order_id) if book is not None else None
    if book is not None and order is not None:
        folded.put(freeze(book, order, IncidentKind.POISON))
    folded.outcomes[update.event_id] = PARKED
    folded.parked.append(parked_record(record, reason, client_order_id=update.client_order_id))
    incident = about(
        IncidentKind.POISON,
        reason,
        position_id=book.position.id if book else None,
        close_request_id=order.close_request_id if order else None,
        client_order_id=update.client_order_id,
    )
    folded.incidents.append(incident)
    folded.verdicts.append("Poisoned")
    return folded
