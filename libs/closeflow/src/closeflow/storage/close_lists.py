"""Pages of close requests and of positions: each is read along one index from where the last one ended.

Over several accounts every account gives its own first rows, and the page is the first of those: an index by account
has no order over accounts, and without this their whole past would be sorted for each page.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from closeflow.domain.model import Position, PositionStatus, RequestStatus
from closeflow.storage.book import mapping
from closeflow.storage.close_requests import OWNED, STATE, RequestState, listed, state_of
from closeflow.storage.core.statements import fetch

CLOCKS_APART: Final = timedelta(minutes=10)
"""How far a host's clock, which the id of a request was made by, may be from the database's, which dated it."""
LAST_REQUEST: Final = UUID(int=2**128 - 1)
"""Above every id: where a list of requests, the newest first, begins."""
_FIRST_REQUEST: Final = UUID(int=0)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECONDS: Final = 48

_OF_THESE: Final = f"""
    (SELECT n.account_id FROM unnest(CAST(:asked AS text[])) AS n (account_id) WHERE {OWNED.format("n")}) AS a
"""  # noqa: S608 (constants of ours)
_OF_EVERY_ONE: Final = "accounts AS a"
_SINCE: Final = "(CAST(:created_after AS timestamptz) IS NULL OR c.created_at > :created_after)"


def _requests(page: str) -> TextClause:
    return text(f"""
        SELECT {STATE} FROM ({page}) AS r JOIN positions p ON p.id = r.position_id ORDER BY r.id DESC
    """)  # noqa: S608


# The bounds are rows of the index's columns, and so is the order: then this index alone serves both. Said otherwise
# (`account_id = a.account_id`), the order is that of the id, and the planner reads all accounts by the primary key.
def _requests_of(accounts: str, columns: str) -> TextClause:
    bound = columns.replace("c.account_id", "a.account_id").replace("c.status", ":status")
    return _requests(f"""
        SELECT of_one.* FROM {accounts} CROSS JOIN LATERAL (
            SELECT c.* FROM close_requests c
            WHERE ({columns}, c.id) < ({bound}, :before) AND ({columns}, c.id) > ({bound}, :oldest) AND {_SINCE}
            ORDER BY {columns.replace(",", " DESC,")} DESC, c.id DESC LIMIT :limit
        ) AS of_one ORDER BY of_one.id DESC LIMIT :limit
    """)  # noqa: S608


# By the primary key, backwards.
_REQUESTS: Final = _requests(f"""
    SELECT c.* FROM close_requests c WHERE c.id < :before AND c.id > :oldest AND {_SINCE}
    ORDER BY c.id DESC LIMIT :limit
""")  # noqa: S608
# By (account_id, id) and by (status, account_id, id), backwards, once per account.
_REQUESTS_OF_ACCOUNTS: Final = _requests_of(_OF_THESE, "c.account_id")
_REQUESTS_OF_ACCOUNTS_BY_STATUS: Final = _requests_of(_OF_THESE, "c.status, c.account_id")
_REQUESTS_BY_STATUS: Final = _requests_of(_OF_EVERY_ONE, "c.status, c.account_id")
# By (position_id, idempotency_key): a position has few.
_REQUESTS_OF_POSITION: Final = _requests(f"""
    SELECT c.* FROM close_requests c
    WHERE c.position_id = :position_id AND {OWNED.format("c")} AND c.id < :before AND c.id > :oldest AND {_SINCE}
      AND (CAST(:account AS text) IS NULL OR c.account_id = :account)
      AND (CAST(:status AS text) IS NULL OR c.status = :status)
    ORDER BY c.id DESC LIMIT :limit
