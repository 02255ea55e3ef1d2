"""A primary killed while its outbox is written, and its standby promoted: what Kafka gets, with a real Debezium.

The whole system under load is in `tests/drills/failover.py`.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final, LiteralString
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID, uuid4

import psycopg
from psycopg.rows import TupleRow

import devstack
from closectl.platform.connector import Outbox, outbox_of, register, unregister, write_credentials
from closeflow.domain.outbox.replication_slot import Limits
from closeflow.kafka import KafkaConnection, ensure_topics, load_topics
from closeflow.kafka.read_to_end import open_tail
from closeflow.storage.core.engine import make_engine, transaction
from closeflow.storage.outbox_audit import read_positions
from closeflow.storage.schema import migrate
from closeflow.storage.schema.databases import ensure_database
from reconciler.connect_client import open_connect
from reconciler.jobs.audit_publication import TOPICS, AuditPublication
from reconciler.jobs.watch_replication import WatchReplication
from tests.conftest import REPOSITORY, passwords
from tests.failover.pair import Pair, primary_behind_an_address

WITHIN_S: Final = 120.0
PUBLISHED_WITHIN: Final = timedelta(seconds=2)
LIMITS: Final = Limits(timedelta(seconds=1), 1024**3, 0, timedelta(minutes=1))
TOPIC: Final = "position-events"
INSERT: Final = (
    "INSERT INTO outbox_events (id, topic, key, event_type, schema_version, payload)"
    " VALUES (%s, 'position-events', '1', 'POSITION_OPEN', 'position-event.v1', '{}')"
)


class Writer(threading.Thread):
    """Commits one row of the outbox after the other, over failovers. `acknowledged` are those whose COMMIT was."""

    def __init__(self, dsn: str) -> None:
        super().__init__(daemon=True)
        self.acknowledged: list[UUID] = []
        self.ended = threading.Event()
        self._dsn = dsn

    def run(self) -> None:
        while not self.ended.is_set():
            try:
                with psycopg.connect(self._dsn, autocommit=True, connect_timeout=2) as connection:
                    while not self.ended.wait(0.02):
                        event_id = uuid4()
                        connection.execute(INSERT.encode(), (event_id,))
                        self.acknowledged.append(event_id)
            except psycopg.OperationalError:
                time.sleep(0.05)


@contextmanager
def published_through_a_pair(stack: devstack.Stack, *, slot: bool) -> Iterator[tuple[Pair, Outbox, str]]:
    """A connector on a database of a primary whose standby follows synchronously; with the owner's login."""
    name = f"failover_{uuid4().hex[:8]}"
    with primary_behind_an_address(stack, stack.data_dir / name) as pair:
        dsn = urlunsplit(urlsplit(pair.stack.admin_dsn)._replace(path=f"/{name}"))
        ensure_database(pair.stack.admin_dsn, name)
        migrate.upgrade(dsn)
        migrate.set_role_passwords(dsn, passwords(stack))
        credentials = Path(stack.data_dir / f"{name}.properties")
        write_credentials(credentials, passwords(stack)[migrate.DEBEZIUM])
        made = outbox_of(dsn, credentials)
        outbox = Outbox(made.database, made.host, made.port, credentials, failover=slot)
        try:
            register(stack.connect_url, outbox, dsn=dsn)
            pair.add_standby(name, slots=slot, waits=slot, synchronous=True)
            if slot:
                pair.await_slot(outbox.slot)
            yield pair, outbox, dsn
        finally:
            unregister(stack.connect_url, outbox, dsn=dsn)
            credentials.unlink()


@contextmanager
def writing(dsn: str, *, before: int) -> Iterator[Writer]:
    writer = Writer(dsn)
    writer.start()
    try:
        deadline = time.monotonic() + WITHIN_S
        while len(writer.acknowledged) < before:
            assert time.monotonic() < deadline, "nothing is written"
            time.sleep(0.01)
        yield writer
    finally:
        writer.ended.set()
        writer.join(10)


