"""The watch of slot and connector, one cycle at a time, on the real Debezium."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import httpx
import psycopg
import pytest
from psycopg.rows import DictRow, dict_row

from closeflow.domain.outbox.replication_slot import Limits
from closeflow.storage.core.engine import Database as Engine
from closeflow.storage.core.engine import StatementError, make_engine, sqlstate, transaction
from closeflow.storage.replication_slot import drop_lost_slot
from reconciler.connect_client import Connect, open_connect
from reconciler.jobs.watch_replication import WatchReplication
from tests.conftest import outbox_connector

if TYPE_CHECKING:
    from tests.conftest import Database

LIMITS: Final = Limits(
    patience=timedelta(seconds=5), lag_bytes=1024**3, wal_left_bytes=0, heartbeat_age=timedelta(minutes=1)
)
AT_ONCE: Final = Limits(timedelta(0), LIMITS.lag_bytes, LIMITS.wal_left_bytes, LIMITS.heartbeat_age)


@dataclass
class Line:
    """One database's connector and slot."""

    url: str
    name: str
    slot: str
    engine: Engine
    """The reconciler's own role, so that what it may not do fails here."""
    owner: psycopg.Connection[DictRow]

    def query(self, statement: str, *values: object) -> list[DictRow]:
        return self.owner.execute(statement.encode(), values).fetchall()

    def slot_row(self) -> DictRow | None:
        rows = self.query("SELECT active, wal_status FROM pg_replication_slots WHERE slot_name = %s", self.slot)
        return rows[0] if rows else None

    def ask(self, path: str) -> Any:
        return httpx.get(f"{self.url}/connectors/{self.name}/{path}", timeout=10).raise_for_status().json()

    def tell(self, method: str, path: str) -> None:
        httpx.request(method, f"{self.url}/connectors/{self.name}/{path}", timeout=10).raise_for_status()

    def states(self) -> list[str]:
        status = self.ask("status")
        return [status["connector"]["state"], *(task["state"] for task in status["tasks"])]

    def streams(self) -> bool:
        row = self.slot_row()
        return self.states() == ["RUNNING", "RUNNING"] and row is not None and row["active"]

    def incidents(self) -> list[tuple[str, bool]]:
        rows = self.query("SELECT kind, closed_at IS NULL AS is_open FROM incidents ORDER BY id")
        return [(row["kind"], row["is_open"]) for row in rows]

    def watch(self, connect: Connect, limits: Limits = LIMITS) -> WatchReplication:
        return WatchReplication(self.engine, connect, self.slot, limits)

    async def stop(self) -> None:
        self.tell("PUT", "stop")
        await until(lambda: self.states() == ["STOPPED"] and (self.slot_row() or {}).get("active") is False)


@pytest.fixture(scope="module")
def line(module_database: Database) -> Iterator[Line]:
    engine = make_engine(module_database.dsn("closeflow_reconciler"), pool_size=4, application_name="test")
    with (
        outbox_connector(module_database, topic_prefix=f"{module_database.name}.") as made,
        psycopg.connect(module_database.admin_dsn, autocommit=True, row_factory=dict_row) as owner,
    ):
        yield Line(module_database.stack.connect_url, made.connector, made.slot, engine, owner)


@pytest.fixture
async def connect(line: Line) -> AsyncIterator[Connect]:
    line.owner.execute("DELETE FROM incidents")
    line.owner.execute("DELETE FROM operator_actions")
    async with open_connect(line.url, line.name) as made:
        yield made


async def until(condition: Callable[[], object], within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s:g} s"
        await asyncio.sleep(0.05)


async def cycle_until(cycle: Callable[[], Awaitable[int]], condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline, "not within 90 s"
        await cycle()
        await asyncio.sleep(0.1)


@asynccontextmanager
async def little_wal_kept(line: Line) -> AsyncIterator[None]:
    """The server removes WAL that only a slow slot needs, as one does whose disk is small."""
    line.owner.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
    try:
        line.query("SELECT pg_reload_conf()")
        yield
    finally:
        line.owner.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
        line.query("SELECT pg_reload_conf()")


async def lose_by_dropping(line: Line) -> None:
    line.query("SELECT pg_drop_replication_slot(%s)", line.slot)


async def lose_by_dropping_and_making_again(line: Line) -> None:
    await lose_by_dropping(line)
    line.owner.execute("SELECT pg_logical_emit_message(true, 'test', 'x')")
    line.query("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", line.slot)


async def lose_by_removing_its_wal(line: Line) -> None:
    async with little_wal_kept(line):
        deadline = time.monotonic() + 60
        while (line.slot_row() or {}).get("wal_status") != "lost":
            assert time.monotonic() < deadline
            line.owner.execute("SELECT pg_logical_emit_message(true, 'test', 'x')")
            line.query("SELECT pg_switch_wal()")
            line.owner.execute("CHECKPOINT")
            await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    "lose",
    [lose_by_dropping, lose_by_dropping_and_making_again, lose_by_removing_its_wal],
    ids=["dropped", "dropped and made again", "its WAL was removed"],
)
async def test_a_lost_slot_is_recovered_though_the_process_dies_after_every_cycle(
    line: Line, connect: Connect, lose: Callable[[Line], Awaitable[None]]
) -> None:
    await until(line.streams)
    await until(lambda: line.ask("offsets")["offsets"])
    await line.stop()
    await lose(line)
    line.tell("PUT", "resume")

    def recorded() -> list[DictRow]:
        return line.query("SELECT by, action, subject, before, after FROM operator_actions")

    await cycle_until(lambda: line.watch(connect).once(), recorded)

    (action,) = recorded()
    assert (action["by"], action["action"], action["subject"]) == ("reconciler", "recover_slot", line.slot)
    assert (bool(action["before"]["seen"]), action["after"]["slot"]["wal_status"]) == (True, "reserved")
    assert line.incidents() == [("slot_lost", False)]
    assert line.streams()


