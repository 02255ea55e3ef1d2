"""A copied folder of examples/ as a process, topics of its own, and events as closeflow writes them."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from closeflow.contracts import ExecutionEvent, PositionEvent, WireModel, encode, schema_name
from tests.conftest import REPOSITORY

PARTITIONS: Final = 6
ACCOUNTS: Final = ("ACC-1", "ACC-2")
AT: Final = "2026-03-02T14:30:05.120000Z"
Headers = list[tuple[str, bytes]]
WITHIN_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Sent:
    """A record as it goes to Kafka."""

    key: str
    value: bytes | None
    headers: Headers = field(default_factory=list)


def headers_of(model: type[WireModel]) -> Headers:
    return [("ce_dataschema", schema_name(model).encode())]


def until(what: str, condition: Callable[[], object], *, told: Callable[[], str] = str) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {WITHIN_S:g} s: {what}\n{told()}"
        time.sleep(0.1)


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not await condition():  # noqa: ASYNC110 - Kafka sets no event of ours
            await asyncio.sleep(0.1)


async def keep(asked: Awaitable[Mapping[Any, Any]], found: dict[Any, Any]) -> None:
    found.update(await asked)


@dataclass(slots=True)
class Example:
    """A folder of examples/ copied elsewhere, and what runs of it."""

    directory: Path
    script: str
    environment: Mapping[str, str]
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def log(self) -> Path:
        return self.directory / "log"

    def start(self, *arguments: str, **settings: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **self.environment, **settings}
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, self.script, *arguments],
                cwd=self.directory,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.running.append(process)
        return process

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **self.environment}
        command = [sys.executable, self.script, *arguments]
        return subprocess.run(command, cwd=self.directory, env=environment, capture_output=True, text=True, check=False)

    def kill(self) -> None:
        """kill -9 of whatever runs of it."""
        for process in self.running:
            process.kill()
            process.wait()
        self.running.clear()

    def stop(self) -> None:
        for process in self.running:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        self.running.clear()

    def said(self) -> str:
        return self.log.read_text()[-4000:] if self.log.exists() else ""


@contextmanager
def copied(name: str, to: Path, script: str, environment: Mapping[str, str]) -> Iterator[Example]:
    directory = to / name
    shutil.copytree(REPOSITORY / "examples" / name, directory)
    example = Example(directory, script, environment)
    try:
        yield example
    finally:
        example.kill()


@dataclass(frozen=True, slots=True)
class Log:
    """A topic of its own with its dead letters."""

    servers: str
    topic: str

    async def make(self) -> None:
        await self._admin(
            lambda admin: admin.create_topics(
                [NewTopic(self.topic, PARTITIONS, 1), NewTopic(f"{self.topic}.dlq", 1, 1)]
            )
        )

    async def delete(self, *others: str) -> None:
        """Until Kafka shows them no more: it answers before it has taken them away."""
        names = others or (self.topic, f"{self.topic}.dlq")
        await self._admin(lambda admin: admin.delete_topics([*names]))

        async def gone() -> bool:
            return {*names}.isdisjoint(await self.topics())

        await eventually(gone)

    async def until_committed(self, group: str) -> None:
        """Until the group has told Kafka how far it is in any partition."""

        async def told() -> bool:
            offsets: dict[Any, Any] = {}
            await self._admin(lambda admin: keep(admin.list_consumer_group_offsets(group), offsets))
            return any(one.offset > 0 for one in offsets.values())

        await eventually(told)

    async def topics(self) -> list[str]:
        found: list[str] = []

        async def ask(admin: AIOKafkaAdminClient) -> None:
            found.extend(await admin.list_topics())

        await self._admin(ask)
        return [one for one in found if self.topic in one]

    async def _admin(self, act: Callable[[AIOKafkaAdminClient], Any]) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.servers)
        await admin.start()
        try:
            await act(admin)
        finally:
            await admin.close()

    async def send(self, records: Iterable[Sent]) -> None:
        async with AIOKafkaProducer(bootstrap_servers=self.servers, acks="all") as producer:
            waits = [
                await producer.send(self.topic, one.value, key=one.key.encode(), headers=one.headers) for one in records
            ]
            for wait in waits:
                await wait

    async def dead(self) -> list[Any]:
        place = TopicPartition(f"{self.topic}.dlq", 0)
        async with AIOKafkaConsumer(bootstrap_servers=self.servers, auto_offset_reset="earliest") as consumer:
            consumer.assign([place])
            end = (await consumer.end_offsets([place]))[place]
            return [await consumer.getone() for _ in range(end)]


def execution_events(positions: Sequence[int], *, seed: int) -> list[ExecutionEvent]:
    """Partial fills, commissions, fees that come later, busts and corrections, in the order of each position."""
    chance = random.Random(seed)
    found: list[ExecutionEvent] = []
    for position in positions:
        account = ACCOUNTS[position % 2]
        for n in range(chance.randint(1, 3)):
            exec_id, side = f"{account}-{position}-{n}", chance.choice(["sell", "buy"])
            quantity, price = Decimal(chance.randint(1, 90)), Decimal(chance.randint(1, 99_999)).scaleb(-2)
            commission = Decimal(chance.randint(0, 200)).scaleb(-2)
            base = (position, account, side, quantity, price)
            found.append(execution_event("RECORDED", exec_id, *base, commission=commission))
            own = Decimal(0)
            if chance.random() < 0.3:
                own = Decimal(chance.randint(1, 50)).scaleb(-2)
                found.append(execution_event("CHARGED", exec_id, *base, commission=own, charge_id=exec_id))
            if chance.random() < 0.3:
                found.append(execution_event("CHARGED", exec_id, *base, fees=Decimal("0.07"), charge_id=f"f-{exec_id}"))
            what = chance.random()
            if what < 0.3:
                taken = -(commission + own)
                found.append(
                    execution_event("REVERSED", f"r-{exec_id}", *base, commission=taken, reverses_exec_id=exec_id)
                )
            if what < 0.15:
                again = (position, account, side, quantity, price + Decimal("0.01"))
                found.append(
                    execution_event(
                        "CORRECTED", f"r-{exec_id}", *again, commission=commission + own, reverses_exec_id=exec_id
                    )
                )
    return found


def execution_event(
    kind: str,
    exec_id: str,
    position: int,
    account: str,
    side: str,
    quantity: Decimal,
    price: Decimal,
    *,
    commission: Decimal = Decimal(0),
    fees: Decimal = Decimal(0),
    **named: Any,
) -> ExecutionEvent:
    value = quantity * price
    cash = Decimal(0) if kind == "CHARGED" else value if (side == "sell") != (kind == "REVERSED") else -value
    return ExecutionEvent.model_validate(
        {
            "event_id": uuid5(NAMESPACE_URL, f"{kind}/{exec_id}/{named}"),
            "event_type": f"EXECUTION_{kind}",
            "exec_id": exec_id,
            "broker": "alpaca",
            "account_id": account,
            "position_id": position,
            "symbol": f"S{position % 7}",
            "side": side,
            "quantity": quantity,
            "price": price,
            "multiplier": Decimal(1),
            "cash_amount": cash,
            "commission": commission,
            "fees": fees,
            "net_amount": cash - commission - fees,
            "currency": "USD",
            "occurred_at": AT,
            **named,
        }
    )


def position_events(positions: Sequence[int], *, seed: int) -> list[PositionEvent]:
    """Positions that are closed step by step, some of them reopened by a bust."""
    chance = random.Random(seed)
    found: list[PositionEvent] = []
    for position in positions:
        quantity, was = Decimal(chance.randint(-90, 90) or 1), Decimal(0)
        for version in range(2, 2 + chance.randint(1, 5)):
            status = "closed" if quantity == 0 else "closing"
            found.append(position_event(position, version, quantity, change=quantity - was, status=status))
            was, quantity = quantity, chance.choice([quantity, Decimal(0), Decimal(int(quantity / 2))])
    return found


def position_event(
    position: int, version: int, quantity: Decimal, *, change: Decimal = Decimal(0), status: str = "closing"
) -> PositionEvent:
    return PositionEvent.model_validate(
        {
            "event_id": uuid5(NAMESPACE_URL, f"{position}/{version}"),
            "event_type": "POSITION_REDUCED",
            "emission": 1,
            "position_id": position,
            "position_version": version,
            "account_id": ACCOUNTS[position % 2],
            "symbol": f"S{position % 7}",
            "asset_type": "option",
            "multiplier": Decimal(100),
            "currency": "USD",
            "position_status": status,
            "quantity": quantity,
            "quantity_change": change,
            "occurred_at": AT,
        }
    )


def records(events: Iterable[ExecutionEvent | PositionEvent]) -> list[Sent]:
    return [Sent(str(one.position_id), encode(one), headers_of(type(one))) for one in events]


def changed(event: WireModel, **values: object) -> bytes:
    return json.dumps({**json.loads(encode(event)), **values}).encode()