async def published(kafka: KafkaConnection) -> dict[UUID, set[int]]:
    """By event, the emissions of it that are in Kafka."""
    found: dict[UUID, set[int]] = {}
    async with open_tail(kafka, [TOPIC], None) as tail:
        for record in await tail.drain():
            headers = {key: value for key, value in record.headers if value is not None}
            found.setdefault(UUID(headers["ce_id"].decode()), set()).add(int(headers["emission"]))
    return found


async def cycle_until(cycle: Callable[[], Awaitable[object]], over: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not await over():
        assert time.monotonic() < deadline, f"not within {WITHIN_S:g} s"
        await cycle()
        await asyncio.sleep(0.2)


def asked(dsn: str, query: LiteralString) -> list[TupleRow]:
    """What the owner is answered."""
    with psycopg.connect(dsn) as owner:
        return owner.execute(query).fetchall()


def written_after(writer: Writer, count: int) -> None:
    """Until so many rows more are acknowledged."""
    wanted, deadline = len(writer.acknowledged) + count, time.monotonic() + WITHIN_S
    while len(writer.acknowledged) < wanted:
        assert time.monotonic() < deadline, "nothing is written after the promotion"
        time.sleep(0.01)


async def test_with_a_failover_slot_every_acknowledged_row_is_published_by_the_promoted_server(
    stack: devstack.Stack,
) -> None:
    kafka = KafkaConnection(stack.kafka_bootstrap_servers)
    await ensure_topics(kafka, load_topics(REPOSITORY / "schemas" / "topics"))
    with published_through_a_pair(stack, slot=True) as (pair, outbox, dsn):
        engine = make_engine(dsn, pool_size=2, application_name="test")
        with writing(dsn, before=100) as writer:
            pair.fail_over()
            await asyncio.to_thread(written_after, writer, 50)
        async with open_connect(stack.connect_url, outbox.connector) as connect:
            watch = WatchReplication(engine, connect, outbox.slot, LIMITS)

            async def all_there() -> bool:
                return set(writer.acknowledged) <= (await published(kafka)).keys()

            await cycle_until(watch.once, all_there)
        await engine.dispose()
        actions = asked(dsn, "SELECT action FROM operator_actions")
        assert actions == [], "the slot is the one that the standby has kept"


async def test_without_one_a_new_slot_is_made_and_what_it_lacks_is_found_and_published(stack: devstack.Stack) -> None:
    kafka = KafkaConnection(stack.kafka_bootstrap_servers)
    await ensure_topics(kafka, load_topics(REPOSITORY / "schemas" / "topics"))
    with published_through_a_pair(stack, slot=False) as (pair, outbox, dsn):
        engine = make_engine(dsn, pool_size=4, application_name="test")
        with writing(dsn, before=100) as writer:
            pair.fail_over()
            await asyncio.to_thread(written_after, writer, 50)
        audit = AuditPublication(engine, kafka, outbox.slot, PUBLISHED_WITHIN, 0.1, 5000, 1000)
        async with transaction(engine) as tx:
            positions = {place: one.offset for place, one in (await read_positions(tx)).items()}
        async with (
            open_connect(stack.connect_url, outbox.connector) as connect,
            open_tail(kafka, TOPICS, positions) as tail,
        ):
            watch = WatchReplication(engine, connect, outbox.slot, LIMITS)

            async def once() -> None:
                await watch.once()
                await audit.once(tail)

            async def all_there() -> bool:
                missing = set(writer.acknowledged) - (await published(kafka)).keys()
                return not missing and asked(dsn, "SELECT action FROM operator_actions") != []

            await cycle_until(once, all_there)
        await engine.dispose()
        emissions = await published(kafka)
        assert any(2 in emissions[one] for one in writer.acknowledged), "no slot had the rows of the promotion"
        assert asked(dsn, "SELECT action FROM operator_actions") == [("recover_slot",)]
        assert {("slot_lost",), ("event_not_published",)} <= set(asked(dsn, "SELECT DISTINCT kind FROM incidents"))
