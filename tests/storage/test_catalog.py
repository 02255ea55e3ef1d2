"""What `alembic check` cannot see: publication, partitions, triggers, and how functions run."""

from collections.abc import Iterator

import psycopg
import pytest

from closeflow.domain.lots import LOTS
from closeflow.domain.model import AssetType
from tests.conftest import Database
from tests.storage.seeding import Owner, owner


@pytest.fixture
def db(module_database: Database) -> Iterator[Owner]:
    with owner(module_database.admin_dsn) as connection:
        yield connection


def test_the_publication_has_inserts_of_two_tables_through_the_root(db: Owner) -> None:
    published = db.execute(
        "SELECT puballtables, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot FROM pg_publication"
        " WHERE pubname = 'closeflow_outbox'"
    ).fetchall()
    tables = db.execute("SELECT tablename FROM pg_publication_tables WHERE pubname = 'closeflow_outbox' ORDER BY 1")
    assert published == [(False, True, False, False, False, True)]
    assert tables.fetchall() == [("debezium_heartbeat",), ("outbox_events",)]


def test_the_outbox_has_today_seven_more_days_and_a_default(db: Owner) -> None:
    bounds = db.execute(
        "SELECT c.relname, pg_get_expr(c.relpartbound, c.oid)"
        " FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
        " WHERE i.inhparent = 'outbox_events'::regclass ORDER BY 1"
    ).fetchall()
    days = db.execute(
        "SELECT 'outbox_events_p' || to_char(d, 'YYYYMMDD'), format('FOR VALUES FROM (%L) TO (%L)', d, d + 1)"
        " FROM (SELECT (now() AT TIME ZONE 'UTC')::date + n AS d FROM generate_series(0, 7) n) AS days"
    ).fetchall()
    assert bounds == [("outbox_events_default", "DEFAULT"), *sorted(days)]


def test_the_history_is_written_by_statement_level_triggers(db: Owner) -> None:
    triggers = db.execute(
        "SELECT tgrelid::regclass::text, tgname, tgtype & 1, tgoldtable, tgnewtable FROM pg_trigger"
        " WHERE NOT tgisinternal AND tgname LIKE '%history%' ORDER BY 1, 2"
    ).fetchall()
    per_row = 0
    assert triggers == [
        (table, f"{table}_history_{done}", per_row, old, "new_rows")
        for table in ("close_requests", "orders", "positions")
        for done, old in (("inserted", None), ("updated", "old_rows"))
    ]


def test_functions_with_the_owners_rights_fix_their_search_path_and_are_not_for_everybody(db: Owner) -> None:
    functions = db.execute(
        "SELECT proname, 'search_path=pg_catalog, public, pg_temp' = ANY (proconfig),"
        " has_function_privilege('closeflow_close_api', oid, 'EXECUTE') FROM pg_proc"
        " WHERE pronamespace = 'public'::regnamespace AND prosecdef"
    ).fetchall()
    assert len(functions) == 11
    assert {found[1:] for found in functions} == {(True, False)}


def test_the_clock_is_inlined_and_can_be_shifted(db: Owner) -> None:
    plan = db.execute(
        "EXPLAIN (VERBOSE, COSTS OFF) SELECT FROM close_requests WHERE next_attempt_at <= closeflow_now()"
    ).fetchall()
    assert "closeflow_now" not in str(plan)
    with db.transaction():
        db.execute("SET LOCAL closeflow.clock_shift = '-1 hour'")
        shifted = db.execute("SELECT closeflow_now() = statement_timestamp() - interval '1 hour'").fetchone()
    assert shifted == (True,)
    assert db.execute("SELECT closeflow_now() = now()").fetchone() == (True,)


def test_the_clock_goes_on_within_a_transaction(db: Owner) -> None:
    """So what is decided after a wait for a lock is later than what was waited for."""
    with db.transaction():
        db.execute("SELECT pg_sleep(0.01)")
        passed = db.execute("SELECT closeflow_now() - now() >= interval '10 ms'").fetchone()
    assert passed == (True,)


def test_every_foreign_key_has_an_index_on_its_side(db: Owner) -> None:
    """Else deleting or moving a referenced row reads the whole table."""
    bare = db.execute(
        "SELECT conrelid::regclass::text, conname FROM pg_constraint k WHERE contype = 'f' AND conparentid = 0"
        " AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = k.conrelid AND i.indkey[0] = k.conkey[1])"
    ).fetchall()
    assert bare == []


@pytest.mark.parametrize("asset_type", AssetType)
def test_a_closed_position_keeps_less_than_a_lot_at_most(db: Owner, asset_type: AssetType) -> None:
    insert = (
        "INSERT INTO positions (account_id, symbol, asset_type, opening_qty, quantity, status, closed_at)"
        " VALUES ('acc', 'A', %s, 1, %s, 'closed', now())"
    )
    with db.transaction(force_rollback=True):
        db.execute("INSERT INTO accounts (account_id, broker) VALUES ('acc', 'alpaca') ON CONFLICT DO NOTHING")
        db.execute(insert, (asset_type, -LOTS[asset_type] / 2))
        with pytest.raises(psycopg.errors.CheckViolation):
            db.execute(insert, (asset_type, LOTS[asset_type]))
