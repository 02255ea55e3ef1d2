"""Every change of status is kept, whoever makes it and however many rows a statement touches."""

from collections.abc import Iterator

import psycopg
import pytest

from tests.conftest import Database
from tests.storage.seeding import Owner, add_order, add_position, add_request, owner

Move = tuple[str, str | None, str]


@pytest.fixture
def db(database: Database) -> Iterator[Owner]:
    with owner(database.admin_dsn) as connection:
        yield connection


def history(db: Owner, entity: str) -> list[Move]:
    rows = db.execute(
        "SELECT entity_id, from_status, to_status FROM status_history WHERE entity = %s ORDER BY id", (entity,)
    )
    return [(row[0], row[1], row[2]) for row in rows]


def test_an_insert_is_a_move_from_nothing(db: Owner) -> None:
    position_id = add_position(db)
    request_id = add_request(db, position_id)
    order_id = add_order(db, request_id, position_id)
    assert history(db, "position") == [(str(position_id), None, "open")]
    assert history(db, "close_request") == [(str(request_id), None, "pending")]
    assert history(db, "order") == [(order_id, None, "planned")]


def test_one_statement_over_many_rows_keeps_each_move_once(db: Owner) -> None:
    ids = [add_position(db, symbol) for symbol in ("A", "B", "C")]
    db.execute("UPDATE positions SET status = 'closing' WHERE id = %s", (ids[0],))
    db.execute("UPDATE positions SET status = CASE WHEN id = %s THEN 'open' ELSE 'closing' END", (ids[0],))
    assert history(db, "position")[3:] == [
        (str(ids[0]), "open", "closing"),
        (str(ids[0]), "closing", "open"),
        (str(ids[1]), "open", "closing"),
        (str(ids[2]), "open", "closing"),
    ]


def test_an_update_that_leaves_the_status_is_no_move(db: Owner) -> None:
    add_position(db)
    db.execute("UPDATE positions SET status = 'open', version = version + 1")
    assert len(history(db, "position")) == 1


def test_an_upsert_is_what_it_did(db: Owner) -> None:
    position_id = add_position(db)
    db.execute(
        "INSERT INTO positions (id, account_id, symbol, asset_type, opening_qty, quantity)"
        " SELECT id, account_id, symbol, asset_type, 1, 1 FROM positions"
        " ON CONFLICT (id) DO UPDATE SET status = 'close_failed'"
    )
    assert history(db, "position")[1:] == [(str(position_id), "open", "close_failed")]


def test_what_is_rolled_back_never_happened(db: Owner) -> None:
    add_position(db)
    with db.transaction(force_rollback=True):
        db.execute("UPDATE positions SET status = 'closing'")
    assert len(history(db, "position")) == 1


def test_it_says_who_why_and_by_which_event(database: Database, db: Owner) -> None:
    position_id = add_position(db)
    add_request(db, position_id)
    with psycopg.connect(database.dsn("closeflow_order_submitter"), autocommit=True) as submitter:
        submitter.execute("UPDATE close_requests SET status = 'failed', reason = 'bad lot'")
        with submitter.transaction():
            submitter.execute(
                "SELECT set_config('closeflow.by', 'pod-7', true), set_config('closeflow.event_id', 'e1', true)"
            )
            submitter.execute("UPDATE positions SET status = 'closing'")
        submitter.execute("UPDATE positions SET status = 'open'")
    rows = db.execute("SELECT to_status, by, reason, event_id FROM status_history WHERE by <> current_user ORDER BY id")
    assert rows.fetchall() == [
        ("failed", "closeflow_order_submitter", "bad lot", None),
        ("closing", "pod-7", None, "e1"),
        ("open", "closeflow_order_submitter", None, None),
    ]
