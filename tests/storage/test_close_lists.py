"""Pages of requests and positions: what they give, and that each reads a page's rows whatever the tables hold."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

import devstack
from closeflow.domain.model import PositionStatus, RequestStatus
from closeflow.storage.close_lists import CLOCKS_APART, LAST_REQUEST, list_positions, list_requests
from closeflow.storage.close_requests import find_position, find_request, find_requests
from closeflow.storage.core.engine import Transaction, make_engine, transaction
from tests.conftest import Database, fresh_database

ROWS: Final = 200_000
BEGAN: Final = datetime(2026, 3, 2, tzinfo=UTC)
ROLE: Final = "closeflow_close_api"
# Of four accounts one has a tenth of a percent, one five percent, and two the rest; one position in 1000 is open, one
# request in 1000 failed. Requests are a second apart.
_SEED: Final = """
    INSERT INTO accounts (account_id, broker) SELECT a, 'alpaca' FROM unnest('{A,B,C,D}'::text[]) AS a;
    CREATE FUNCTION account_of(n integer) RETURNS text LANGUAGE sql AS $$
        SELECT CASE WHEN n % 1000 = 0 THEN 'A' WHEN n % 20 = 1 THEN 'B' WHEN n % 2 = 0 THEN 'C' ELSE 'D' END $$;
    INSERT INTO positions (id, account_id, symbol, asset_type, opening_qty, quantity, status, closed_at,
                           reopened_at)
    SELECT n, account_of(n), 'S' || CASE WHEN n % 7 = 3 THEN 3 WHEN n % 5003 = 0 THEN 2 ELSE 1 END, 'stock', 10,
           CASE WHEN n % 1009 = 0 THEN 10 ELSE 0 END,
           CASE WHEN n % 1009 = 0 THEN 'close_failed' ELSE 'closed' END, now(), now()
    FROM generate_series(1, %(rows)s) AS n;
    INSERT INTO close_requests (id, position_id, account_id, idempotency_key, fingerprint, requested_by, status, symbol,
                                side, asset_type, target_qty, filled_qty, time_in_force, created_at)
    SELECT (lpad(to_hex((extract(epoch FROM '2026-03-02Z'::timestamptz + n * interval '1 s') * 1000)::bigint), 12, '0')
            || '7000' || '8000' || lpad(to_hex(n), 12, '0'))::uuid,
           n, account_of(n), 'k', 'f', 'me', CASE WHEN n % 1009 = 0 THEN 'failed' ELSE 'completed' END, 'S', 'sell',
           'stock', 10, 10, 'day', '2026-03-02Z'::timestamptz + n * interval '1 s'
    FROM generate_series(1, %(rows)s) AS n
