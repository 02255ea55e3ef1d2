"""The gateway between a broker that is not Alpaca, in memory, and real Kafka and PostgreSQL."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from broker_gateway.backfill import FEED
from broker_gateway.session import Pace, Relay
from closeflow.domain.model import BrokerStatus, ExecType, UpdateSource
from closeflow.kafka import KafkaConnection
from closeflow.storage import broker_cursors
from closeflow.storage.core.engine import make_engine, transaction
from tests.brokers.in_memory import NAME, InMemoryBroker
from tests.brokers.venue import Venue
from tests.pipeline.relaying import listening_to_broker_fill, open_account, place_order, until

if TYPE_CHECKING:
    from tests.conftest import Database

PACE = Pace(
    backfill_interval_s=30, backfill_overlap_s=60, reconnect_base_s=0.05, reconnect_cap_s=0.2, takeover_poll_s=0.1
)


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[AsyncEngine]:
    """The gateway's own role."""
    made = make_engine(database.dsn("closeflow_broker_gateway"), pool_size=4, application_name="test")
    yield made
    await made.dispose()


@pytest.fixture
def broker(database: Database) -> InMemoryBroker:
    made = InMemoryBroker(Venue(), account_id=f"acc-{uuid.uuid4().hex[:12]}")
    open_account(database, made.account_id, broker=NAME)
    return made


@asynccontextmanager
async def relaying(database: Database, engine: AsyncEngine, broker: InMemoryBroker) -> AsyncIterator[None]:
    relay = Relay(
        broker=broker,
        stream=broker.trade_updates,
        database=engine,
        lock_dsn=database.dsn("closeflow_broker_gateway"),
        kafka=KafkaConnection(database.stack.kafka_bootstrap_servers),
        pace=PACE,
    )
    running = asyncio.create_task(relay.run())
    try:
        await until(lambda: len(broker.venue.heard_by) == 1, "the gateway has a session")
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def cursor_of(engine: AsyncEngine, broker: InMemoryBroker) -> datetime | None:
    async with transaction(engine) as tx:
        return await broker_cursors.read_cursor(tx, broker=NAME, account_id=broker.account_id, feed=FEED)


async def test_what_the_session_reports_and_what_it_missed_arrives(
    database: Database, engine: AsyncEngine, broker: InMemoryBroker
) -> None:
    venue = broker.venue
    async with (
        listening_to_broker_fill(database.stack.kafka_bootstrap_servers, broker.account_id) as heard,
        relaying(database, engine, broker),
    ):
        first = await place_order(database, broker, 6)
        trades = [venue.fill(first, Decimal(2)), venue.fill(first, Decimal(4))]
        fills = await heard.wait_for_fills(first, 6)
        assert [(one.exec_id, one.cum_qty, one.source) for one in fills] == [
            (trades[0].exec_id, Decimal(2), UpdateSource.STREAM),
            (trades[1].exec_id, Decimal(6), UpdateSource.STREAM),
        ]
        assert set(heard.keys) == {str(uuid.UUID(first[3:35])).encode()}

        venue.log_out()
        await until(lambda: venue.heard_by == [], "the session is over")
        venue.logged_on = True
        second = await place_order(database, broker, 6)
        trade = venue.fill(second, Decimal(6))
        bust = venue.bust(trades[1])
        await until(lambda: len(venue.heard_by) == 1, "there is a new session")
        fills = await heard.wait_for_fills(second, 6)
        assert [one.exec_id for one in fills] == [trade.exec_id]
        await heard.wait_for(lambda of: any(one.exec_ref_id == trades[1].exec_id for one in of), "the bust")
        assert [one.exec_type for one in heard.records if one.exec_id == bust.exec_id] == [ExecType.TRADE_CANCEL]
        stated = [one.order_status for one in heard.records if one.client_order_id == second]
        assert BrokerStatus.FILLED in stated
        for _ in range(500):
            if await cursor_of(engine, broker) == bust.transact_time:
                break
            await asyncio.sleep(0.02)
        assert await cursor_of(engine, broker) == bust.transact_time
