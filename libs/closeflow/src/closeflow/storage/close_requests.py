"""What accepting and showing closes reads beyond a book, and what the failure of such a transaction means."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from closeflow.domain.frozen import replace
from closeflow.domain.model import Book, CloseRequest, Position
from closeflow.storage.book import mapping
from closeflow.storage.book.load import lock_books
from closeflow.storage.core.bulk import bigints, texts
from closeflow.storage.core.engine import LOCK_NOT_AVAILABLE, is_poison, retrying, sqlstate
from closeflow.storage.core.statements import Row, fetch

T = TypeVar("T")
Tx = AsyncConnection
Engine = AsyncEngine
Key = tuple[int, str]
"""A position and an idempotency key on it."""

_BY_KEYS: Final = text("""
    SELECT r.* FROM close_requests r
    JOIN unnest(CAST(:position_ids AS bigint[]), CAST(:keys AS text[])) AS k (position_id, idempotency_key)
      ON (r.position_id, r.idempotency_key) = (k.position_id, k.idempotency_key)
""")
# Whose positions are not the caller's are not found. By the primary key; what is checked beside it reads no other row.
_LOCK_POSITIONS: Final = text("""
    SELECT * FROM positions
    WHERE id = ANY(CAST(:ids AS bigint[]))
      AND (id = ANY(CAST(:unrestricted AS bigint[])) OR id || ' ' || account_id = ANY(CAST(:owned AS text[])))
    ORDER BY id FOR NO KEY UPDATE
""")
# The kill switch and the time travel with it: a statement of their own would be one more round trip per batch.
_CLOSED_BEFORE: Final = text("""
    SELECT DISTINCT position_id, CAST(NULL AS text) AS scope, CAST(NULL AS text) AS state,
           CAST(NULL AS timestamptz) AS now
    FROM close_requests WHERE position_id = ANY(CAST(:ids AS bigint[]))
    UNION ALL SELECT NULL, scope, state, NULL FROM trading_controls
    UNION ALL SELECT NULL, NULL, NULL, closeflow_now()
""")
# What was filled beyond a position is nobody's to close before a person has looked: it may not be there (a split).
_DISPUTED: Final = text("""
    SELECT p.id FROM positions p
    WHERE p.id = ANY(CAST(:ids AS bigint[]))
      AND EXISTS (SELECT FROM incidents i
                  WHERE i.position_id = p.overfill_of AND i.kind = 'overfill' AND i.closed_at IS NULL)
""")
# Whose a row is belongs to the question for it, so that another account's costs what one that is not there costs.
OWNED: Final = "(CAST(:accounts AS text[]) IS NULL OR {0}.account_id = ANY(CAST(:accounts AS text[])))"
"""Of a table by its alias: whether the row is of one of the caller's accounts; NULL stands for every account."""
_POSITION_COLUMNS: Final = (
    "id",
    "account_id",
    "symbol",
    "asset_type",
    "multiplier",
    "currency",
    "opening_qty",
    "quantity",
    "status",
    "version",
    "active_close_request_id",
    "closed_at",
    "reopened_at",
    "overfill_of",
    "exposure_unproven",
)
STATE: Final = "r.*, " + ", ".join(f'p.{name} AS "position.{name}"' for name in _POSITION_COLUMNS)
"""The columns of a request `r` with its position `p`, for `state_of`: one snapshot of both."""
# By the primary keys of both tables.
_STATE: Final = text(f"""
    SELECT {STATE} FROM close_requests r JOIN positions p ON p.id = r.position_id
    WHERE r.id = :id AND {OWNED.format("r")}
""")  # noqa: S608 (constants of ours)
_STATES: Final = text(f"""
    SELECT {STATE} FROM close_requests r JOIN positions p ON p.id = r.position_id
    WHERE r.id = ANY(CAST(:ids AS uuid[]))
""")  # noqa: S608
_POSITION: Final = text(f"SELECT p.* FROM positions p WHERE p.id = :id AND {OWNED.format('p')}")  # noqa: S608


class RowRefused(Exception):
    """A row broke a rule of the database: nothing was written, and the same item fails again."""


class DatabaseAway(Exception):
    """The database did not answer, or not in time: nothing was committed."""


class LockedElsewhere(Exception):
    """Somebody holds a row for longer than the engine's lock time-out: nothing was written."""


@dataclass(frozen=True, slots=True)
class ToAccept:
    """What accepting looks at: the locked books of the positions that exist, the requests that were accepted under the
    keys before, `trading_controls` by scope, and the database's time."""

    books: dict[int, Book]
    by_key: dict[Key, CloseRequest]
    trading: Mapping[str, str]
    now: datetime


