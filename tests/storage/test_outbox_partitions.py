"""Days of the outbox are made ahead, caught up with, and dropped only when the audit knows them to be published."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import psycopg
import pytest

from tests.conftest import Database
from tests.storage.seeding import Owner, add_event, owner

PAST = "2001-02-03"
FAR_FUTURE_XID = "999999999"


@pytest.fixture
def db(database: Database) -> Iterator[Owner]:
    with owner(database.admin_dsn) as connection:
        yield connection


def ensure(db: Owner, days: int) -> int:
    row = db.execute("SELECT closeflow_ensure_outbox_partitions(%s)", (days,)).fetchone()
    assert row is not None
    return int(row[0])


def homes(db: Owner) -> list[str]:
    return [row[0] for row in db.execute("SELECT tableoid::regclass::text FROM outbox_events ORDER BY 1")]


def drop_day(db: Owner, day: str) -> bool:
    row = db.execute("SELECT closeflow_drop_outbox_partition(%s)", (day,)).fetchone()
    assert row is not None
    return bool(row[0])


def audit(db: Owner, day: str, *, through: str, missing: str = "[]") -> None:
    db.execute(
        "INSERT INTO outbox_audit VALUES (%s, %s, %s) ON CONFLICT (day)"
        " DO UPDATE SET audited_through = EXCLUDED.audited_through, missing = EXCLUDED.missing",
        (day, through, missing),
    )


def test_days_are_made_once(db: Owner) -> None:
    assert [ensure(db, 7), ensure(db, 9), ensure(db, 9)] == [0, 2, 0]


def test_the_days_follow_the_clock_of_the_database(db: Owner) -> None:
    db.execute("SET closeflow.clock_shift = '3 days'")
    assert ensure(db, 7) == 3
    add_event(db, day=str(datetime.now(UTC).date() + timedelta(days=3)))
    assert homes(db)[0].startswith("outbox_events_p")


@pytest.mark.parametrize("days", [-1, 367, None])
def test_a_senseless_number_of_days_is_refused(db: Owner, days: int | None) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        db.execute("SELECT closeflow_ensure_outbox_partitions(%s::int)", (days,))


def test_a_day_without_a_partition_is_caught_and_moved_later(db: Owner) -> None:
    event_id = add_event(db, day=PAST)
    assert homes(db) == ["outbox_events_default"]
    assert ensure(db, 7) == 1
    assert homes(db) == ["outbox_events_p20010203"]
    assert db.execute("SELECT id, created_on FROM outbox_events").fetchall() == [(event_id, date(2001, 2, 3))]


def test_making_days_does_not_wait_for_writers(database: Database, db: Owner) -> None:
    with psycopg.connect(database.admin_dsn) as writer:
        writer.execute(
            "INSERT INTO outbox_events (id, topic, key, event_type, schema_version, payload)"
            " VALUES (gen_random_uuid(), 't', 'k', 'X', 'x.v1', '{}')"
        )
        assert ensure(db, 9) == 2


def test_a_published_day_is_dropped(db: Owner) -> None:
    add_event(db, day=PAST)
    ensure(db, 7)
    audit(db, PAST, through=FAR_FUTURE_XID)
    assert [drop_day(db, PAST), drop_day(db, PAST)] == [True, False]
    assert homes(db) == []


@pytest.mark.parametrize(
    ("through", "missing"),
    [(None, "[]"), ("3", "[]"), (FAR_FUTURE_XID, '[{"id": "00000000-0000-0000-0000-000000000000", "emission": 1}]')],
    ids=["never audited", "audited up to an earlier transaction", "something is missing"],
)
def test_a_day_that_kafka_may_lack_is_kept(db: Owner, through: str | None, missing: str) -> None:
    add_event(db, day=PAST)
    ensure(db, 7)
    if through is not None:
        audit(db, PAST, through=through, missing=missing)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="every event of 2001-02-03"):
        drop_day(db, PAST)
    assert len(homes(db)) == 1


def test_a_day_that_is_kept_waits_for_no_reader_and_locks_out_no_writer(database: Database, db: Owner) -> None:
    add_event(db, day=PAST)
    ensure(db, 7)
    with psycopg.connect(database.admin_dsn) as reader:
        reader.execute("SELECT FROM outbox_events")
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
            drop_day(db, PAST)


def test_today_is_never_dropped(db: Owner) -> None:
    today = str(datetime.now(UTC).date())
    audit(db, today, through=FAR_FUTURE_XID)
    with pytest.raises(psycopg.errors.ObjectInUse):
        drop_day(db, today)
