"""The order-submitter as processes between a simulated broker and real Kafka and PostgreSQL, and what it leaves."""

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
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import psycopg
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import OffsetAndMetadata
from psycopg.rows import DictRow, dict_row

from broker_simulator.control import Control, MarketHours
from broker_simulator.process import SimulatorProcess
from closeflow.contracts import BROKER_FILL, SUBMIT_ORDER, BrokerFillV1, SubmitOrder, encode
from closeflow.contracts.codec import decode
from closeflow.domain.ids import client_order_id, submit_event_id
from closeflow.domain.model import AssetType, OrderType, Side, TimeInForce
from closeflow.kafka import KafkaConnection, Outgoing, Producer, ensure_topics, load_topics, open_producer

if TYPE_CHECKING:
    from tests.conftest import Database

_ADD_POSITION: Final = (
    "INSERT INTO positions (account_id, symbol, asset_type, opening_qty, quantity, status, active_close_request_id)"
    " VALUES (%(account_id)s, %(symbol)s, %(asset_type)s, %(held)s, %(held)s, 'closing', %(close_request_id)s)"
    " RETURNING id"
)
_ADD_REQUEST: Final = (
    "INSERT INTO close_requests (id, position_id, account_id, idempotency_key, fingerprint, requested_by, symbol, side,"
    " asset_type, target_qty, time_in_force) VALUES (%(close_request_id)s, %(position_id)s, %(account_id)s, 'k', 'f',"
    " 'me', %(symbol)s, %(side)s, %(asset_type)s, %(quantity)s, %(time_in_force)s)"
)
TOPICS: Final = Path(__file__).resolve().parents[2] / "schemas" / "topics"
PARTITIONS: Final = 6


