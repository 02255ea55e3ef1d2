"""The broker gateway as a process, between a simulated broker and real Kafka and PostgreSQL."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from broker_gateway.backfill import FEED, Backfill
from broker_gateway.publisher import Memory, Outlet
from broker_simulator.control import Behaviour, FillAtOnce, FillInParts, NeverFill
from broker_simulator.process import SimulatorProcess
from closeflow.broker import BrokerUnavailable, ExecutionPage, OpenOrders
from closeflow.broker.alpaca import AlpacaBroker
from closeflow.contracts import BrokerFillV1
from closeflow.domain.model import BrokerStatus, BrokerUpdate, ExecType, UpdateSource
from closeflow.domain.sending.broker_answers import LookUpAnswer, Unanswered
from closeflow.kafka import KafkaConnection, KafkaError, Outgoing, Producer, open_producer
from closeflow.kafka.producer import Acknowledged
from closeflow.storage import broker_cursors
from closeflow.storage.advisory_locks import LockLost, session_lock
from closeflow.storage.core.engine import make_engine, transaction
from tests.pipeline.relaying import Bench, listening_to_broker_fill, open_account, until

if TYPE_CHECKING:
    from tests.conftest import Database


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[AsyncEngine]:
    """The gateway's own role."""
    made = make_engine(database.dsn("closeflow_broker_gateway"), pool_size=4, application_name="test")
    yield made
    await made.dispose()


@pytest.fixture
async def bench(database: Database, tmp_path: Path) -> AsyncIterator[Bench]:
    account_id = f"acc-{uuid.uuid4().hex[:12]}"
    open_account(database, account_id, broker="alpaca")
    with SimulatorProcess(tmp_path, {"oversell": "allow"}) as simulator, simulator.control() as control:
        broker = AlpacaBroker(
            base_url=simulator.url,
            market_data_url=simulator.url,
            key_id=simulator.key_id,
            secret_key=simulator.secret_key,
            account_id=account_id,
        )
        async with listening_to_broker_fill(database.stack.kafka_bootstrap_servers, account_id) as heard:
            yield Bench(database, simulator, control, broker, heard, tmp_path)
        await broker.aclose()


async def test_what_the_stream_says_arrives_under_the_close_requests_key(bench: Bench) -> None:
    bench.control.script(Behaviour(execution=FillInParts(parts=3, every_s=0.05)))
    with bench.gateway() as process:
        await bench.listening()
        order_id = await bench.place()
        fills = await bench.heard.wait_for_fills(order_id, 6)
        assert len(fills) == 3
        assert {fill.source for fill in fills} == {UpdateSource.STREAM}
        assert [fill.cum_qty for fill in fills] == [2, 4, 6]
        assert set(bench.heard.keys) == {str(uuid.UUID(order_id[3:35])).encode()}
        process.terminate()
        await until(lambda: process.poll() is not None, "the gateway stops when asked")
        assert process.returncode == 0


@pytest.mark.parametrize("activity_ids", ["same", "different"])
async def test_fills_while_the_stream_was_down_come_by_backfill(bench: Bench, activity_ids: str) -> None:
    bench.control.set_capabilities(activity_ids="same" if activity_ids == "same" else "different")
    bench.control.script(Behaviour(execution=FillInParts(parts=3, every_s=0.02)))
    with bench.gateway():
        await bench.listening()
        bench.control.drop_stream(refuse_for_s=60)
        order_id = await bench.place()
        await until(lambda: bench.control.positions().get("AAPL") == -6, "the broker has filled")
        bench.control.heal_stream()
        fills = await bench.heard.wait_for_fills(order_id, 6)
        assert len(fills) == 3
        assert {fill.source for fill in fills} == {UpdateSource.BACKFILL}
        assert [fill.cum_qty for fill in fills] == [2, 4, 6]
        states = [one for one in bench.heard.records if one.exec_type is ExecType.ORDER_STATUS]
        assert [(one.order_status, one.cum_qty) for one in states] == [(BrokerStatus.FILLED, Decimal(6))]


async def test_a_lost_order_that_the_broker_lists_is_told_at_every_backfill(bench: Bench) -> None:
    bench.control.script(Behaviour(execution=NeverFill()))
    with bench.gateway(backfill_interval_s="0.5"):
        await bench.listening()
        order_id = await bench.place()

        def told(of: list[BrokerFillV1]) -> int:
            return len([one for one in of if one.client_order_id == order_id and one.source is UpdateSource.BACKFILL])

        await bench.heard.wait_for(lambda of: told(of) > 0, "the backfill finds it")
        with psycopg.connect(bench.database.admin_dsn) as admin:
            admin.execute("UPDATE orders SET status = 'lost' WHERE client_order_id = %s", (order_id,))
        known = told(bench.heard.records)
        await bench.heard.wait_for(lambda of: told(of) > known + 1, "it is told again, though nothing has changed")