async def test_a_connector_that_a_person_stopped_is_left_alone(line: Line, connect: Connect) -> None:
    await until(line.streams)
    watch = line.watch(connect, AT_ONCE)
    await line.stop()
    assert [await watch.once() for _ in range(3)] == [0, 0, 0]
    assert (line.states(), line.incidents()) == (["STOPPED"], [("connector_stopped", True)])

    line.tell("PUT", "resume")
    await until(line.streams)
    await watch.once()
    assert line.incidents() == [("connector_stopped", False)]


async def test_a_question_without_an_answer_closes_nothing(line: Line, connect: Connect) -> None:
    await until(line.streams)
    watch = line.watch(connect, AT_ONCE)
    await line.stop()
    await watch.once()
    async with open_connect("http://127.0.0.1:9", line.name) as away:
        watch.connect = away
        await watch.once()
    assert line.incidents() == [("connector_stopped", True), ("connector_unreachable", True)]

    watch.connect = connect
    await watch.once()
    assert line.incidents() == [("connector_stopped", True), ("connector_unreachable", False)]
    assert line.query("SELECT count FROM incidents WHERE closed_at IS NULL") == [{"count": 1}], "it never was over"
    line.tell("PUT", "resume")


async def test_restarts_are_forgotten_only_when_it_has_streamed_for_a_while(line: Line, connect: Connect) -> None:
    await until(line.streams)
    watch = line.watch(connect)
    watch._restarts = 3
    await cycle_until(watch.once, lambda: line.incidents() == [("connector_task_failed", True)])

    watch.limits = replace(LIMITS, steady=timedelta(0))
    await cycle_until(watch.once, lambda: line.incidents() == [("connector_task_failed", False)])


async def test_a_failed_task_is_over_only_when_it_streams(line: Line, connect: Connect) -> None:
    """Another process may have told it: this one has seen no restart."""
    await until(line.streams)
    line.owner.execute(
        "INSERT INTO incidents (kind, severity, detail) VALUES ('connector_task_failed', 'critical',"
        " jsonb_build_object('text', 'x', 'subject', %s::text))",
        (line.name,),
    )
    watch = line.watch(connect, AT_ONCE)
    await line.stop()
    await watch.once()
    assert ("connector_task_failed", True) in line.incidents()
    line.tell("PUT", "resume")
    await until(line.streams)
    await cycle_until(watch.once, lambda: ("connector_task_failed", False) in line.incidents())


async def test_a_connect_that_gives_no_answer_is_told_and_touches_nothing(line: Line) -> None:
    line.owner.execute("DELETE FROM incidents")
    async with open_connect("http://127.0.0.1:9", line.name) as connect:
        watch = line.watch(connect, AT_ONCE)
        assert [await watch.once(), await watch.once()] == [0, 0]
    assert line.incidents() == [("connector_unreachable", True)]
    assert line.query("SELECT count FROM incidents") == [{"count": 1}], "told once, not at every look"


async def test_what_no_connector_was_registered_for_is_told(line: Line) -> None:
    line.owner.execute("DELETE FROM incidents")
    async with open_connect(line.url, "nobody") as connect:
        await WatchReplication(line.engine, connect, "no_slot", AT_ONCE).once()
    assert line.incidents() == [("connector_missing", True), ("slot_missing", True)]


async def test_the_database_drops_no_slot_that_can_be_read_from(line: Line) -> None:
    async with line.engine.connect() as tx:
        assert not await drop_lost_slot(tx, name="no_slot")
    with pytest.raises(StatementError) as refused:
        async with transaction(line.engine) as tx:
            await drop_lost_slot(tx, name=line.slot)
    assert sqlstate(refused.value) == "55000"
