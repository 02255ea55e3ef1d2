"""Write what was decided about a batch: the one way into the tables of positions, requests and orders.

Pure code decides, this writes, and the caller's transaction holds the locks in between.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

import structlog

from closeflow.contracts.codec import peek
from closeflow.contracts.record_headers import PARKED_SINCE
from closeflow.domain.batch import BatchResult
from closeflow.domain.close.outcome import follow_overfill
from closeflow.domain.frozen import replace
from closeflow.domain.ids import client_order_id
from closeflow.domain.incidents import IncidentKind, about
from closeflow.domain.model import Incident
from closeflow.domain.text import time_text
from closeflow.kafka.records import DeadLetter, Record
from closeflow.storage.book.load import lock_books
from closeflow.storage.book.save import MoveRefused, save_books
from closeflow.storage.core import engine
from closeflow.storage.core.engine import (
    LOCKED,
    Database,
    StatementError,
    Transaction,
    database_now,
    is_poison,
    retrying,
    sqlstate,
)
from closeflow.storage.core.statements import one_round_trip
from closeflow.storage.inbox import record_receipts
from closeflow.storage.incidents import report_incidents
from closeflow.storage.order_sends import insert_sends
from closeflow.storage.outbox import insert_events
from closeflow.storage.parked_records import ParkedRecord, park_records
from closeflow.storage.predicates import UNKNOWN_VALUE
from closeflow.storage.trading_controls import count_submits

Item = TypeVar("Item")
Result = TypeVar("Result")
__all__ = [
    "MoveRefused",
    "apart_where_one_breaks",
    "first_line",
    "park_unknown_values",
    "parked_record",
    "save",
    "traceparents",
    "write_in_spans",
]

log = structlog.get_logger(__name__)


async def save(tx: Transaction, result: BatchResult, *, consumer: str | None = None) -> None:
    """Write the result; `consumer` is whose receipts its outcomes are. Raises MoveRefused before anything is written
    when a move is in no row of the transition table."""
    async with one_round_trip(tx):
        await _save(tx, result, consumer)


def traceparents(result: BatchResult) -> dict[UUID, str | None]:
    """By close, the call that asked for it, as far as it is known."""
    return {
        request_id: request.traceparent
        for book in result.books.values()
        for request_id, request in book.requests.items()
    }


def write_in_spans(result: BatchResult, spans: Mapping[UUID, str]) -> None:
    """Name in every event of these closes the span that makes it, a `traceparent`, instead of the call that asked for
    the close."""
    if not spans:
        return
    result.events = [
        event if span is None else replace(event, traceparent=span)
        for event in result.events
        for span in (None if event.close_request_id is None else spans.get(event.close_request_id),)
    ]


async def _save(tx: Transaction, result: BatchResult, consumer: str | None) -> None:
    held = await save_books(tx, changes=result.changes)
    await insert_events(tx, events=held.events)
    if held.at is not None and held.followed:
        # Rule Q for positions that hold an overfill and are being closed, which nobody has loaded yet.
        books = await lock_books(tx, position_ids=held.followed)
        followed = BatchResult(before=books, now=held.at, policy=result.policy)
        for position_id, delta in held.followed.items():
            concluded = follow_overfill(books[position_id], delta, now=held.at, policy=result.policy)
            followed.put(concluded.book)
            followed.events += concluded.events
            followed.incidents += concluded.incidents
        await save(tx, followed)
    if result.claimed:
        await insert_sends(tx, sends=result.claimed)
    if result.controls is not None and result.claims_submits:
        await count_submits(tx, controls=result.controls)
    await insert_events(tx, events=result.events)
    await report_incidents(tx, incidents=result.incidents)
    if consumer is not None:
        await record_receipts(tx, consumer=consumer, outcomes=result.outcomes, now=result.now)


async def apart_where_one_breaks(
    items: Sequence[Item],
    work: Callable[[Sequence[Item]], Awaitable[Result]],
    *,
    alone: Callable[[Item, StatementError | MoveRefused], Awaitable[Result]],
    also_locked: bool = False,
) -> list[Result]:
    """What `work` gives for all items; when one of them breaks its transaction, each gets its own, and the one that
    breaks that too is given to `alone` with the error, so that it holds up no other. Other errors are raised: with
    `also_locked` one that somebody's lock made only after every other item had its turn."""
    try:
        return [await work(items)]
    except (StatementError, MoveRefused) as error:
        locked = also_locked and len(items) > 1 and sqlstate(error) in LOCKED
        if isinstance(error, StatementError) and not is_poison(error) and not locked:
            raise
        if len(items) == 1:
            return [await alone(items[0], error)]
    results: list[Result] = []
    waits: StatementError | None = None
    for item in items:
        try:
            results += await apart_where_one_breaks([item], work, alone=alone)
        except StatementError as error:
            if not locked or sqlstate(error) not in LOCKED:
                raise
            waits = error
    if waits is not None:
        raise waits
    return results


def first_line(error: StatementError | MoveRefused) -> str:
    """What the database or the transition table refuses, in at most 500 characters."""
    return engine.first_line(error)[:500]


def parked_record(record: Record[Any] | DeadLetter, reason: str, *, client_order_id: str | None) -> ParkedRecord:
    """A record that waits, whole, until the order that it names can be seen, a person has looked at it, or a newer
    reader can read it."""
    return ParkedRecord(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        key=record.key,
        headers={name: (raw or b"").decode(errors="replace") for name, raw in record.headers},
        value=record.raw,
        reason=reason,
        client_order_id=client_order_id,
    )


async def park_unknown_values(database: Database, records: Sequence[DeadLetter]) -> None:
    """Keep records of a newer writer whose values we do not know, and tell a person, once for all that lack the same.

    Nothing is frozen: what an update says is asked for again at the broker, and a request that nobody could read plans
    nothing. The reconciler publishes them again once it knows the values.
    """

    async def work(tx: Transaction) -> None:
        now = await database_now(tx)
        await park_records(tx, records=[_of_newer_writer(one, now) for one in records], now=now)
        await report_incidents(tx, incidents=[_unknown_value(one) for one in records])

    await retrying(database, work)
    for one in records:
        log.warning("unknown_value_parked", place=_place(one), reason=one.reason)


def _of_newer_writer(record: DeadLetter, now: datetime) -> ParkedRecord:
    parked = parked_record(record, UNKNOWN_VALUE + record.reason, client_order_id=_order_of(record))
    since = min(_time(parked.headers.get(PARKED_SINCE)) or now, now)
    return replace(parked, headers={**parked.headers, PARKED_SINCE: time_text(since)})


def _order_of(record: DeadLetter) -> str | None:
    """The client order id that the record has, or that of the order which it asks for."""
    said = peek(record.raw)
    named, attempt = said.get("client_order_id"), said.get("attempt")
    if isinstance(named, str):
        return named
    try:
        return client_order_id(UUID(str(said.get("close_request_id"))), int(str(attempt)))
    except ValueError:
        return None


def _time(text: str | None) -> datetime | None:
    try:
        found = datetime.fromisoformat(text or "")
        return found.astimezone(UTC) if found.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def _unknown_value(record: DeadLetter) -> Incident:
    detail = (
        f"{record.topic} has a value of a newer writer: {record.reason} to this reader. Such records are parked, the"
        f" last one at {_place(record)}, and are published again by themselves once reconciler and reader are upgraded"
    )
    return about(IncidentKind.UNKNOWN_VALUE, detail, subject=f"{record.topic}: {record.reason}")


def _place(record: DeadLetter) -> str:
    return f"{record.topic}/{record.partition}/{record.offset}"