async def test_what_a_living_stream_loses_is_found_by_the_next_backfill(bench: Bench) -> None:
    bench.control.script(Behaviour(execution=FillAtOnce()))
    with bench.gateway(backfill_interval_s="0.5"):
        await bench.listening()
        bench.control.silence_stream(for_s=60)
        order_id = await bench.place()
        fills = await bench.heard.wait_for_fills(order_id, 6)
        assert [fill.source for fill in fills] == [UpdateSource.BACKFILL]
        # What was passed on once is not passed on by the backfills that follow.
        known = len(bench.heard.records)
        bench.control.heal_stream()
        later = await bench.place()
        await bench.heard.wait_for_fills(later, 6)
        assert not [one for one in bench.heard.records[known:] if one.client_order_id == order_id]


class Unreachable(Producer):
    """Kafka that acknowledges nothing."""

    def __init__(self) -> None:
        pass

    async def publish_many(self, records: Sequence[Outgoing]) -> list[Acknowledged]:
        raise KafkaError(f"{len(records)} records without an acknowledgement")


async def cursor_of(bench: Bench, engine: AsyncEngine) -> datetime | None:
    async with transaction(engine) as tx:
        return await broker_cursors.read_cursor(tx, broker="alpaca", account_id=bench.account_id, feed=FEED)


def backfill_of(bench: Bench, engine: AsyncEngine, producer: Producer, broker: AlpacaBroker) -> Backfill:
    return Backfill(
        broker=broker,
        database=engine,
        outlet=Outlet(producer, Memory()),
        overlap=timedelta(seconds=60),
    )


async def test_the_cursor_moves_only_after_kafkas_acknowledgement(bench: Bench, engine: AsyncEngine) -> None:
    bench.control.script(Behaviour(execution=FillAtOnce()))
    order_id = await bench.place()
    with pytest.raises(KafkaError):
        await backfill_of(bench, engine, Unreachable(), bench.broker).run_once()
    assert await cursor_of(bench, engine) is None
    async with open_producer(KafkaConnection(bench.database.stack.kafka_bootstrap_servers)) as producer:
        assert await backfill_of(bench, engine, producer, bench.broker).run_once() == 2
    fills = await bench.heard.wait_for_fills(order_id, 6)
    assert await cursor_of(bench, engine) == fills[0].transact_time
    # It never goes back, whoever is late.
    async with transaction(engine) as tx:
        await broker_cursors.advance_cursor(
            tx, broker="alpaca", account_id=bench.account_id, feed=FEED, position=datetime(2020, 1, 1, tzinfo=UTC)
        )
    assert await cursor_of(bench, engine) == fills[0].transact_time


async def test_a_cursor_ahead_of_the_brokers_clock_hides_no_fill(bench: Bench, engine: AsyncEngine) -> None:
    """A clock was an hour ahead when it was moved; what is filled in that hour lies behind it."""
    bench.control.script(Behaviour(execution=FillAtOnce()))
    ahead = datetime.now(UTC) + timedelta(hours=1)
    async with transaction(engine) as tx:
        await broker_cursors.advance_cursor(tx, broker="alpaca", account_id=bench.account_id, feed=FEED, position=ahead)
    order_id = await bench.place()
    async with open_producer(KafkaConnection(bench.database.stack.kafka_bootstrap_servers)) as producer:
        await backfill_of(bench, engine, producer, bench.broker).run_once()
    fills = await bench.heard.wait_for_fills(order_id, 6)
    assert await cursor_of(bench, engine) == fills[0].transact_time


Adapter = TypeVar("Adapter", bound=AlpacaBroker)


def broker_of(bench: Bench, adapter: type[Adapter]) -> Adapter:
    simulator = bench.simulator
    return adapter(
        base_url=simulator.url,
        market_data_url=simulator.url,
        key_id=simulator.key_id,
        secret_key=simulator.secret_key,
        account_id=bench.account_id,
    )


class Smudged(AlpacaBroker):
    """Of one order its list of open orders can be read as little as its answer about it."""

    smudged = ""

    async def open_orders(self) -> OpenOrders:
        listed = await super().open_orders()
        rest = tuple(one for one in listed.updates if one.client_order_id != self.smudged)
        return OpenOrders(rest, (self.smudged,) if rest != listed.updates else ())

    async def newest_orders(self) -> tuple[BrokerUpdate, ...]:
        return tuple(one for one in await super().newest_orders() if one.client_order_id != self.smudged)

    async def look_up(self, client_order_id: str) -> LookUpAnswer:
        if client_order_id == self.smudged:
            return Unanswered(f"{client_order_id} cannot be read")
        return await super().look_up(client_order_id)


