"""One action: lock the books, decide, and write the decision with its record, in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from closeflow.domain.batch import one_book
from closeflow.domain.model import Book
from closeflow.domain.operator.requests import Done, Outcome
from closeflow.storage.book.load import lock_books
from closeflow.storage.core.engine import Database, Transaction, database_now, retrying
from closeflow.storage.operator_actions import act_as, record_action
from closeflow.unit_of_work import save

Decide = Callable[[Book, datetime], Outcome]


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorAction:
    """Who does what to what, and why."""

    by: str
    action: str
    subject: str
    reason: str


@dataclass(frozen=True, slots=True)
class Acted:
    """Done, and no book was concerned."""

    what: str


class NotThere(Exception):
    """What the command names does not exist."""


async def on_book(
    database: Database,
    act: OperatorAction,
    decide: Decide,
    *,
    position_id: int | None = None,
    request_id: UUID | None = None,
    dry: bool = False,
) -> Outcome:
    """Decide about one position, found by its id or by a request of it. `dry` decides and writes nothing.

    Raises NotThere, and MoveRefused when the transition table does not allow the move.
    """

    async def work(tx: Transaction) -> Outcome:
        before = await lock_one(tx, position_id=position_id, request_id=request_id)
        outcome = decide(before, await database_now(tx))
        if isinstance(outcome, Done) and not dry:
            await write(tx, act, before, outcome)
        return outcome

    return await retrying(database, work)


async def lock_one(tx: Transaction, *, position_id: int | None = None, request_id: UUID | None = None) -> Book:
    """The book of a position, with a named request even if that is over; raises NotThere."""
    books = await lock_books(
        tx,
        position_ids=[] if position_id is None else [position_id],
        request_ids=[] if request_id is None else [request_id],
    )
    if request_id is not None and not any(request_id in book.requests for book in books.values()):
        raise NotThere(f"there is no close request {request_id}; `closectl list` shows those that are")
    if not books:
        raise NotThere(f"there is no position {position_id}; `closectl positions list` shows those that are")
    (book,) = books.values()
    return book


async def write(
    tx: Transaction, act: OperatorAction, before: Book, done: Done, *, told: Mapping[str, object] | None = None
) -> None:
    """The decision, its events and incidents, and the record of it, with what else is `told` of how it came about;
    every move goes through the transition table."""
    await act_as(tx, by=act.by, reason=act.reason)
    now = await database_now(tx)
    await save(tx, one_book(before, done.book, now=now, events=done.events, incidents=done.incidents))
    was, changed = _difference(before, done.book)
    await record_action(
        tx,
        by=act.by,
        action=act.action,
        subject=act.subject,
        reason=act.reason,
        before=was,
        after={**changed, **(told or {})},
    )


def _difference(before: Book, after: Book) -> tuple[dict[str, object], dict[str, object]]:
    """What changed, by name, as it was and as it is."""
    was, now = _named(before), _named(after)
    changed = [name for name in now if was.get(name) != now[name]]
    return {name: was.get(name) for name in changed}, {name: now[name] for name in changed}


def _named(book: Book) -> dict[str, object]:
    position = book.position
    named: dict[str, object] = {
        f"position {position.id}": {
            "status": position.status,
            "quantity": position.quantity,
            "exposure_unproven": position.exposure_unproven,
        }
    }
    for request in book.requests.values():
        named[f"request {request.id}"] = {
            "status": request.status,
            "reason": request.reason,
            "attempt": request.attempt,
            "filled": request.filled_quantity,
            "frozen_reason": request.frozen_reason,
            "cancel_requested_at": request.cancel_requested_at,
        }
    for order in book.orders.values():
        named[f"order {order.client_order_id}"] = {
            "status": order.status,
            "executed": order.executed_quantity,
            "cancel_requested_at": order.cancel_requested_at,
        }
    return named
