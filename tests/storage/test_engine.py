"""What a transaction promises when things go wrong around it."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import time_machine
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, TimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from closeflow.storage.core.engine import CommitUnknown, is_poison, make_engine, retrying, sqlstate, transaction
from tests.conftest import Database
from tests.storage.seeding import add_event, owner

TOUCH = text("UPDATE broker_cursors SET position = position || :mark WHERE feed = :feed")
# A deferred trigger runs inside COMMIT: it waits there until somebody ends the session.
HANG_IN_COMMIT = """
    CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(30); RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER hang AFTER INSERT ON trading_controls DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION hang();
"""
END_WHO_COMMITS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE query = 'COMMIT' AND wait_event = 'PgSleep' AND datname = current_database()
"""
PAST_EVENT = text("""
    INSERT INTO outbox_events (created_on, id, topic, key, event_type, schema_version, payload)
    VALUES ('2001-02-03', gen_random_uuid(), 't', 'k', 'X', 'x.v1', '{}')
""")
HALT = text("INSERT INTO trading_controls (scope, state, reason, by) VALUES ('acc', 'halted', 'r', 'me')")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in another process
            await asyncio.sleep(0.01)


@pytest.fixture
def cursors(database: Database) -> None:
    with owner(database.admin_dsn) as db:
        for feed in ("a", "b"):
            db.execute(
                "INSERT INTO broker_cursors (broker, account_id, feed, position) VALUES ('x', 'x', %s, '')", (feed,)
            )


async def positions(engine: AsyncEngine) -> list[str]:
    async with engine.connect() as tx:
        return [
            str(value)
            for value in (await tx.execute(text("SELECT position FROM broker_cursors ORDER BY feed"))).scalars()
        ]


@pytest.mark.usefixtures("cursors")
async def test_a_block_that_raises_leaves_nothing(engine: AsyncEngine) -> None:
    async def fail() -> None:
        async with transaction(engine) as tx:
            await tx.execute(TOUCH, {"mark": "x", "feed": "a"})
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        await fail()
    assert await positions(engine) == ["", ""]


@pytest.mark.usefixtures("cursors")
async def test_two_deadlocked_transactions_both_happen(engine: AsyncEngine) -> None:
    both_hold_one = asyncio.Barrier(2)
    tries = 0

    async def work(tx: AsyncConnection, first: str, second: str) -> str:
        nonlocal tries
        tries += 1
        await tx.execute(TOUCH, {"mark": first, "feed": first})
        if tries <= 2:
            await both_hold_one.wait()
        await tx.execute(TOUCH, {"mark": first, "feed": second})
        return first

    done = await asyncio.gather(
        retrying(engine, lambda tx: work(tx, "a", "b")), retrying(engine, lambda tx: work(tx, "b", "a"))
    )
    assert (*done, tries) == ("a", "b", 3)
    assert {"".join(sorted(value)) for value in await positions(engine)} == {"ab"}


async def test_the_victim_of_every_try_is_raised_in_the_end(engine: AsyncEngine) -> None:
    tries = 0

    async def work(tx: AsyncConnection) -> None:
        nonlocal tries
        tries += 1
        await tx.execute(text("DO $$ BEGIN RAISE EXCEPTION 'victim' USING ERRCODE = '40001'; END $$"))

    with pytest.raises(DBAPIError) as caught:
        await retrying(engine, work, attempts=3)
    assert (sqlstate(caught.value), tries) == ("40001", 3)


async def test_any_other_error_is_raised_at_once(engine: AsyncEngine) -> None:
    tries = 0

    async def work(tx: AsyncConnection) -> None:
        nonlocal tries
        tries += 1
        await tx.execute(text("SELECT 1 / 0"))

    with pytest.raises(DBAPIError) as caught:
        await retrying(engine, work)
    assert (sqlstate(caught.value), is_poison(caught.value), tries) == ("22012", True, 1)


async def test_a_row_whose_partition_is_made_meanwhile_is_written_there(
    database: Database, engine: AsyncEngine
) -> None:
    """It waits for the default partition, whose bound is a narrower one afterwards."""
    day = "SELECT tableoid::regclass::text, count(*) FROM outbox_events GROUP BY 1"
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"

    async def write(tx: AsyncConnection) -> None:
        await tx.execute(PAST_EVENT)

    with owner(database.admin_dsn) as db, psycopg.connect(database.admin_dsn) as mover:
        add_event(db, day="2001-02-03")
        mover.execute("SELECT closeflow_ensure_outbox_partitions(7)")
        writing = asyncio.create_task(retrying(engine, write))
        await until(lambda: db.execute(waiting).fetchone() == (1,))
        mover.commit()
        await writing
        assert db.execute(day).fetchall() == [("outbox_events_p20010203", 2)]


