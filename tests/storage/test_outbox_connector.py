"""A row in the outbox is a record in Kafka: through the real Debezium, from the partitioned table, at once."""

import asyncio
import json
import re
import statistics
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import psycopg
import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

import devstack
from closectl.platform.connector import NotRegistered, Outbox, register, unregister, write_credentials
from closeflow.storage.schema import migrate
from tests.conftest import Database, outbox_connector, passwords
from tests.storage.seeding import Owner, add_event, owner

EVENT = """
    INSERT INTO outbox_events (id, topic, key, event_type, schema_version, payload, traceparent, close_request_id,
        attempt, emission, position_version) VALUES (%s, 'submit-order', %s, 'SUBMIT_CLOSE_ORDER', 'submit-order.v1',
        %s, %s, %s, %s, %s, %s)"""


@pytest.fixture(scope="module")
def prefix(module_database: Database) -> str:
    return f"{module_database.name}."


@pytest.fixture(scope="module")
def outbox(module_database: Database, prefix: str) -> Iterator[Outbox]:
    with outbox_connector(module_database, topic_prefix=prefix) as made:
        yield made


@pytest.fixture(scope="module")
def db(module_database: Database, outbox: Outbox) -> Iterator[Owner]:
    with owner(module_database.admin_dsn) as connection:
        yield connection


@pytest.fixture
async def records(stack: devstack.Stack, prefix: str, outbox: Outbox) -> AsyncIterator[Any]:
    """A consumer of the topic `submit-order` from its present end on."""
    topic = f"{prefix}submit-order"
    admin = AIOKafkaAdminClient(bootstrap_servers=stack.kafka_bootstrap_servers)
    await admin.start()
    if topic not in await admin.list_topics():
        await admin.create_topics([NewTopic(topic, num_partitions=6, replication_factor=1)])
    await admin.close()
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=stack.kafka_bootstrap_servers, auto_offset_reset="latest")
    await consumer.start()
    await consumer.seek_to_end()
    yield consumer
    await consumer.stop()


async def next_record(consumer: Any) -> Any:
    async with asyncio.timeout(20):
        return await consumer.getone()


def headers(record: Any) -> dict[str, str | None]:
    return {name: None if value is None else value.decode() for name, value in record.headers}


async def test_a_row_arrives_with_its_key_payload_and_headers(db: Owner, records: Any) -> None:
    event_id, request_id = uuid.uuid4(), uuid.uuid4()
    payload: dict[str, object] = {"b": None, "quantity": "1.50", "list": [], "text": 'a "quoted" ü'}
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    db.execute(EVENT, (event_id, "42", json.dumps(payload), trace, request_id, 2, 3, None))
    record = await next_record(records)
    found = headers(record)
    assert (record.key, json.loads(record.value)) == (b"42", payload)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", found.pop("ce_time") or "")
    assert found == {
        "id": str(event_id),
        "ce_id": str(event_id),
        "ce_type": "SUBMIT_CLOSE_ORDER",
        "ce_source": "/closeflow/outbox",
        "ce_specversion": "1.0",
        "ce_dataschema": "submit-order.v1",
        "content-type": "application/json",
        "traceparent": trace,
        "close_request_id": str(request_id),
        "attempt": "2",
        "emission": "3",
        "position_version": None,
    }


async def test_a_row_that_is_late_by_days_has_a_fresh_record_time(db: Owner, records: Any) -> None:
    """A record stamped with the row's own time would be deleted at once by the topic's retention."""
    with db.transaction():
        db.execute("SET LOCAL closeflow.clock_shift = '-30 days'")
        add_event(db)
    record = await next_record(records)
    assert abs(record.timestamp / 1000 - time.time()) < 60


async def test_rows_of_the_default_partition_are_published_once_also_when_they_move(db: Owner, records: Any) -> None:
    caught = add_event(db, day="2001-01-01")
    db.execute("SELECT closeflow_ensure_outbox_partitions(7)")
    after = add_event(db)
    assert [headers(await next_record(records))["id"] for _ in range(2)] == [str(caught), str(after)]


async def test_events_of_one_key_keep_their_order(db: Owner, records: Any) -> None:
    sent = [uuid.uuid4() for _ in range(50)]
    with db.transaction():
        for event_id in sent:
            db.execute(EVENT, (event_id, "7", "{}", None, None, None, 1, None))
    assert [headers(await next_record(records))["id"] for _ in sent] == [str(event_id) for event_id in sent]


async def test_what_is_rolled_back_is_never_published(db: Owner, records: Any) -> None:
    with db.transaction(force_rollback=True):
        add_event(db)
    committed = add_event(db)
    assert headers(await next_record(records))["id"] == str(committed)


async def test_it_takes_milliseconds(db: Owner, records: Any, record_property: Any) -> None:
    """5.3 ms in the median on an idle machine, 477 ms with Debezium's defaults; the bound leaves room for busy ones."""
    waits = []
    for _ in range(100):
        add_event(db)
        committed = time.perf_counter()
        await next_record(records)
        waits.append((time.perf_counter() - committed) * 1000)
    record_property("commit_to_consumer_ms_p50", statistics.median(waits))
    assert statistics.median(waits) < 100