async def test_an_open_order_that_cannot_be_read_is_asked_about_by_itself_and_the_others_are_told(
    bench: Bench, engine: AsyncEngine
) -> None:
    bench.control.script(Behaviour(execution=NeverFill()))
    first, second = await bench.place(), await bench.place()
    with psycopg.connect(bench.database.admin_dsn) as admin:
        admin.execute("UPDATE orders SET status = 'canceled' WHERE client_order_id = %s", (first,))

    def stated(of: Sequence[BrokerFillV1]) -> set[str]:
        return {one.client_order_id for one in of if one.exec_type is ExecType.ORDER_STATUS}

    broker = broker_of(bench, Smudged)
    broker.smudged = first
    async with open_producer(KafkaConnection(bench.database.stack.kafka_bootstrap_servers)) as producer:
        backfill = backfill_of(bench, engine, producer, broker)
        with pytest.raises(BrokerUnavailable, match=f"{first} cannot be read"):
            await backfill.run_once()
        await bench.heard.wait_for(lambda of: second in stated(of), "the other one is told")
        assert first not in stated(bench.heard.records)
        broker.smudged = ""
        await backfill.run_once()
        await bench.heard.wait_for(lambda of: first in stated(of), "it is told once it can be read")
    await broker.aclose()


class Forgetful(AlpacaBroker):
    """Cannot be asked about one order."""

    unnamed = ""

    async def executions(self, *, after: datetime, page: str | None = None) -> ExecutionPage:
        whole = await super().executions(after=after, page=page)
        kept = tuple(one for one in whole.updates if one.client_order_id != self.unnamed)
        return replace(whole, updates=kept, unnamed=(self.unnamed,) if kept != whole.updates else ())


async def test_the_cursor_waits_for_an_execution_whose_order_could_not_be_asked_about(
    bench: Bench, engine: AsyncEngine
) -> None:
    bench.control.script(Behaviour(execution=FillAtOnce()))
    first, second = await bench.place(), await bench.place()
    broker = broker_of(bench, Forgetful)
    broker.unnamed = first
    async with open_producer(KafkaConnection(bench.database.stack.kafka_bootstrap_servers)) as producer:
        backfill = backfill_of(bench, engine, producer, broker)
        with pytest.raises(BrokerUnavailable, match="without a name"):
            await backfill.run_once()
        await bench.heard.wait_for_fills(second, 6)
        assert await cursor_of(bench, engine) is None
        broker.unnamed = ""
        await backfill.run_once()
    await bench.heard.wait_for_fills(first, 6)
    assert await cursor_of(bench, engine) is not None
    await broker.aclose()


async def test_of_two_instances_one_listens_and_the_other_takes_over_after_a_kill(bench: Bench) -> None:
    bench.control.script(Behaviour(execution=FillAtOnce()))
    with bench.gateway() as first:
        await bench.listening()
        with bench.gateway() as second:
            await until(lambda: bench.log.count("account_lock_awaited") == 2, "the second waits for the lock")
            assert bench.log.count("account_lock_taken") == 1
            assert bench.control.listeners() == 1
            first.kill()
            order_id = await bench.place()
            await bench.heard.wait_for_fills(order_id, 6)
            await bench.listening(backfills=2)
            assert bench.log.count("account_lock_taken") == 2
            assert second.poll() is None


async def test_an_instance_that_loses_its_lock_stops_listening_and_comes_back(bench: Bench) -> None:
    bench.control.script(Behaviour(execution=NeverFill()))
    with bench.gateway():
        await bench.listening()
        with psycopg.connect(bench.database.admin_dsn) as admin:
            ended = admin.execute(
                "SELECT pg_terminate_backend(l.pid) FROM pg_locks l WHERE locktype = 'advisory' AND granted"
                " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            ).fetchall()
        assert len(ended) == 1
        await until(lambda: "account_lock_lost" in bench.log, "the loss is noticed")
        await until(lambda: bench.log.count("stream_subscribed") == 2, "it listens again")
        assert bench.control.listeners() == 1


async def test_the_lock_has_one_holder_who_notices_its_end_at_once(database: Database) -> None:
    async def raised_within(watch: Awaitable[object], seconds: float) -> None:
        with pytest.raises(LockLost):
            async with asyncio.timeout(seconds):
                await watch

    dsn = database.dsn("closeflow_broker_gateway")
    async with (
        session_lock(dsn, name="a", application_name="first") as first,
        session_lock(dsn, name="a", application_name="second") as second,
        session_lock(dsn, name="b", application_name="other") as other,
    ):
        await first.acquire(poll_s=0.05)
        await other.acquire(poll_s=0.05)
        waiting = asyncio.create_task(second.acquire(poll_s=0.05))
        watching = asyncio.create_task(first.watch(probe_s=30))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await asyncio.shield(waiting)
        with psycopg.connect(database.admin_dsn) as admin:
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'first'")
        await raised_within(watching, 10)  # not at the next probe
        async with asyncio.timeout(10):
            await waiting