async def test_a_row_that_breaks_a_rule_of_the_schema_is_at_fault_itself(engine: AsyncEngine) -> None:
    async def write(tx: AsyncConnection) -> None:
        await tx.execute(text("INSERT INTO trading_controls (scope, state, reason, by) VALUES ('a', 'no', 'r', 'me')"))

    with pytest.raises(DBAPIError) as caught:
        await retrying(engine, write)
    assert (sqlstate(caught.value), is_poison(caught.value)) == ("23514", True)


async def test_a_connection_lost_inside_commit_is_an_unknown_outcome(database: Database, engine: AsyncEngine) -> None:
    with owner(database.admin_dsn) as db:
        db.execute(HANG_IN_COMMIT)

        async def halt() -> None:
            async with transaction(engine) as tx:
                await tx.execute(HALT)

        committing = asyncio.create_task(halt())
        await until(lambda: db.execute(END_WHO_COMMITS).rowcount == 1)
        with pytest.raises(CommitUnknown):
            await committing


async def test_an_error_that_the_server_answers_to_commit_is_not_unknown(
    database: Database, engine: AsyncEngine
) -> None:
    with owner(database.admin_dsn) as db:
        db.execute(HANG_IN_COMMIT.replace("PERFORM pg_sleep(30)", "RAISE EXCEPTION 'no' USING ERRCODE = '23514'"))
    with pytest.raises(DBAPIError) as caught:
        async with transaction(engine) as tx:
            await tx.execute(HALT)
    assert is_poison(caught.value)


async def test_a_connection_lost_before_commit_is_an_error_without_a_sqlstate_class_of_data(
    engine: AsyncEngine,
) -> None:
    with pytest.raises(DBAPIError) as caught:
        async with transaction(engine) as tx:
            await tx.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    assert not is_poison(caught.value)
    async with transaction(engine) as tx:
        assert (await tx.execute(text("SELECT 1"))).scalar_one() == 1


@pytest.mark.parametrize(
    ("limits", "statement", "state"),
    [
        ({"statement_timeout_ms": 50}, "SELECT pg_sleep(5)", "57014"),
        ({"idle_in_transaction_timeout_ms": 50}, "SELECT 1", "25P03"),
    ],
)
async def test_time_is_limited(database: Database, limits: dict[str, Any], statement: str, state: str) -> None:
    engine = make_engine(database.admin_dsn, pool_size=1, application_name="t", **limits)

    async def idle_in_a_transaction() -> None:
        async with transaction(engine) as tx:
            await tx.execute(text(statement))
            await until(lambda: db.execute("SELECT FROM pg_stat_activity WHERE application_name = 't'").rowcount == 0)
            await tx.execute(text(statement))

    with owner(database.admin_dsn) as db, pytest.raises(DBAPIError) as caught:
        await idle_in_a_transaction()
    assert sqlstate(caught.value) == state
    await engine.dispose()


async def test_waiting_for_a_connection_is_limited(database: Database) -> None:
    engine = make_engine(database.admin_dsn, pool_size=1, application_name="t", pool_timeout_s=0.05)
    async with engine.connect():
        with pytest.raises(TimeoutError):
            await engine.connect()
    await engine.dispose()


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_clock_that_is_wrong_at_a_disconnect_costs_no_connection_later(database: Database, hours: int) -> None:
    """Of two connections one is found dead, and the pool throws both away; what is made then is kept."""
    engine = make_engine(database.admin_dsn, pool_size=2, application_name="t")
    who = text("SELECT pg_backend_pid()")

    async def two() -> set[int]:
        async with engine.connect() as first, engine.connect() as second:
            return {(await one.execute(who)).scalar_one() for one in (first, second)}

    try:
        ended = await two()
        with time_machine.travel(datetime.now(UTC) + timedelta(hours=hours), tick=True):
            with owner(database.admin_dsn) as db:
                db.execute("SELECT pg_terminate_backend(pid, 5000) FROM unnest(%s::int[]) AS pid", (list(ended),))
            with pytest.raises(DBAPIError):
                async with engine.connect() as tx:
                    await tx.execute(who)
        made = await two()
        assert not made & ended
        assert await two() == made
    finally:
        await engine.dispose()