async def test_a_heartbeat_moves_the_slot_while_other_tables_change(db: Owner, outbox: Outbox) -> None:
    def confirmed() -> str:
        row = db.execute(
            "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = %s", (outbox.slot,)
        )
        return str((row.fetchone() or ("",))[0])

    before = confirmed()
    async with asyncio.timeout(30):
        while confirmed() == before:
            db.execute("INSERT INTO operator_actions (by, action, subject, reason) VALUES ('me', 'x', 'y', 'z')")
            await asyncio.sleep(0.1)
    assert db.execute("SELECT count(*) <= 1 FROM debezium_heartbeat").fetchone() == (True,)


def test_registering_again_changes_nothing(
    stack: devstack.Stack, module_database: Database, db: Owner, outbox: Outbox
) -> None:
    def running_since() -> Any:
        rows = db.execute("SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s", (outbox.slot,))
        return rows.fetchone()

    before = running_since()
    register(stack.connect_url, outbox, dsn=module_database.admin_dsn)
    assert running_since() == before


def test_no_secret_is_shown_by_the_worker(stack: devstack.Stack, outbox: Outbox) -> None:
    shown = httpx.get(f"{stack.connect_url}/connectors/{outbox.connector}/config").json()
    assert shown["database.password"] == f"${{file:{outbox.credentials_file}:password}}"
    assert outbox.credentials_file.stat().st_mode & 0o077 == 0


@pytest.fixture
def unregistered(stack: devstack.Stack, database: Database) -> Iterator[Outbox]:
    """A connector that is not there yet, and its own credentials file where the worker sees it."""
    credentials = stack.data_dir / f"{database.name}.properties"
    write_credentials(credentials, passwords(stack)[migrate.DEBEZIUM])
    yield Outbox(
        database.name, stack.connect_postgres_host, stack.connect_postgres_port, credentials, f"{database.name}."
    )
    credentials.unlink()


@pytest.fixture
def own(stack: devstack.Stack, database: Database, unregistered: Outbox) -> Iterator[Outbox]:
    """A running connector whose credentials file is this test's own."""
    made = unregistered
    try:
        register(stack.connect_url, made, dsn=database.admin_dsn)
        yield made
    finally:
        unregister(stack.connect_url, made, dsn=database.admin_dsn)


class Worker:
    """The REST interface of one connector, for breaking it."""

    def __init__(self, stack: devstack.Stack, outbox: Outbox) -> None:
        self._url = f"{stack.connect_url}/connectors/{outbox.connector}"

    def ask(self, path: str) -> Any:
        return httpx.get(f"{self._url}/{path}").raise_for_status().json()

    def tell(self, method: str, path: str) -> None:
        httpx.request(method, f"{self._url}/{path}").raise_for_status()

    def states(self) -> list[str]:
        status = self.ask("status")
        return [status["connector"]["state"], *(task["state"] for task in status["tasks"])]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "not within 30 s"
        time.sleep(0.05)


def slot_is(db: Owner, outbox: Outbox) -> bool | None:
    row = db.execute("SELECT active FROM pg_replication_slots WHERE slot_name = %s", (outbox.slot,)).fetchone()
    return None if row is None else bool(row[0])


def test_a_task_that_started_with_an_old_password_is_restarted(
    stack: devstack.Stack, database: Database, own: Outbox
) -> None:
    worker = Worker(stack, own)
    write_credentials(own.credentials_file, "wrong")
    with owner(database.admin_dsn) as db:
        worker.tell("POST", "restart?includeTasks=true")
        inactive_in_a_row = 0
        while inactive_in_a_row < 40:  # two seconds: no start takes that long to get its slot, if it can
            inactive_in_a_row = 0 if slot_is(db, own) else inactive_in_a_row + 1
            time.sleep(0.05)
        assert worker.states() == ["RUNNING", "RUNNING"], "which is why the slot must be looked at"
        write_credentials(own.credentials_file, passwords(stack)[migrate.DEBEZIUM])
        register(stack.connect_url, own, dsn=database.admin_dsn)
        # Seen once: active when registering returned, and not at the next look.
        until(lambda: slot_is(db, own) is True)


def test_a_lost_slot_needs_a_person(stack: devstack.Stack, database: Database, own: Outbox) -> None:
    """Starting afresh would lose the events between without a word, so registering must not do it."""
    worker = Worker(stack, own)
    with owner(database.admin_dsn) as db:
        add_event(db)
        until(lambda: bool(worker.ask("offsets")["offsets"]))
        worker.tell("PUT", "stop")
        until(lambda: worker.states() == ["STOPPED"] and slot_is(db, own) is False)
        db.execute("SELECT pg_drop_replication_slot(%s)", (own.slot,))
        worker.tell("PUT", "resume")
        with pytest.raises(NotRegistered, match=r"slot \w+ was lost"):
            register(stack.connect_url, own, dsn=database.admin_dsn)
        assert slot_is(db, own) is not True


def test_a_worker_that_is_not_there_is_said_so(database: Database, outbox: Outbox) -> None:
    with pytest.raises(NotRegistered, match="does not answer"):
        register("http://127.0.0.1:9", outbox, dsn=database.admin_dsn, deadline_s=0.3)


def test_a_wrong_password_is_said_so(stack: devstack.Stack, database: Database, unregistered: Outbox) -> None:
    write_credentials(unregistered.credentials_file, "wrong")
    with pytest.raises(NotRegistered, match="login of closeflow_debezium"):
        register(stack.connect_url, unregistered, dsn=database.admin_dsn, deadline_s=2)
    with psycopg.connect(database.admin_dsn) as connection:
        assert connection.execute("SELECT FROM pg_replication_slots WHERE database = current_database()").rowcount == 0
