"""Close an incident, and let go on what it froze (rule R11)."""

from __future__ import annotations

from uuid import UUID

from closeflow.domain.model import Book
from closeflow.domain.operator.requests import Already, Done, Outcome, release
from closeflow.operating.acting import Acted, NotThere, Operator, OperatorAction, lock_one, record, write
from closeflow.storage.core.engine import Database, Transaction, database_now, retrying
from closeflow.storage.incidents import close_incident, find_incident, lock_incident, open_incidents_of_request


async def close_incident_by_hand(database: Database, incident_id: int, operator: Operator) -> Outcome | Acted:
    """Close it with the reason as its resolution. The outcome says what became of the request that it froze,
    if it froze one. Raises NotThere."""
    act = OperatorAction(operator, "close_incident", str(incident_id))

    async def work(tx: Transaction) -> Outcome | Acted:
        seen = await find_incident(tx, incident_id=incident_id, accounts=operator.accounts)
        if seen is None:
            raise NotThere(f"there is no incident {incident_id}; `closectl incidents list` shows those that are open")
        request_id = seen.close_request_id  # What an incident is about never changes.
        book = await _book(tx, operator, request_id) if request_id is not None else None  # Books first: rule R7.
        incident = await lock_incident(tx, incident_id=incident_id) or seen
        if incident.closed_at is None:
            await close_incident(tx, incident_id=incident_id, by=operator.by, resolution=operator.reason)
        outcome = None
        if book is not None and request_id is not None:
            outcome = await _release(tx, book, request_id, closed=incident.kind)
            if isinstance(outcome, Done):
                await write(tx, act, book, outcome)
                return outcome
        if incident.closed_at is not None:
            return Already(f"incident {incident_id} was closed by {incident.closed_by}: {incident.resolution}")
        await record(tx, act, account=incident.account_id, before={"kind": incident.kind})
        return Acted(f"incident {incident_id} ({incident.kind}) is closed")

    return await retrying(database, work)


async def _book(tx: Transaction, operator: Operator, request_id: UUID) -> Book | None:
    """None where the incident is about a request that never was."""
    try:
        return await lock_one(tx, operator, request_id=request_id)
    except NotThere:
        return None


async def _release(tx: Transaction, book: Book, request_id: UUID, *, closed: str) -> Outcome:
    still_open = [one.kind for one in await open_incidents_of_request(tx, request_id=request_id)]
    request = book.requests[request_id]
    return release(book, request, closed=closed, still_open=still_open, now=await database_now(tx))
