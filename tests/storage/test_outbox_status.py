"""The seed's status of an event (pending, processing, completed, failed), derived from what happened to it."""

from collections.abc import Iterator

import pytest
from psycopg.types.json import Jsonb

from tests.conftest import Database
from tests.storage.seeding import Owner, add_event, add_order, add_position, add_request, owner


@pytest.fixture
def db(module_database: Database) -> Iterator[Owner]:
    with owner(module_database.admin_dsn) as connection, connection.transaction(force_rollback=True):
        yield connection


def receive(db: Owner, event_id: object, outcome: str) -> None:
    db.execute(
        "INSERT INTO inbox (consumer, event_id, outcome) VALUES ('order-submitter', %s, %s)", (event_id, outcome)
    )


def publish(db: Owner, *, missing: str | None = None) -> None:
    """The audit has seen everything up to now in Kafka, but for `missing`."""
    db.execute(
        "INSERT INTO outbox_audit (day, audited_through, missing) SELECT (now() AT TIME ZONE 'UTC')::date,"
        " (pg_current_xact_id()::text::bigint + 1)::text::xid8, %s",
        (Jsonb([{"id": missing, "emission": 1}] if missing else []),),
    )


def status(db: Owner) -> str:
    rows = db.execute("SELECT status FROM outbox_status").fetchall()
    assert len(rows) == 1
    return str(rows[0][0])


@pytest.mark.parametrize(
    ("outcome", "order", "published", "expected"),
    [
        (None, None, False, "pending"),
        (None, None, True, "processing"),
        ("ignored", None, False, "processing"),
        ("applied", None, False, "completed"),
        ("parked", None, False, "failed"),
        ("applied", "planned", False, "processing"),
        ("applied", "submit_unknown", True, "processing"),
        ("applied", "partially_filled", True, "processing"),
        ("applied", "filled", True, "completed"),
        ("applied", "canceled", True, "completed"),
        ("applied", "denied", True, "failed"),
        ("applied", "rejected", True, "failed"),
        ("parked", "filled", True, "completed"),
    ],
)
def test_an_order_to_submit(db: Owner, outcome: str | None, order: str | None, published: bool, expected: str) -> None:
    position_id = add_position(db)
    request_id = add_request(db, position_id)
    event_id = add_event(db, request_id=request_id)
    if outcome:
        receive(db, event_id, outcome)
    if order:
        add_order(db, request_id, position_id, status=order)
    if published:
        publish(db)
    assert status(db) == expected


def test_an_ignored_event_of_a_finished_request_is_done_with(db: Owner) -> None:
    event_id = add_event(db, request_id=add_request(db, add_position(db), status="failed"))
    receive(db, event_id, "ignored")
    assert status(db) == "completed"


@pytest.mark.parametrize(
    ("published", "missing", "expected"), [(0, 0, "pending"), (1, 0, "completed"), (1, 1, "pending")]
)
def test_an_event_for_risk_or_accounting(db: Owner, published: int, missing: int, expected: str) -> None:
    event_id = add_event(db, topic="position-events")
    if published:
        publish(db, missing=str(event_id) if missing else None)
    assert status(db) == expected
