"""Write what was decided about a batch: the one way into the tables of positions, requests and orders.

Pure code decides, this writes, and the caller's transaction holds the locks in between.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from closeflow.domain.batch import BatchResult
from closeflow.domain.close.outcome import follow_overfill
from closeflow.kafka.records import Record
from closeflow.storage.book.load import lock_books
from closeflow.storage.book.save import MoveRefused, save_books
from closeflow.storage.core import engine
from closeflow.storage.core.engine import LOCKED, StatementError, Transaction, is_poison, sqlstate
from closeflow.storage.core.statements import one_round_trip
from closeflow.storage.inbox import record_receipts
from closeflow.storage.incidents import report_incidents
from closeflow.storage.order_sends import insert_sends
from closeflow.storage.outbox import insert_events
from closeflow.storage.parked_records import ParkedRecord
from closeflow.storage.trading_controls import count_submits

Item = TypeVar("Item")
Result = TypeVar("Result")
__all__ = ["MoveRefused", "apart_where_one_breaks", "first_line", "parked_record", "save"]


async def save(tx: Transaction, result: BatchResult, *, consumer: str | None = None) -> None:
    """Write the result; `consumer` is whose receipts its outcomes are. Raises MoveRefused before anything is written
    when a move is in no row of the transition table."""
    async with one_round_trip(tx):
        await _save(tx, result, consumer)


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


def parked_record(record: Record[Any], reason: str, *, client_order_id: str) -> ParkedRecord:
    """A record that waits, whole, until the order that it names can be seen or a person has looked at it."""
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
