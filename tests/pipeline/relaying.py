"""What the tests of the gateway share: one as a process, its broker, and an ear on `broker-fill`."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psycopg
from aiokafka import AIOKafkaConsumer, TopicPartition

from broker_simulator.control import Control
from broker_simulator.process import SimulatorProcess
from closeflow.broker import Broker
from closeflow.broker.alpaca import AlpacaBroker
from closeflow.contracts import BROKER_FILL, BrokerFillV1
from closeflow.contracts.codec import decode
from closeflow.domain.ids import client_order_id
from closeflow.domain.model import ExecType, OrderType, Side, TimeInForce
from closeflow.domain.sending.broker_answers import Acknowledged
from closeflow.domain.sending.ticket import Ticket
from closeflow.kafka import KafkaConnection, ensure_topics, load_topics

if TYPE_CHECKING:
    from tests.conftest import Database

TOPICS: Final = Path(__file__).resolve().parents[2] / "schemas" / "topics"
PARTITIONS: Final = 6


async def until(condition: Callable[[], bool], what: str, *, within_s: float = 15.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        await asyncio.sleep(0.02)


@dataclass
class Heard:
    """What came on `broker-fill` about one account, from the moment this began to listen."""

    consumer: AIOKafkaConsumer
    account_id: str
    records: list[BrokerFillV1] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)

    async def wait_for(self, condition: Callable[[list[BrokerFillV1]], bool], what: str) -> None:
        deadline = time.monotonic() + 15
        while not condition(self.records):
            assert time.monotonic() < deadline, f"not heard: {what}; heard {self.records}"
            for batch in (await self.consumer.getmany(timeout_ms=100)).values():
                for record in batch:
                    if f'"account_id":"{self.account_id}"'.encode() in record.value:
                        self.records.append(decode(BrokerFillV1, record.value, record.headers))
                        self.keys.append(record.key)

    async def wait_for_fills(self, order_id: str, quantity: int) -> list[BrokerFillV1]:
        """The trades of an order, once those with different execution ids add up to the quantity."""

        def trades(of: list[BrokerFillV1]) -> dict[str | None, BrokerFillV1]:
            ours = [one for one in of if one.client_order_id == order_id and one.exec_type is ExecType.TRADE]
            return {one.exec_id: one for one in ours}

        def filled(of: list[BrokerFillV1]) -> bool:
            return sum(one.last_qty or 0 for one in trades(of).values()) >= quantity

        await self.wait_for(filled, f"{quantity} filled of {order_id}")
        return list(trades(self.records).values())


@dataclass
class Bench:
    """A simulated broker with one account, and what a gateway needs to serve it."""

    database: Database
    simulator: SimulatorProcess
    control: Control
    broker: AlpacaBroker
    heard: Heard
    directory: Path

    @property
    def account_id(self) -> str:
        return self.broker.account_id

    @contextmanager
    def gateway(self, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
        chosen = {
            "broker_account_id": self.account_id,
            "postgres_dsn": self.database.dsn("closeflow_broker_gateway"),
            "kafka_bootstrap_servers": self.database.stack.kafka_bootstrap_servers,
            "broker_url": self.simulator.url,
            "broker_stream_url": self.simulator.stream_url,
            "broker_key_id": self.simulator.key_id,
            "broker_secret_key": self.simulator.secret_key,
            "reconnect_base_s": "0.05",
            "reconnect_cap_s": "0.5",
            "takeover_poll_s": "0.1",
            **settings,
        }
        environment = {name: value for name, value in os.environ.items() if not name.startswith("BROKER_GATEWAY_")}
        environment |= {f"BROKER_GATEWAY_{name.upper()}": value for name, value in chosen.items()}
        with (self.directory / "gateway.log").open("ab") as log:
            process = subprocess.Popen([sys.executable, "-m", "broker_gateway"], env=environment, stderr=log)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    @property
    def log(self) -> str:
        return (self.directory / "gateway.log").read_text()

    async def listening(self, *, backfills: int = 1) -> None:
        """Until the stream is subscribed and the backfill after that is done."""
        await until(lambda: self.control.listeners() == 1, "the gateway listens to the stream")
        await until(lambda: self.log.count("backfill_finished") >= backfills, "the gateway has backfilled")

    async def place(self, quantity: int = 6) -> str:
        return await place_order(self.database, self.broker, quantity)


def open_account(database: Database, account_id: str, *, broker: str) -> None:
    """An account that holds 100 AAPL, which are being closed."""
    with psycopg.connect(database.admin_dsn) as admin:
        admin.execute("INSERT INTO accounts (account_id, broker) VALUES (%s, %s)", (account_id, broker))
        admin.execute(
            "INSERT INTO positions (account_id, symbol, asset_type, opening_qty, quantity, status)"
            " VALUES (%s, 'AAPL', 'stock', 100, 100, 'closing')",
            (account_id,),
        )


async def place_order(database: Database, broker: Broker, quantity: int) -> str:
    """An order that is in our books and at the broker, as order-submitter leaves it."""
    request_id = uuid.uuid4()
    order_id = client_order_id(request_id, 1)
    with psycopg.connect(database.admin_dsn) as admin:
        admin.execute(
            "INSERT INTO close_requests (id, position_id, account_id, idempotency_key, fingerprint, requested_by,"
            " status, symbol, side, asset_type, target_qty, time_in_force) SELECT %s, id, account_id, %s, 'f', '',"
            " 'completed', symbol, 'sell', 'stock', %s, 'day' FROM positions",
            (request_id, order_id, quantity),
        )
        admin.execute(
            "INSERT INTO orders (client_order_id, close_request_id, attempt, position_id, account_id, symbol, side,"
            " quantity, order_type, limit_price, time_in_force, status) SELECT %s, %s, 1, id, account_id, symbol,"
            " 'sell', %s, 'limit', 100, 'day', 'submit_unknown' FROM positions",
            (order_id, request_id, quantity),
        )
    ticket = Ticket(
        client_order_id=order_id,
        account_id=broker.account_id,
        symbol="AAPL",
        side=Side.SELL,
        quantity=Decimal(quantity),
        order_type=OrderType.LIMIT,
        time_in_force=TimeInForce.DAY,
        limit_price=Decimal(100),
    )
    assert isinstance(await broker.submit(ticket), Acknowledged)
    return order_id


@asynccontextmanager
async def listening_to_broker_fill(bootstrap_servers: str, account_id: str) -> AsyncIterator[Heard]:
    await ensure_topics(KafkaConnection(bootstrap_servers), load_topics(TOPICS))
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap_servers, enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign([TopicPartition(BROKER_FILL, number) for number in range(PARTITIONS)])
        await consumer.seek_to_end()
        for partition in consumer.assignment():
            await consumer.position(partition)
        yield Heard(consumer, account_id)
    finally:
        await consumer.stop()