async def until(condition: Callable[[], bool], what: str, *, within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        await asyncio.sleep(0.03)


@dataclass
class Bench:
    """One account at a simulated broker, its positions in a database of its own, and submitters to serve it."""

    database: Database
    simulator: SimulatorProcess
    control: Control
    producer: Producer
    heard: AIOKafkaConsumer
    directory: Path
    account_id: str
    group: str
    updates: list[BrokerFillV1] = field(default_factory=list)
    keys: dict[UUID, bytes] = field(default_factory=dict)
    _messages: dict[UUID, SubmitOrder] = field(default_factory=dict)
    _symbols: int = 0

    @contextmanager
    def submitter(self, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
        chosen = {
            "postgres_dsn": self.database.dsn("closeflow_order_submitter"),
            "kafka_bootstrap_servers": self.database.stack.kafka_bootstrap_servers,
            "consumer_group": self.group,
            "broker_url": self.simulator.url,
            "market_data_url": self.simulator.url,
            "broker_key_id": self.simulator.key_id,
            "broker_secret_key": self.simulator.secret_key,
            "broker_account_id": self.account_id,
            "broker_deduplication": "forever",
            "lease_s": "6",
            "http_deadline_s": "2",  # longer than anything takes here that is not meant to be lost
            "poll_interval_s": "0.05",
            "watch_interval_s": "0.1",
            "request_visible_within_s": "2",
            **settings,
        }
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ORDER_SUBMITTER_")}
        environment |= {f"ORDER_SUBMITTER_{name.upper()}": value for name, value in chosen.items()}
        with (self.directory / "submitter.log").open("ab") as log:
            process = subprocess.Popen([sys.executable, "-m", "order_submitter"], env=environment, stderr=log)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    @property
    def log(self) -> str:
        return (self.directory / "submitter.log").read_text()

    def query(self, statement: str, **parameters: object) -> list[DictRow]:
        with psycopg.connect(self.database.admin_dsn, row_factory=dict_row) as admin:
            return admin.execute(statement.encode(), parameters).fetchall()

    def execute(self, statement: str, **parameters: object) -> None:
        with psycopg.connect(self.database.admin_dsn) as admin:
            admin.execute(statement.encode(), parameters)

    def add_request(
        self,
        quantity: Decimal | int = 10,
        *,
        asset_type: AssetType = AssetType.STOCK,
        target: Decimal | int | None = None,
    ) -> UUID:
        """A closing position in a symbol of its own with its pending request, as close-api leaves them."""
        with self.adding_request(quantity, asset_type=asset_type, target=target) as message:
            return message.close_request_id

    @contextmanager
    def adding_request(
        self,
        quantity: Decimal | int = 10,
        *,
        asset_type: AssetType = AssetType.STOCK,
        target: Decimal | int | None = None,
    ) -> Iterator[SubmitOrder]:
        """Gives the message about the request before the transaction that adds it commits, at the end of the block."""
        said = SubmitOrder(
            event_id=uuid.uuid4(),
            emission=1,
            close_request_id=uuid.uuid4(),
            attempt=1,
            position_id=1,
            account_id=self.account_id,
            symbol=self._new_symbol(asset_type),
            asset_type=asset_type,
            side=Side.SELL if quantity > 0 else Side.BUY,
            quantity=abs(Decimal(quantity)) if target is None else Decimal(target),
            order_type=OrderType.LIMIT,
            time_in_force=TimeInForce.DAY,
            requested_at=datetime.now(UTC),
        )
        fields = {**said.model_dump(mode="json"), "held": quantity}
        with psycopg.connect(self.database.admin_dsn) as admin:
            row = admin.execute(_ADD_POSITION, fields).fetchone()
            assert row is not None
            admin.execute(_ADD_REQUEST, {**fields, "position_id": row[0]})
            event_id = submit_event_id(said.close_request_id, 1)
            said = said.model_copy(update={"position_id": row[0], "event_id": event_id})
            self._messages[said.close_request_id] = said
            yield said

    def _new_symbol(self, asset_type: AssetType) -> str:
        self._symbols += 1
        letters = "".join(chr(65 + self._symbols // 26**place % 26) for place in (2, 1, 0))
        return f"{letters}270115C00200000" if asset_type is AssetType.OPTION else f"S{letters}"

    def message(self, request_id: UUID, **changes: Any) -> Outgoing:
        said = self._messages[request_id].model_copy(update=changes)
        return Outgoing(topic=SUBMIT_ORDER, key=str(said.position_id).encode(), value=encode(said))

    async def ask(self, *request_ids: UUID) -> None:
        """Publish `submit-order` for the requests' attempts, as Debezium does."""
        await self.producer.publish_many([self.message(one) for one in request_ids])

    def request(self, request_id: UUID) -> DictRow:
        return self.query("SELECT * FROM close_requests WHERE id = %(id)s", id=request_id)[0]

    def orders(self, request_id: UUID) -> list[DictRow]:
        return self.query("SELECT * FROM orders WHERE close_request_id = %(id)s ORDER BY attempt", id=request_id)

    def sends(self, request_id: UUID, attempt: int = 1, *, kind: str = "submit") -> list[str | None]:
        """The answers to the sends of an attempt, in order; None for one that is open."""
        rows = self.query(
            "SELECT answer FROM order_sends WHERE client_order_id = %(id)s AND kind = %(kind)s ORDER BY n",
            id=client_order_id(request_id, attempt),
            kind=kind,
        )
        return [row["answer"] for row in rows]

    def position(self, request_id: UUID) -> DictRow:
        return self.query("SELECT * FROM positions WHERE id = %(id)s", id=self._messages[request_id].position_id)[0]

    def request_cancel(self, request_id: UUID) -> None:
        self.execute("UPDATE close_requests SET cancel_requested_at = closeflow_now() WHERE id = %(id)s", id=request_id)
        self.execute(
            "UPDATE orders SET cancel_requested_at = closeflow_now() WHERE close_request_id = %(id)s", id=request_id
        )

    def incidents(self, subject: UUID | str) -> set[str]:
        """The kinds of open incidents about a request, or about another subject."""
        rows = self.query(
            "SELECT kind FROM incidents WHERE closed_at IS NULL"
            " AND (close_request_id::text = %(subject)s OR subject = %(subject)s)",
            subject=str(subject),
        )
        return {row["kind"] for row in rows}

    async def until(self, condition: Callable[[], bool], what: str, *, within_s: float = 60.0) -> None:
        """Wait for it. Where a quote came too late on a busy machine, the close is asked for again, as the reconciler
        would."""
        deadline, ask_at = time.monotonic() + within_s, time.monotonic() + 1
        while not condition():
            assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
            if time.monotonic() > ask_at:
                ask_at = time.monotonic() + 1
                await self._ask_again()
            await asyncio.sleep(0.03)

    async def hear(self, request_id: UUID, count: int = 1, *, within_s: float = 60.0) -> list[BrokerFillV1]:
        """What `broker-fill` says about the first attempt of a request, once there are so many records. A close without
        a quote in time is asked for again."""
        wanted = client_order_id(request_id, 1)
        deadline, ask_at = time.monotonic() + within_s, time.monotonic() + 1
        while True:
            found = [one for one in self.updates if one.client_order_id == wanted]
            if len(found) >= count:
                return found
            assert time.monotonic() < deadline, self._what_is_missing(request_id, len(found), count)
            if time.monotonic() > ask_at:
                ask_at = time.monotonic() + 1
                await self._ask_again()
            for batch in (await self.heard.getmany(timeout_ms=100)).values():
                for record in batch:
                    if f'"account_id":"{self.account_id}"'.encode() in record.value:
                        update = decode(BrokerFillV1, record.value, record.headers)
                        self.updates.append(update)
                        self.keys[update.event_id] = record.key

    async def _ask_again(self) -> None:
        due = (
            "SELECT id FROM close_requests WHERE status = 'pending' AND reason = %(reason)s AND next_attempt_at < now()"
        )
        rows = self.query(due, reason="no_fresh_quote")
        await self.ask(*(row["id"] for row in rows if row["id"] in self._messages))

    def _what_is_missing(self, request_id: UUID, found: int, count: int) -> str:
        request = self.request(request_id)
        waits = {name: request[name] for name in ("status", "reason", "attempt", "next_attempt_at", "deferred_since")}
        orders = [(one["status"], self.sends(request_id, one["attempt"])) for one in self.orders(request_id)]
        return f"broker-fill has {found} of {count} records about {request_id}: {waits}, its orders: {orders}"

    def name_at_broker(self, request_id: UUID, status: str = "new") -> None:
        """What the fill-processor would write of the acknowledgement."""
        order_id = client_order_id(request_id, 1)
        seen = self.control.order(order_id).orders[0]
        self.execute(
            "INSERT INTO order_statements (client_order_id, kind, broker_order_id, broker_seq, cum_qty, stated_at,"
            " source) VALUES (%(id)s, %(status)s, %(broker_id)s, %(seq)s, 0, closeflow_now(), 'submit')",
            id=order_id,
            status=status,
            broker_id=seen.order_id,
            seq=seen.broker_seq,
        )
        self.execute(
            "UPDATE orders SET status = %(status)s, broker_order_id = %(broker_id)s, next_send_at = NULL"
            " WHERE client_order_id = %(id)s",
            id=order_id,
            status=status,
            broker_id=seen.order_id,
        )


def behave(control: Control) -> None:
    """An ordinary broker again. It forgets no order: who has no answer yet would send it once more."""
    control.clear_script()
    control.clear_outages()
    control.unpin_quotes()
    control.set_hours(MarketHours())


@asynccontextmanager
async def open_bench(database: Database, simulator: SimulatorProcess, directory: Path) -> AsyncIterator[Bench]:
    """An account and a consumer group of their own; the simulator's script is cleared."""
    account_id, group = f"acc-{uuid.uuid4().hex[:12]}", f"test-{uuid.uuid4().hex[:12]}"
    servers = database.stack.kafka_bootstrap_servers
    connection = KafkaConnection(servers)
    await ensure_topics(connection, load_topics(TOPICS))
    with psycopg.connect(database.admin_dsn) as admin:
        admin.execute("INSERT INTO accounts (account_id, broker) VALUES (%s, 'alpaca')", (account_id,))
    await start_at_the_end(servers, group)
    heard = AIOKafkaConsumer(bootstrap_servers=servers, enable_auto_commit=False)
    await heard.start()
    heard.assign([TopicPartition(BROKER_FILL, number) for number in range(PARTITIONS)])
    await heard.seek_to_end()
    for partition in heard.assignment():
        await heard.position(partition)
    try:
        with simulator.control() as control:
            behave(control)
            async with open_producer(connection) as producer:
                yield Bench(database, simulator, control, producer, heard, directory, account_id, group)
    finally:
        await heard.stop()


async def start_at_the_end(servers: str, group: str, topic: str = SUBMIT_ORDER) -> None:
    """Commit the ends of a topic for a new group, so that it does not read other tests' records."""
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, group_id=group, enable_auto_commit=False)
    await consumer.start()
    partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    consumer.assign(partitions)
    ends = await consumer.end_offsets(partitions)
    await consumer.commit({partition: OffsetAndMetadata(end, "") for partition, end in ends.items()})
    await consumer.stop()
