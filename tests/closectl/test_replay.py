"""`closectl topics replay`, as the operator's role: a position's events once more, and consumers that end equal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

import devstack
from closeflow.storage.core.engine import make_engine
from tests.closectl.running import ROLE, Done, closectl
from tests.closectl.seeding import Closes
from tests.conftest import Database as OnTestStack
from tests.conftest import fresh_database
from tests.storage.seeding import Owner, owner

EVENTS = """
    SELECT id, emission, topic, key, event_type, position_id, position_version, payload, created_on
    FROM outbox_events ORDER BY occurred_at, topic, position_version, id, emission"""
Row = dict[str, Any]


@pytest.fixture(scope="module")
def own(stack: devstack.Stack, template: str) -> Iterator[OnTestStack]:
    with fresh_database(stack, template) as made:
        yield made


@pytest.fixture(scope="module")
async def filled(own: OnTestStack) -> OnTestStack:
    engine = make_engine(own.admin_dsn, pool_size=3, application_name="closeflow-tests")
    await Closes(engine).make_all()
    await engine.dispose()
    return own


@pytest.fixture
def db(filled: OnTestStack) -> Iterator[Owner]:
    with owner(filled.admin_dsn) as made:
        yield made


def replay(database: OnTestStack, *arguments: str) -> Done:
    return closectl("topics", "replay", *arguments, "--reason", "lost", "--by", "ann", postgres_dsn=database.dsn(ROLE))


def read(db: Owner, query: str = EVENTS) -> list[Row]:
    cursor = db.execute(query)
    names = [column.name for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def risk(rows: list[Row]) -> dict[int, Any]:
    """Only higher versions, in the order of the topic."""
    found: dict[int, Any] = {}
    for row in rows:
        known = found.get(row["position_id"])
        if row["topic"] == "position-events" and (known is None or row["position_version"] > known[0]):
            found[row["position_id"]] = (row["position_version"], row["payload"]["quantity"])
    return found


def accounting(rows: list[Row]) -> dict[str, str]:
    """Each event id once, in the order of the topic."""
    found: dict[str, str] = {}
    for row in rows:
        if row["topic"] == "execution-events":
            found.setdefault(str(row["id"]), row["payload"]["cash_amount"])
    return found


def test_without_yes_it_is_only_shown(filled: OnTestStack, db: Owner) -> None:
    before = read(db)
    done = replay(filled, "1")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == (
        "would be: 2 of execution-events, 3 of position-events of position 1 published again\n"
        "nothing was done; repeat it with --yes\n"
    )
    assert read(db) == before


def test_every_event_of_the_position_is_published_again_and_consumers_end_equal(filled: OnTestStack, db: Owner) -> None:
    before = read(db)
    done = replay(filled, "1", "--yes")
    assert done.exit_code == 0, done.stderr
    after = read(db)
    again = [row for row in after if row not in before]
    mine = [row for row in before if row["position_id"] == 1 and row["topic"] != "submit-order"]
    said = [(one["topic"], one["key"], one["position_version"], str(one["id"])) for one in again]
    assert sorted(said, key=str) == sorted(
        ((one["topic"], one["key"], one["position_version"], str(one["id"])) for one in mine), key=str
    )
    assert [one["position_version"] for one in again if one["topic"] == "position-events"] == [2, 3, 4]
    assert {one["emission"] for one in again} == {2}
    assert {one["payload"]["emission"] for one in again} == {2}
    assert (risk(after), accounting(after)) == (risk(before), accounting(before))
    assert risk(again)[1] == risk(before)[1]
    assert accounting(again) == accounting(mine)
    action = read(db, "SELECT by, action, subject, reason, after FROM operator_actions ORDER BY id")[-1]
    assert (action["by"], action["action"], action["subject"], action["reason"]) == (
        "ann",
        "replay_events",
        "1",
        "lost",
    )
    assert action["after"] == {"events": {"execution-events": 2, "position-events": 3}}


def test_a_second_replay_has_the_next_emission(filled: OnTestStack, db: Owner) -> None:
    for expected in (2, 3):
        done = replay(filled, "2", "--topic", "execution-events", "--yes", "--json")
        assert json.loads(done.stdout)["what"] == "2 of execution-events of position 2 published again"
        found = read(db, "SELECT emission FROM outbox_events WHERE position_id = 2 AND topic = 'execution-events'")
        assert max(row["emission"] for row in found) == expected


def test_what_the_outbox_no_longer_has_is_told(filled: OnTestStack, db: Owner) -> None:
    db.execute("DELETE FROM outbox_events WHERE position_id = 3 AND topic = 'execution-events'")
    db.execute("DELETE FROM outbox_events WHERE position_id = 3 AND position_version = 2")
    done = replay(filled, "3", "--yes")
    assert done.exit_code == 0, done.stderr
    assert "; 2 events more are older than the outbox keeps: a consumer that lacks them reads its topic" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("99",), 1, "there is no position 99; `closectl positions list` shows those that are"),
        (("6",), 1, "the outbox has no event of position 6 for position-events, execution-events"),
        (("1", "--topic", "submit-order"), 2, "--topic must be position-events or execution-events"),
        (("1", "--topic", "trades"), 2, "'trades' is not one of"),
        (("0",), 2, "greater than or equal to 1"),
    ],
)
def test_what_cannot_be_replayed_is_told(filled: OnTestStack, arguments: tuple[str, ...], code: int, told: str) -> None:
    done = replay(filled, *arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1
