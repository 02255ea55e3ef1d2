"""The publication audit and the outbox's partitions, one cycle at a time, on real PostgreSQL and Kafka."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import date, timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.rows import DictRow, dict_row

import devstack
from closeflow.kafka import KafkaConnection, Producer, ensure_topics, load_topics, open_producer
from closeflow.kafka.read_to_end import open_tail
from closeflow.storage.core.engine import make_engine, transaction
from closeflow.storage.outbox_audit import (
    AuditedElsewhere,
    AuditPosition,
    judge_all_again,
    read_positions,
    save_marks,
    save_positions,
)
from closeflow.storage.outbox_partitions import outbox_days
from reconciler.jobs.audit_publication import TOPICS
from reconciler.jobs.keep_partitions import KeepPartitions
from tests.conftest import REPOSITORY
from tests.pipeline.publishing import (
    JUDGED_WITHIN_S,
    PAST,
    WITHIN,
    Outbox,
    audit_until,
    audit_until_emitted,
    audit_until_judged,
)
from tests.storage.seeding import add_position, add_request

if TYPE_CHECKING:
    from tests.conftest import Database


@pytest.fixture
def owner(database: Database) -> Iterator[psycopg.Connection[DictRow]]:
    with psycopg.connect(database.admin_dsn, autocommit=True, row_factory=dict_row) as connection:
        yield connection


@pytest.fixture(scope="module")
async def producer(stack: devstack.Stack) -> AsyncIterator[Producer]:
    kafka = KafkaConnection(stack.kafka_bootstrap_servers)
    await ensure_topics(kafka, load_topics(REPOSITORY / "schemas" / "topics"))
    async with open_producer(kafka) as made:
        yield made


@pytest.fixture
async def outbox(database: Database, owner: psycopg.Connection[DictRow], producer: Producer) -> AsyncIterator[Outbox]:
    kafka = KafkaConnection(database.stack.kafka_bootstrap_servers)
    engine = make_engine(database.dsn("closeflow_reconciler"), pool_size=4, application_name="test")
    made = Outbox(database, kafka, producer, engine, owner)
    made.query("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", made.slot)
    try:
        async with open_tail(kafka, TOPICS, None) as tail:
            await tail.drain()
            made.since = dict(tail.ends)
        yield made
    finally:
        made.query("SELECT pg_drop_replication_slot(%s)", made.slot)
        await engine.dispose()


async def test_the_audit_finds_what_is_not_published_and_when_it_is(outbox: Outbox) -> None:
    audit, lost, published = outbox.audit(), outbox.add(), outbox.add()
    async with outbox.tail() as tail:
        await outbox.publish(published)
        await audit_until(audit, tail, 1)
        assert outbox.open_incidents() == {str(lost)}
        assert await audit.once(tail) == 1, "it stays missing, and is not reported as another one"
        assert outbox.query("SELECT count FROM incidents") == [{"count": 1}]

        await outbox.publish(lost)
        await audit_until(audit, tail, 0)
    assert outbox.open_incidents() == set()
    assert outbox.is_judged()
    assert outbox.emissions() == [], "the slot still had it, so it was not emitted again"


async def test_a_row_is_not_missing_before_the_auditor_has_waited_for_it_itself(outbox: Outbox) -> None:
    audit = outbox.audit(within=timedelta(seconds=30))
    outbox.add()  # a minute old by the database's clock
    async with outbox.tail() as tail:
        assert [await audit.once(tail) for _ in range(3)] == [0, 0, 0]
    assert not outbox.is_judged()


async def test_an_auditor_that_lost_its_lock_takes_no_mark_back(outbox: Outbox) -> None:
    stale, event = outbox.audit(), outbox.add()
    async with outbox.engine.connect() as tx, outbox.tail() as tail:
        days = await outbox_days(tx)
        await outbox.publish(event)
        await audit_until_judged(outbox, stale, tail)
        with pytest.raises(AuditedElsewhere):
            await save_marks(tx, days=[replace(days[-1], through=1)], before={days[-1].day: days[-1].through})


async def test_an_auditor_that_lost_its_lock_does_not_bring_back_what_another_took_back(outbox: Outbox) -> None:
    """The other has found that the topics lost records, and reads them from the beginning."""
    stale, event = outbox.audit(), outbox.add()
    async with outbox.tail() as tail:
        await outbox.publish(event)
        await audit_until_judged(outbox, stale, tail)
        async with transaction(outbox.engine) as tx:
            await judge_all_again(tx)
            taken_back = await read_positions(tx)
        await outbox.publish(outbox.add())
        with pytest.raises(AuditedElsewhere):
            await audit_until(stale, tail, 1)
    async with transaction(outbox.engine) as tx:
        assert await read_positions(tx) == taken_back
    assert {one.offset for one in taken_back.values()} == {0}


async def test_an_auditor_that_knows_of_no_rows_does_not_bring_back_positions_either(outbox: Outbox) -> None:
    known = {("position-events", 0): AuditPosition(7, 7, 1_000)}
    async with transaction(outbox.engine) as tx:
        await save_positions(tx, positions=known, before={})
        await save_positions(tx, positions=known, before=known)
        await judge_all_again(tx)
        with pytest.raises(AuditedElsewhere):
            await save_positions(tx, positions={("position-events", 0): AuditPosition(9, 9, 2_000)}, before=known)
        assert await read_positions(tx) == {("position-events", 0): AuditPosition(0)}


@pytest.mark.parametrize("has_grown", [False, True], ids=["and ends before that", "and has grown beyond that again"])
async def test_what_a_topic_lost_after_it_was_seen_is_emitted_again(outbox: Outbox, has_grown: bool) -> None:
    """The marks say that both were seen; the topic has not the last record that was read, and one of them."""
    lost, kept = outbox.add(), outbox.add()
    await outbox.publish(kept)
    await outbox.older_ones_are_over()
    outbox.owner.execute(
        "INSERT INTO outbox_audit (day, audited_through, missing)"
        " SELECT DISTINCT created_on, pg_snapshot_xmin(pg_current_snapshot()), '[]'::jsonb FROM outbox_events"
    )
    at, *read = (1, 1, 1) if has_grown else (1_000_000_000, None, None)
    outbox.owner.execute("INSERT INTO outbox_audit_positions VALUES ('position-events', 0, %s, %s, %s)", (at, *read))
    stop, audit = asyncio.Event(), outbox.audit()
    audit.interval_s = 0.05
    running = asyncio.create_task(audit.run(stop, lambda: None))
    deadline = time.monotonic() + JUDGED_WITHIN_S
    while not outbox.emissions():
        assert not running.done(), running
        assert time.monotonic() < deadline, "nothing was emitted again"
        outbox.pass_over()
        await asyncio.sleep(0.05)
    stop.set()
    await running
    assert outbox.emissions() == [(lost, 2)]
    assert outbox.open_incidents() == {str(lost)}


async def test_rows_are_judged_in_the_order_of_their_transactions_and_not_of_their_digits(outbox: Outbox) -> None:
    """Transaction 100 comes behind 99: what was looked at first and is not published yet bounds the mark."""
    events = [outbox.add(), outbox.add()]
    for event_id, xact in zip(events, ("99", "100"), strict=True):
        outbox.query("UPDATE outbox_events SET xact_id = %s WHERE id = %s RETURNING id", xact, event_id)
    audit = outbox.audit(within=timedelta(seconds=4))
    async with outbox.tail() as tail:
        await audit_until(audit, tail, 2)
    assert outbox.open_incidents() == {str(one) for one in events}


async def test_a_row_that_commits_late_does_not_fall_under_the_mark(outbox: Outbox) -> None:
    audit = outbox.audit()
    with psycopg.connect(outbox.database.admin_dsn) as late:
        late.execute(
            "INSERT INTO outbox_events (id, topic, key, event_type, schema_version, payload, occurred_at) VALUES"
            " (gen_random_uuid(), 'position-events', '1', 'X', 'x.v1', '{}', now() - interval '1 hour')"
        )
        async with outbox.tail() as tail:
            await outbox.publish(outbox.add())
            assert await audit.once(tail) == 0
            late.commit()
            await audit_until(audit, tail, 1)


async def test_a_new_auditor_finds_what_the_last_one_had_read_and_not_used(outbox: Outbox) -> None:
    with psycopg.connect(outbox.database.admin_dsn) as slow:
        slow.execute("SELECT pg_current_xact_id()")
        async with outbox.tail() as tail:
            used = outbox.audit()
            await outbox.publish(outbox.add())
            await used.once(tail)
        slow.commit()
    assert not outbox.is_judged()
    async with transaction(outbox.engine) as tx:
        positions = await read_positions(tx)
    async with outbox.tail({place: one.offset for place, one in positions.items()}) as tail:
        await audit_until_judged(outbox, outbox.audit(), tail)
    assert outbox.query("SELECT FROM incidents") == []


async def test_what_the_slot_has_passed_over_is_emitted_again_once_with_all_that_followed(outbox: Outbox) -> None:
    audit = outbox.audit()
    first = outbox.add(position=1, version=2)
    lost = outbox.add(position=1, version=3, payload='{"emission": 1, "a": [1]}')
    followed = outbox.add(position=1, version=4)
    other = outbox.add(position=2, version=2)
    async with outbox.tail() as tail:
        for published in (first, followed, other):
            await outbox.publish(published)
        await audit_until(audit, tail, 1)
        assert outbox.emissions() == []

        await audit_until_emitted(outbox, audit, tail, 2)
        assert outbox.emissions() == [(lost, 2), (followed, 2)]
        for _ in range(3):
            await audit.once(tail)
        assert len(outbox.emissions()) == 2, "what is under way is waited for"

        for event_id, emission in outbox.emissions():
            await outbox.publish(event_id, emission)
        await audit_until(audit, tail, 0)
        await audit_until_judged(outbox, audit, tail)
    assert outbox.open_incidents() == set()
    original, copy = outbox.query("SELECT * FROM outbox_events WHERE id = %s ORDER BY emission", lost)
    changed = {name for name in copy if copy[name] != original[name]}
    assert changed == {"emission", "payload", "occurred_at", "xact_id"}
    assert copy["payload"] == {"emission": 2, "a": [1]}
    assert copy["occurred_at"] - original["occurred_at"] > timedelta(seconds=59)


async def test_an_emission_that_is_lost_too_is_emitted_again(outbox: Outbox) -> None:
    audit, lost = outbox.audit(), outbox.add(position=1, version=2)
    async with outbox.tail() as tail:
        await audit.once(tail)
        await audit_until_emitted(outbox, audit, tail, 1)
        await audit.once(tail)  # it looks for the copy now, and the slot passes over it
        await audit_until_emitted(outbox, audit, tail, 2)
        assert outbox.emissions() == [(lost, 2), (lost, 3)]
        assert outbox.open_incidents() == {str(lost)}, "one for the event, not one for each emission"
        (told,) = outbox.query("SELECT count, detail FROM incidents")
        assert (told["count"], "(emission 2)" in told["detail"]["text"]) == (2, True)
        await outbox.publish(lost, 3)
        await audit_until(audit, tail, 0)
    assert outbox.open_incidents() == set()


async def test_a_transaction_with_more_rows_than_the_budget_is_judged(outbox: Outbox) -> None:
    audit = replace(outbox.audit(), budget=2)
    with outbox.owner.transaction():
        events = [outbox.add() for _ in range(5)]
    events.append(outbox.add())
    async with outbox.tail() as tail:
        for event in events:
            await outbox.publish(event)
        await audit_until_judged(outbox, audit, tail)
    assert outbox.open_incidents() == set()


async def test_no_position_is_locked_that_is_not_emitted_again_now(outbox: Outbox) -> None:
    audit = replace(outbox.audit(), emit_budget=2)
    with psycopg.connect(outbox.database.admin_dsn, autocommit=True) as db:
        positions = [add_position(db, symbol) for symbol in ("A", "B", "C")]
    lost = [outbox.add(position=position, version=2) for position in positions]
    with psycopg.connect(outbox.database.admin_dsn) as busy:
        async with outbox.tail() as tail:
            await audit_until(audit, tail, 3)
            outbox.pass_over()
            busy.execute("SELECT FROM positions WHERE id = %s FOR UPDATE", (positions[2],))
            await audit.once(tail)
    assert outbox.emissions() == [(lost[0], 2), (lost[1], 2)]


async def test_of_two_auditors_that_both_think_they_are_alone_one_emits_again(outbox: Outbox) -> None:
    with psycopg.connect(outbox.database.admin_dsn, autocommit=True) as db:
        position = add_position(db)
    outbox.add(position=position, version=2)
    audits = outbox.audit(), outbox.audit()
    await outbox.older_ones_are_over()  # so that both know of the row from their first look on
    async with outbox.tail() as one, outbox.tail() as other:
        await audits[0].once(one)
        await audits[1].once(other)
        outbox.pass_over()
        await asyncio.sleep(WITHIN.total_seconds())  # both have waited long enough by themselves
        done = await asyncio.gather(audits[0].once(one), audits[1].once(other), return_exceptions=True)
    assert {type(one) for one in done} <= {int, AuditedElsewhere}
    assert len(outbox.emissions()) == 1


async def test_a_close_that_is_emitted_again_counts_on_from_there(outbox: Outbox) -> None:
    with psycopg.connect(outbox.database.admin_dsn, autocommit=True) as db:
        position = add_position(db)
        request = add_request(db, position)
        db.execute(
            "INSERT INTO outbox_events (id, topic, key, event_type, schema_version, payload, close_request_id, attempt,"
            " position_id, occurred_at) VALUES (gen_random_uuid(), 'submit-order', '1', 'SUBMIT_CLOSE_ORDER',"
            " 'submit-order.v1', '{\"emission\": 1}', %s, 1, %s, now() - interval '1 minute')",
            (request, position),
        )
    audit = outbox.audit()
    async with outbox.tail() as tail:
        await audit.once(tail)
        await audit_until_emitted(outbox, audit, tail, 1)
    assert outbox.query("SELECT emission FROM close_requests") == [{"emission": 2}]


async def test_records_that_come_again_are_not_kept(outbox: Outbox) -> None:
    audit, events = outbox.audit(), [outbox.add() for _ in range(20)]
    async with outbox.tail() as tail:
        for again in range(2):
            for event in events:
                await outbox.publish(event)
            await audit_until_judged(outbox, audit, tail)
            assert again or len(audit._seen) == 0
        deadline = time.monotonic() + JUDGED_WITHIN_S
        while await audit.once(tail) or len(audit._seen):
            assert time.monotonic() < deadline, f"{len(audit._seen)} records kept"
            await asyncio.sleep(0.05)


async def test_a_missing_event_that_comes_in_a_long_stretch_of_others_is_found(outbox: Outbox) -> None:
    """Late, with more records than are remembered: its row lies below the mark, and it must not be emitted again."""
    audit, late = outbox.audit(), outbox.add(position=1, version=2)
    short = replace(audit, remembered=0, visible_within_s=0)
    async with outbox.tail() as tail:
        await audit_until(audit, tail, 1)
        await audit_until_judged(outbox, audit, tail)
        outbox.pass_over()
        await outbox.publish(late)
        assert await short.once(tail) == 0
    assert (outbox.open_incidents(), outbox.emissions()) == (set(), [])


async def test_rows_of_a_day_without_a_partition_are_audited_too(outbox: Outbox) -> None:
    audit, lost = outbox.audit(), outbox.add(day=PAST)
    keep = KeepPartitions(outbox.engine, days_ahead=7, retention_days=7)
    async with outbox.tail() as tail:
        await audit_until(audit, tail, 1)
        assert outbox.open_incidents() == {str(lost)}
        assert await keep.once() == 0
        assert outbox.open_incidents() == {str(lost), "outbox_events_default"}
        await outbox.publish(lost)
        await audit_until(audit, tail, 0)
    assert await keep.once() == 1, "the row moved to its day's partition, and that is over"
    assert outbox.open_incidents() == set()


async def test_a_day_is_dropped_only_when_all_of_it_is_known_to_be_published(outbox: Outbox) -> None:
    """Whatever the age: with Connect down nothing goes, and what a later emission made good does not hold the day."""
    keep = KeepPartitions(outbox.engine, days_ahead=7, retention_days=7)
    published, lost = outbox.add(day=PAST), outbox.add(day=PAST, position=1, version=2)
    assert await keep.once() == 0, "nobody has audited it"
    audit = outbox.audit()
    async with outbox.tail() as tail:
        await outbox.publish(published)
        await audit_until(audit, tail, 1)
        assert await keep.once() == 0, "one event is missing"
        await audit_until_emitted(outbox, audit, tail, 1)
        assert await keep.once() == 0, "its second emission is under way"
        await outbox.publish(lost, 2)
        await audit_until(audit, tail, 0)
    assert await keep.once() == 1
    left = outbox.query("SELECT id, emission, created_on FROM outbox_events")
    assert [(row["id"], row["emission"], row["created_on"] > date.fromisoformat(PAST)) for row in left] == [
        (lost, 2, True)
    ]