"""


@pytest.fixture(scope="module")
def full(stack: devstack.Stack, template: str) -> Iterator[Database]:
    with fresh_database(stack, template) as made, psycopg.connect(made.admin_dsn, autocommit=True) as db:
        db.execute("SET session_replication_role = replica")
        for statement in _SEED.split(";\n    "):
            db.execute(statement.replace("%(rows)s", str(ROWS)).encode())
        db.execute("VACUUM ANALYZE")
        yield made


@pytest.fixture(scope="module", params=[True, False], ids=["by_index", "as planned"])
async def engine(request: pytest.FixtureRequest, full: Database) -> AsyncIterator[AsyncEngine]:
    """As close-api has it, and as closectl has it."""
    made = make_engine(full.dsn(ROLE), pool_size=2, application_name="closeflow-tests", by_index=request.param)
    yield made
    await made.dispose()


@dataclass(frozen=True)
class Question:
    """What is asked of a list, and the same as a plain condition."""

    given: dict[str, Any]
    where: str
    accounts: frozenset[str] | None = None
    more: int = 0
    """Rows that may be read beyond those of the pages."""

    def __str__(self) -> str:
        return " ".join(
            [*(f"{name}={value}" for name, value in self.given.items()), str(self.accounts and "restricted")]
        )


A_FEW: Final = frozenset({"A", "B"})
OF_A_FEW: Final = "account_id IN ('A', 'B')"
REQUESTS: Final = (
    Question({}, "true"),
    Question({}, OF_A_FEW, accounts=A_FEW),
    Question({}, "account_id = 'A'", accounts=frozenset({"A"})),
    Question({}, "false", accounts=frozenset()),
    Question({"account": "A"}, "account_id = 'A'"),
    Question({"account": "B"}, "account_id = 'B'", accounts=A_FEW),
    Question({"account": "C"}, "false", accounts=A_FEW),
    Question({"status": RequestStatus.FAILED}, "status = 'failed'"),
    Question({"status": RequestStatus.COMPLETED}, "status = 'completed'"),
    Question({"status": RequestStatus.PENDING}, "false"),
    Question({"status": RequestStatus.FAILED}, f"status = 'failed' AND {OF_A_FEW}", accounts=A_FEW),
    Question({"account": "C", "status": RequestStatus.FAILED}, "status = 'failed' AND account_id = 'C'"),
    Question({"account": "D", "status": RequestStatus.FAILED}, "false", accounts=A_FEW),
    Question(
        {"created_after": BEGAN + timedelta(seconds=ROWS - 70)},
        f"position_id > {ROWS - 70}",
        more=int(CLOCKS_APART.total_seconds()) + 1,
    ),
    Question(
        {"created_after": BEGAN + timedelta(seconds=ROWS - 5000)},
        f"position_id > {ROWS - 5000} AND account_id = 'A'",
        accounts=frozenset({"A"}),
    ),
    Question({"created_after": BEGAN + timedelta(days=1000)}, "false"),
    Question({"position_id": 2000}, "position_id = 2000"),
    Question({"position_id": 2000, "account": "A"}, "position_id = 2000", accounts=A_FEW),
    Question({"position_id": 2000, "status": RequestStatus.FAILED}, "false"),
    Question({"position_id": 2002}, "false", accounts=A_FEW),
    Question({"position_id": 2000, "account": "B"}, "false", accounts=A_FEW),
)
POSITIONS: Final = (
    Question({}, "true"),
    Question({}, OF_A_FEW, accounts=A_FEW),
    Question({}, "account_id = 'A'", accounts=frozenset({"A"})),
    Question({}, "false", accounts=frozenset()),
    Question({"account": "C"}, "account_id = 'C'"),
    Question({"account": "C"}, "false", accounts=A_FEW),
    Question({"status": PositionStatus.CLOSE_FAILED}, "status = 'close_failed'"),
    Question({"status": PositionStatus.OPEN}, "false"),
    Question({"status": PositionStatus.CLOSE_FAILED}, f"status = 'close_failed' AND {OF_A_FEW}", accounts=A_FEW),
    Question({"symbol": "S2"}, "symbol = 'S2'"),
    Question({"symbol": "S1"}, f"symbol = 'S1' AND {OF_A_FEW}", accounts=A_FEW),
    Question({"symbol": "S3", "account": "C"}, "symbol = 'S3' AND account_id = 'C'"),
    Question({"symbol": "none"}, "false", accounts=A_FEW),
    Question(
        {"symbol": "S1", "status": PositionStatus.CLOSE_FAILED, "account": "D"},
        "symbol = 'S1' AND status = 'close_failed' AND account_id = 'D'",
    ),
)
PAGE: Final = 30
NO_FILTERS: Final[dict[str, Any]] = {"account": None, "status": None}
READ: Final = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = %(table)s"


def first_ids(database: Database, table: str, where: str, order: str) -> list[Any]:
    with psycopg.connect(database.admin_dsn) as db:
        query = f"SELECT id FROM {table} WHERE {where} ORDER BY id {order} LIMIT {3 * PAGE}"  # noqa: S608 (of this file)
        return [row[0] for row in db.execute(query.encode()).fetchall()]


async def rows_read(tx: Transaction, table: str) -> int:
    """What this session has read of a table and not reported yet."""
    return int((await tx.exec_driver_sql(READ, {"table": table})).scalar_one())


def accounts_read(question: Question) -> int:
    if question.given.get("account"):
        return 1
    return len(question.accounts) if question.accounts is not None else 4


@pytest.mark.parametrize("question", REQUESTS, ids=str)
async def test_pages_of_requests_are_in_order_and_read_no_more_than_they_give(
    engine: AsyncEngine, full: Database, question: Question
) -> None:
    expected = first_ids(full, "close_requests", question.where, "DESC")
    filters = {**NO_FILTERS, "position_id": None, "created_after": None, **question.given}
    found: list[UUID] = []
    before = LAST_REQUEST
    for _ in range(3):
        async with transaction(engine) as tx:
            was_read = await rows_read(tx, "close_requests")
            page = await list_requests(tx, accounts=question.accounts, before=before, limit=PAGE, **filters)
            read = await rows_read(tx, "close_requests") - was_read
        assert read <= max(accounts_read(question) * PAGE, 1) + question.more
        assert all(request.position_id == position.id for request, position in page)
        found += [request.id for request, _ in page]
        before = found[-1] if found else before
    assert found == expected


@pytest.mark.parametrize("question", POSITIONS, ids=str)
async def test_pages_of_positions_are_in_order_and_read_no_more_than_they_give(
    engine: AsyncEngine, full: Database, question: Question
) -> None:
    expected = first_ids(full, "positions", question.where, "ASC")
    filters = {**NO_FILTERS, "symbol": None, **question.given}
    found: list[int] = []
    for _ in range(3):
        after = found[-1] if found else 0
        async with transaction(engine) as tx:
            was_read = await rows_read(tx, "positions")
            page = await list_positions(tx, accounts=question.accounts, after=after, limit=PAGE, **filters)
            read = await rows_read(tx, "positions") - was_read
        assert read <= accounts_read(question) * len(PositionStatus) * PAGE
        found += [position.id for position in page]
    assert found == expected


async def test_a_request_and_a_position_are_found_by_those_who_may_see_them(engine: AsyncEngine) -> None:
    async with transaction(engine) as tx:
        (mine,) = await list_requests(
            tx, accounts=None, before=LAST_REQUEST, limit=5, **NO_FILTERS, position_id=1000, created_after=None
        )
        request_id = mine[0].id
        assert await find_request(tx, request_id=request_id) == mine
        assert await find_request(tx, request_id=request_id, accounts={"A", "B"}) == mine
        assert await find_request(tx, request_id=request_id, accounts={"B"}) is None
        assert await find_request(tx, request_id=request_id, accounts=()) is None
        assert await find_request(tx, request_id=UUID(int=1), accounts={"A"}) is None
        assert await find_position(tx, position_id=1000) == mine[1]
        assert await find_position(tx, position_id=1000, accounts={"A"}) == mine[1]
        assert await find_position(tx, position_id=1000, accounts={"B"}) is None
        assert await find_requests(tx, request_ids=[request_id, UUID(int=1)]) == {request_id: mine}
