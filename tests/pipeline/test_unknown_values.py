"""Records of a newer writer, whose values this release does not know: parked, told of once, and applied once they can
be read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid4

import pytest
from psycopg.types.json import Jsonb

import devstack
from closeflow.contracts import BROKER_FILL, SUBMIT_ORDER, ErrorClass
from closeflow.contracts.record_headers import PARKED_SINCE
from closeflow.domain.ids import client_order_id
from closeflow.kafka import DeadLetter, KafkaConnection, Outgoing, Producer, open_producer
from closeflow.storage.core.engine import Database as Engine
from closeflow.storage.core.engine import make_engine
from closeflow.unit_of_work import park_unknown_values
from fill_processor.__main__ import serve
from fill_processor.settings import FillProcessorSettings
from reconciler.jobs.release_parked import ReleaseParked
from reconciler.jobs.resolve_incidents import ResolveIncidents
from tests.pipeline.filling import UpdateRecord, add_order, executions, fill, published
from tests.pipeline.submitting import Bench, start_at_the_end

if TYPE_CHECKING:
    from tests.conftest import Database

KIND: Final = "unknown_value"


@pytest.fixture
async def producer(stack: devstack.Stack) -> AsyncIterator[Producer]:
    async with open_producer(KafkaConnection(stack.kafka_bootstrap_servers)) as made:
        yield made


@pytest.fixture
def job(engine: Engine, producer: Producer) -> ReleaseParked:
    return ReleaseParked(engine, producer, budget=100)


@pytest.fixture
async def fills(database: Database) -> AsyncIterator[Engine]:
    made = make_engine(database.dsn("closeflow_fill_processor"), pool_size=2, application_name="test")
    yield made
    await made.dispose()


@asynccontextmanager
async def fill_processor(database: Database) -> AsyncIterator[None]:
    """The service, as it is put together, from the records that come now on."""
    servers, group = database.stack.kafka_bootstrap_servers, f"test-{uuid4().hex[:12]}"
    await start_at_the_end(servers, group, BROKER_FILL)
    settings = FillProcessorSettings(
        postgres_dsn=database.dsn("closeflow_fill_processor"),
        kafka_bootstrap_servers=servers,
        consumer_group=group,
    )
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(settings, stop))
    try:
        yield
        assert not serving.done(), serving
    finally:
        stop.set()
        async with asyncio.timeout(60):
            await serving


def with_fields(record: UpdateRecord, **changes: object) -> Outgoing:
    value = json.dumps({**json.loads(record.raw), **changes}).encode()
    return Outgoing(topic=record.topic, key=record.key, value=value, headers=record.headers)


def newer_event(bench: Bench, request_id: UUID, **changes: object) -> Outgoing:
    message = bench.message(request_id)
    assert message.value is not None
    value = json.dumps({**json.loads(message.value), **changes}).encode()
    return Outgoing(topic=message.topic, key=message.key, value=value)


def parked(bench: Bench) -> list[dict[str, Any]]:
    return bench.query("SELECT *, released_at IS NOT NULL AS released FROM parked_records ORDER BY parked_at, reason")


def incidents(bench: Bench) -> dict[str, int]:
    """Subject and count of each open incident about values of a newer writer."""
    rows = bench.query("SELECT subject, count FROM incidents WHERE kind = %(kind)s AND closed_at IS NULL", kind=KIND)
    return {row["subject"]: row["count"] for row in rows}


def park_by_hand(bench: Bench, record: Outgoing, reason: str, *, ago: timedelta, since: timedelta) -> int:
    """A record as a reader of an older release left it; returns its offset."""
    now, offset = datetime.now(UTC), uuid4().int >> 66
    bench.execute(
        'INSERT INTO parked_records (topic, partition, "offset", key, headers, bytes, reason, parked_at)'
        " VALUES (%(topic)s, 0, %(offset)s, %(key)s, %(headers)s, %(value)s, %(reason)s, %(parked_at)s)",
        topic=record.topic,
        offset=offset,
        key=record.key,
        headers=Jsonb({PARKED_SINCE: (now - since).isoformat()}),
        value=record.value,
        reason=f"unknown_value: {reason}",
        parked_at=now - ago,
    )
    return offset


def letter(record: Outgoing, reason: str, **headers: bytes) -> DeadLetter:
    return DeadLetter(
        topic=record.topic,
        partition=0,
        offset=uuid4().int >> 66,
        key=record.key,
        raw=record.value,
        headers=tuple(headers.items()),
        reason=reason,
        error_class=ErrorClass.UNKNOWN_VALUE,
    )


async def test_an_update_with_an_unknown_value_is_parked_and_the_others_of_its_position_go_on(
    bench: Bench, database: Database, producer: Producer, job: ReleaseParked
) -> None:
    first, second = (bench.add_request() for _ in range(2))
    for request_id in (first, second):
        add_order(bench, request_id)
    update, other = fill(bench, first), fill(bench, second)
    # More than the limit of dead letters.
    newer = [with_fields(update, event_id=str(uuid4()), exec_type="restated") for _ in range(200)]
    async with fill_processor(database):
        await producer.publish_many(newer)
        await producer.publish_many([with_fields(update, wanted_by="a newer reader"), with_fields(other)])
        await bench.until(lambda: executions(bench, first) + executions(bench, second) == 2, "both fills are booked")
        await bench.until(lambda: len(parked(bench)) == 200, "all of them are parked")
    assert [bench.position(one)["status"] for one in (first, second)] == ["closed", "closed"]
    assert bench.request(first)["frozen_reason"] is None
    assert incidents(bench) == {"broker-fill: exec_type: 'restated' is not known": 200}
    (detail,) = bench.query("SELECT detail ->> 'text' AS text FROM incidents WHERE kind = %(kind)s", kind=KIND)
    assert "exec_type: 'restated' is not known" in detail["text"]
    assert {(one["client_order_id"], one["reason"], one["released"]) for one in parked(bench)} == {
        (client_order_id(first, 1), "unknown_value: exec_type: 'restated' is not known", False)
    }
    assert {bytes(one["bytes"]) for one in parked(bench)} == {one.value for one in newer}
    assert await job.once() == 0, "this release cannot read them either, though their order is known"


# A sequence keeps its count when the transaction is taken back.
AWAY_TWICE: Final = """
    CREATE SEQUENCE tries;
    CREATE FUNCTION away_twice() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
    BEGIN
        IF nextval('tries') <= 2 THEN
            RAISE 'the database is starting up' USING ERRCODE = '57P03';
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER away_twice BEFORE INSERT ON parked_records FOR EACH ROW EXECUTE FUNCTION away_twice();
"""


async def test_what_cannot_be_parked_while_the_database_is_away_is_parked_afterwards(
    bench: Bench, database: Database, producer: Producer
) -> None:
    request_id = bench.add_request()
    add_order(bench, request_id)
    update = fill(bench, request_id)
    bench.execute(AWAY_TWICE)
    async with fill_processor(database):
        await producer.publish_many([with_fields(update, exec_type="restated"), with_fields(update)])
        await bench.until(lambda: executions(bench, request_id) == 1, "what comes behind is booked")
    assert bench.query("SELECT last_value FROM tries")[0]["last_value"] == 3
    assert [bytes(one["bytes"]) for one in parked(bench)] == [with_fields(update, exec_type="restated").value]
    assert incidents(bench) == {"broker-fill: exec_type: 'restated' is not known": 1}


async def test_an_update_that_can_be_read_after_the_upgrade_is_applied_once(
    bench: Bench, database: Database, engine: Engine, producer: Producer, job: ReleaseParked
) -> None:
    """To the release that parked them, `trade` was not known; `restated` is not to this one."""
    request_id = bench.add_request()
    add_order(bench, request_id)
    update = fill(bench, request_id)
    minute = timedelta(minutes=1)
    park_by_hand(bench, with_fields(update), "exec_type: 'trade' is not known", ago=minute, since=minute)
    restated = with_fields(update, exec_type="restated")
    stays = park_by_hand(bench, restated, "exec_type: 'restated' is not known", ago=minute, since=minute)
    for value in ("trade", "restated"):
        subject = f"broker-fill: exec_type: '{value}' is not known"
        bench.execute(
            "INSERT INTO incidents (kind, severity, detail, last_seen_at) VALUES (%(kind)s, 'critical', %(detail)s,"
            " now() - interval '2 minutes')",
            kind=KIND,
            detail=Jsonb({"subject": subject, "text": ""}),
        )
    assert await ResolveIncidents(engine).once() == 0, "both have something parked"
    async with fill_processor(database):
        assert (await job.once(), await job.once()) == (1, 0)
        await bench.until(lambda: executions(bench, request_id) == 1, "the fill is booked")
        # As if the job had died before it noted the release.
        bench.execute('UPDATE parked_records SET released_at = NULL WHERE "offset" <> %(stays)s', stays=stays)
        assert await job.once() == 1
        await published(bench, 2)
        last = bench.add_request()
        add_order(bench, last)
        await producer.publish_many([with_fields(fill(bench, last))])
        await bench.until(lambda: executions(bench, last) == 1, "what comes behind is booked")
    assert (executions(bench, request_id), bench.position(request_id)["status"]) == (1, "closed")
    assert {one["offset"]: one["released"] for one in parked(bench)}[stays] is False
    assert await ResolveIncidents(engine).once() == 1
    assert incidents(bench) == {"broker-fill: exec_type: 'restated' is not known": 1}


async def test_an_event_with_an_unknown_value_is_parked_and_planned_once_when_it_can_be_read(
    bench: Bench, producer: Producer, job: ReleaseParked
) -> None:
    newer, other = bench.add_request(), bench.add_request()
    with bench.submitter():
        await producer.publish_many([newer_event(bench, newer, asset_type="future")])
        await producer.publish_many([newer_event(bench, other, wanted_by="a newer reader")])
        await bench.hear(other)
        await bench.until(lambda: len(parked(bench)) == 1, "it is parked")
        assert incidents(bench) == {"submit-order: asset_type: 'future' is not known": 1}
        assert bench.orders(newer) == []
        assert bench.request(newer)["frozen_reason"] is None
        assert await job.once() == 0, "this release cannot read it, though its request is known"

        # A release in which what it says is known.
        known = bench.message(newer).value
        bench.execute("UPDATE parked_records SET bytes = %(known)s", known=known)
        assert (await job.once(), await job.once()) == (1, 0)
        await bench.hear(newer)
        await bench.until(lambda: bench.sends(newer) == ["accepted"], "the send is answered")
    assert len(bench.orders(newer)) == 1
    (one,) = parked(bench)
    assert (one["client_order_id"], one["released"]) == (client_order_id(newer, 1), True)


async def test_what_the_new_release_reads_and_refuses_is_given_to_its_consumer(
    bench: Bench, job: ReleaseParked
) -> None:
    """Its value is known by now and another field is wrong: a dead letter, which the consumer tells of."""
    request_id = bench.add_request()
    wrong = with_fields(fill(bench, request_id), last_qty="NaN")
    minute = timedelta(minutes=1)
    park_by_hand(bench, wrong, "exec_type: 'trade' is not known", ago=minute, since=minute)
    assert await job.once() == 1


@pytest.mark.parametrize(
    ("ago_s", "since_s", "released"),
    [
        (0, 0, 1),  # parked just now, for the first time
        (30, 90, 0),  # it had waited 60 s when it was parked again, and has waited 30 s since
        (59, 119, 0),
        (61, 121, 1),
        (3500, 90_000, 0),
        (3700, 90_000, 1),  # no longer than an hour
    ],
)
async def test_a_record_that_was_parked_again_waits_as_long_as_it_had_waited(
    ago_s: int, since_s: int, released: int, bench: Bench, job: ReleaseParked
) -> None:
    record = with_fields(fill(bench, bench.add_request()))
    park_by_hand(
        bench,
        record,
        "exec_type: 'trade' is not known",
        ago=timedelta(seconds=ago_s),
        since=timedelta(seconds=since_s),
    )
    assert await job.once() == released


async def test_a_consumer_that_is_older_than_the_reconciler_parks_again_since_the_first_time(
    bench: Bench, fills: Engine, job: ReleaseParked
) -> None:
    record, reason = with_fields(fill(bench, bench.add_request())), "exec_type: 'trade' is not known"
    await park_unknown_values(fills, [letter(record, reason)])
    (first,) = parked(bench)
    assert datetime.fromisoformat(first["headers"][PARKED_SINCE]) == first["parked_at"]
    assert await job.once() == 1
    (again,) = await published(bench, 1)
    since = dict(again.headers)[PARKED_SINCE]
    assert since is not None
    await park_unknown_values(fills, [letter(record, reason, **{PARKED_SINCE: since})])
    _, second = parked(bench)
    assert second["headers"][PARKED_SINCE] == first["headers"][PARKED_SINCE]
    assert second["parked_at"] > first["parked_at"]
    assert incidents(bench) == {f"broker-fill: {reason}": 2}


@pytest.mark.parametrize(
    "since", [b"", b"yesterday", b"2026-01-01", b"9999-01-01T00:00:00Z", b"0001-01-01T00:00+14:00"]
)
async def test_a_time_that_nobody_can_have_written_counts_as_now(since: bytes, bench: Bench, fills: Engine) -> None:
    record = letter(with_fields(fill(bench, bench.add_request())), "r", **{PARKED_SINCE: since})
    await park_unknown_values(fills, [record])
    (one,) = parked(bench)
    assert datetime.fromisoformat(one["headers"][PARKED_SINCE]) == one["parked_at"]


async def test_parking_the_same_records_twice_keeps_each_once(bench: Bench, fills: Engine) -> None:
    request_id = bench.add_request()
    update = letter(with_fields(fill(bench, request_id)), "side: 'sideways' is not known")
    event = letter(newer_event(bench, request_id), "asset_type: 'future' is not known")
    nothing = letter(Outgoing(topic=SUBMIT_ORDER, key=None, value=b"{}"), "asset_type: 'future' is not known")
    records: Sequence[DeadLetter] = (update, event, nothing)
    await park_unknown_values(fills, records)
    await park_unknown_values(fills, records)
    named = client_order_id(request_id, 1)
    assert sorted((one["offset"], one["client_order_id"]) for one in parked(bench)) == sorted(
        [(update.offset, named), (event.offset, named), (nothing.offset, None)]
    )
    assert incidents(bench).keys() == {
        "broker-fill: side: 'sideways' is not known",
        "submit-order: asset_type: 'future' is not known",
    }


async def test_an_incident_that_was_seen_just_now_stays_open(bench: Bench, engine: Engine, fills: Engine) -> None:
    """What is being parked while it is looked for cannot be seen."""
    record = letter(with_fields(fill(bench, bench.add_request())), "side: 'sideways' is not known")
    await park_unknown_values(fills, [record])
    bench.execute("UPDATE parked_records SET released_at = now()")
    assert await ResolveIncidents(engine).once() == 0
    bench.execute("UPDATE incidents SET last_seen_at = now() - interval '2 minutes'")
    assert await ResolveIncidents(engine).once() == 1
    assert incidents(bench) == {}