""")  # noqa: S608


def _positions_of(accounts: str, columns: str) -> TextClause:
    bound = (
        columns.replace("p.account_id", "a.account_id").replace("p.symbol", ":symbol").replace("p.status", "s.status")
    )
    return text(f"""
        SELECT of_one.* FROM {accounts} CROSS JOIN unnest(CAST(:statuses AS text[])) AS s (status) CROSS JOIN LATERAL (
            SELECT p.* FROM positions p
            WHERE ({columns}, p.id) > ({bound}, :after) AND ({columns}) <= ({bound})
            ORDER BY {columns}, p.id LIMIT :limit
        ) AS of_one ORDER BY of_one.id LIMIT :limit
    """)  # noqa: S608


# By the primary key.
_POSITIONS: Final = text("SELECT p.* FROM positions p WHERE p.id > :after ORDER BY p.id LIMIT :limit")
# By (status, account_id, id) and by (symbol, status, account_id, id), once per account and status: there are five.
_POSITIONS_OF_ACCOUNTS: Final = _positions_of(_OF_THESE, "p.status, p.account_id")
_POSITIONS_OF_ACCOUNTS_BY_SYMBOL: Final = _positions_of(_OF_THESE, "p.symbol, p.status, p.account_id")
_POSITIONS_BY_STATUS: Final = _positions_of(_OF_EVERY_ONE, "p.status, p.account_id")
_POSITIONS_BY_SYMBOL: Final = _positions_of(_OF_EVERY_ONE, "p.symbol, p.status, p.account_id")


async def list_requests(
    tx: AsyncConnection,
    *,
    accounts: Collection[str] | None,
    account: str | None,
    status: RequestStatus | None,
    position_id: int | None,
    created_after: datetime | None,
    before: UUID,
    limit: int,
) -> list[RequestState]:
    """The newest requests below the id `before`, with their positions; only those of `accounts`, None being all.

    Ids are UUIDv7, so their order is that of the hosts' clocks. `created_after` compares the database's time, and finds
    whatever was made by a clock within `CLOCKS_APART` of it.
    """
    given = {
        "accounts": listed(accounts),
        "asked": _asked(accounts, account),
        "account": account,
        "status": status,
        "position_id": position_id,
        "created_after": created_after,
        "before": before,
        "oldest": _oldest(created_after),
        "limit": limit,
    }
    if position_id is not None:
        statement = _REQUESTS_OF_POSITION
    elif given["asked"] is not None:
        statement = _REQUESTS_OF_ACCOUNTS if status is None else _REQUESTS_OF_ACCOUNTS_BY_STATUS
    else:
        statement = _REQUESTS if status is None else _REQUESTS_BY_STATUS
    return [state_of(row) for row in await fetch(tx, statement, given)]


async def list_positions(
    tx: AsyncConnection,
    *,
    accounts: Collection[str] | None,
    account: str | None,
    status: PositionStatus | None,
    symbol: str | None,
    after: int,
    limit: int,
) -> list[Position]:
    """Positions with an id above `after`, ids ascending; only those of `accounts`, None being all."""
    asked = _asked(accounts, account)
    given = {
        "accounts": listed(accounts),
        "asked": asked,
        "statuses": [one.value for one in PositionStatus] if status is None else [status.value],
        "symbol": symbol,
        "after": after,
        "limit": limit,
    }
    if asked is not None:
        statement = _POSITIONS_OF_ACCOUNTS if symbol is None else _POSITIONS_OF_ACCOUNTS_BY_SYMBOL
    elif symbol is not None:
        statement = _POSITIONS_BY_SYMBOL
    else:
        statement = _POSITIONS if status is None else _POSITIONS_BY_STATUS
    return [mapping.position(row) for row in await fetch(tx, statement, given)]


def _asked(accounts: Collection[str] | None, account: str | None) -> list[str] | None:
    """Whose rows are looked for; None for everyone's. Which of them the caller may see, the statement says."""
    return listed(accounts) if account is None else [account]


def _oldest(created_after: datetime | None) -> UUID:
    """Below the id of every request that is looked for."""
    if created_after is None:
        return _FIRST_REQUEST
    milliseconds = (created_after - _EPOCH - CLOCKS_APART) // timedelta(milliseconds=1)
    return UUID(int=min(max(milliseconds, 0), 2**_MILLISECONDS - 1) << (128 - _MILLISECONDS))
