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
from closeflow.storage.close_requests import find_position, find_request
from closeflow.storage.core.engine import Database, Transaction, database_now, retrying
from closeflow.storage.operator_actions import act_as, record_action
from closeflow.unit_of_work import save

Decide = Callable[[Book, datetime], Outcome]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """Who acts, and why. What is of none of the `accounts` is not there for him, None being every account; `trace_id`
    names the call that he made."""

    by: str
    reason: str
    accounts: frozenset[str] | None = None
    trace_id: str | None = None


@dataclass(frozen=True, slots=True)
class OperatorAction:
    """What an operator does to what."""

    operator: Operator
    action: str
    subject: str


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
        return (await decide_on_book(tx, act, decide, position_id=position_id, request_id=request_id, dry=dry))[1]

    return await retrying(database, work)


async def decide_on_book(
    tx: Transaction,
    act: OperatorAction,
    decide: Decide,
    *,
    position_id: int | None = None,
    request_id: UUID | None = None,
    dry: bool = False,
) -> tuple[Book, Outcome]:
    """What `on_book` does, in a transaction of the caller's; also the book as it was."""
    before = await lock_one(tx, act.operator, position_id=position_id, request_id=request_id)
    outcome = decide(before, await database_now(tx))
    if isinstance(outcome, Done) and not dry:
        await write(tx, act, before, outcome)
    return before, outcome


async def lock_one(
    tx: Transaction, operator: Operator, *, position_id: int | None = None, request_id: UUID | None = None
) -> Book:
    """The book of a position, with a named request even if that is over; raises NotThere.

    Whether the operator may see it is asked before anything is locked: a position's account never changes.
    """
    absent = (
        f"there is no position {position_id}; `closectl positions list` shows those that are"
        if request_id is None
        else f"there is no close request {request_id}; `closectl list` shows those that are"
    )
    if not await _is_seen(tx, operator, position_id, request_id):
        raise NotThere(absent)
    books = await lock_books(
        tx,
        position_ids=[] if position_id is None else [position_id],
        request_ids=[] if request_id is None else [request_id],
    )
    if not books or (request_id is not None and not any(request_id in book.requests for book in books.values())):
        raise NotThere(absent)
    (book,) = books.values()
    return book


async def _is_seen(tx: Transaction, operator: Operator, position_id: int | None, request_id: UUID | None) -> bool:
    if operator.accounts is None:
        return True
    if request_id is not None:
        return await find_request(tx, request_id=request_id, accounts=operator.accounts) is not None
    assert position_id is not None, "a book is asked for by one of its ids"
    return await find_position(tx, position_id=position_id, accounts=operator.accounts) is not None


async def write(
    tx: Transaction, act: OperatorAction, before: Book, done: Done, *, told: Mapping[str, object] | None = None
) -> None:
    """The decision, its events and incidents, and the record of it, with what else is `told` of how it came about;
    every move goes through the transition table."""
    operator = act.operator
    await act_as(tx, by=operator.by, reason=operator.reason)
    now = await database_now(tx)
    await save(tx, one_book(before, done.book, now=now, events=done.events, incidents=done.incidents))
    was, changed = _difference(before, done.book)
    await record(tx, act, account=before.position.account_id, before=was, after={**changed, **(told or {})})


async def record(
    tx: Transaction,
    act: OperatorAction,
    *,
    account: str | None,
    before: Mapping[str, object] | None = None,
    after: Mapping[str, object] | None = None,
) -> None:
    """The row of what was done, in the transaction that does it; `account` is the one that it concerns alone."""
    await record_action(
        tx,
        by=act.operator.by,
        action=act.action,
        subject=act.subject,
        reason=act.operator.reason,
        before=before,
        after=after,
        account_id=account,
        trace_id=act.operator.trace_id,
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