async def lock_books_to_accept(
    tx: AsyncConnection, *, keys: Collection[Key], visible: Mapping[int, Collection[str] | None]
) -> ToAccept:
    """Lock the positions and load what one decision about each of these keys may look at. `visible` says for each
    position in which accounts it is looked for; None means all.

    Most closes are their position's first. Such a position has no request, hence no order and no execution of ours, so
    its book is the position alone and two statements are enough; the others are loaded by `lock_books`.
    """
    wanted = {
        "ids": bigints(sorted({position_id for position_id, _ in keys})),
        "unrestricted": bigints(one for one, accounts in visible.items() if accounts is None),
        "owned": texts(f"{one} {account}" for one, accounts in visible.items() for account in accounts or ()),
    }
    positions = [mapping.position(row) for row in await fetch(tx, _LOCK_POSITIONS, wanted)]
    ids = {"ids": bigints(one.id for one in positions)}
    # A statement of its own: what this transaction waited for is visible only to a snapshot taken after the lock.
    rows = await fetch(tx, _CLOSED_BEFORE, ids)
    closed_before = {row["position_id"] for row in rows if row["position_id"] is not None}
    trading = {row["scope"]: row["state"] for row in rows if row["scope"] is not None}
    (now,) = (row["now"] for row in rows if row["now"] is not None)
    books = {
        one.id: Book(position=one, base_quantity=one.quantity, ledger_quantity=one.quantity)
        for one in positions
        if one.id not in closed_before
    }
    tagged = [one.id for one in positions if one.overfill_of is not None]
    disputed = {row["id"] for row in await fetch(tx, _DISPUTED, {"ids": bigints(tagged)})} if tagged else set()
    if closed_before:
        books |= await lock_books(tx, position_ids=closed_before)
    books |= {one: replace(books[one], disputed=True) for one in disputed}
    if not closed_before:
        return ToAccept(books, {}, trading, now)
    by_key = await find_by_keys(tx, keys=[key for key in keys if key[0] in closed_before])
    return ToAccept(books, by_key, trading, now)


async def find_by_keys(tx: AsyncConnection, *, keys: Collection[Key]) -> dict[Key, CloseRequest]:
    """The requests that were accepted under these keys. To be certain of absence, hold the positions' locks."""
    pairs = sorted(set(keys))
    parameters = {"position_ids": bigints(one for one, _ in pairs), "keys": texts(key for _, key in pairs)}
    found = [mapping.request(row) for row in await fetch(tx, _BY_KEYS, parameters)]
    return {(request.position_id, request.idempotency_key): request for request in found}


RequestState = tuple[CloseRequest, Position]
"""A close request and its position, both of one moment."""


async def find_position(
    tx: AsyncConnection, *, position_id: int, accounts: Collection[str] | None = None
) -> Position | None:
    """A position as it is committed, not locked; None when there is none, or none of these accounts."""
    rows = await fetch(tx, _POSITION, {"id": position_id, "accounts": listed(accounts)})
    return mapping.position(rows[0]) if rows else None


async def find_request(
    tx: AsyncConnection, *, request_id: UUID, accounts: Collection[str] | None = None
) -> RequestState | None:
    """A request with its position, not locked; None when there is none, or none of these accounts."""
    rows = await fetch(tx, _STATE, {"id": request_id, "accounts": listed(accounts)})
    return state_of(rows[0]) if rows else None


async def find_requests(tx: AsyncConnection, *, request_ids: Collection[UUID]) -> dict[UUID, RequestState]:
    """Many requests with their positions, whosever they are: who asks has seen each of them before."""
    rows = await fetch(tx, _STATES, {"ids": list(request_ids)})
    return {row["id"]: state_of(row) for row in rows}


def state_of(row: Row) -> RequestState:
    """A row of the columns `STATE`."""
    return mapping.request(row), mapping.position({name: row[f"position.{name}"] for name in _POSITION_COLUMNS})


def listed(accounts: Collection[str] | None) -> list[str] | None:
    """The parameter `accounts` of `OWNED`."""
    return None if accounts is None else sorted(accounts)


async def transact(engine: AsyncEngine, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    """`retrying`, with its failures named: RowRefused, LockedElsewhere, DatabaseAway, CommitUnknown.

    A connection that died before COMMIT is met once by doing the whole work again on a new one: after a restart of the
    database the pool holds nothing but dead connections.
    """
    try:
        try:
            return await retrying(engine, work)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            return await retrying(engine, work)
    except SQLAlchemyError as error:
        raise _named(error)(str(error).partition("\n")[0]) from error


def _named(error: SQLAlchemyError) -> type[Exception]:
    if is_poison(error):
        return RowRefused
    return LockedElsewhere if sqlstate(error) == LOCK_NOT_AVAILABLE else DatabaseAway
