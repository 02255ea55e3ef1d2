"""A double-entry ledger of closeflow's executions in PostgreSQL: `python accounting.py run|retry|balance`.

Entries and the offset behind them are committed in one transaction, and each event id is booked once. So it may be
killed at any moment, be given a record twice, be started from the first record again, and lose its database.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import ssl
import sys
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Context, Decimal
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import psycopg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener
from aiokafka.errors import KafkaError
from psycopg.types.json import Jsonb
from pydantic import BaseModel, Field, ValidationError

TOPIC = os.environ.get("ACCOUNTING_TOPIC", "execution-events")
GROUP = os.environ.get("ACCOUNTING_GROUP", "accounting")
SCHEMA = re.compile(rb"(?:.*[/:])?execution-event\.v([0-9]+)(?:\.json)?")
EXACT = Context(prec=200)
DLQ = "origin_topic origin_partition origin_offset error_class reason consumer_group attempts first_seen".split()  # noqa: SIM905
CLASSES = {"json_invalid": "bad_json", "missing": "missing_field"}
Database = psycopg.AsyncConnection[Any]
Text = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00]+$")]
Amount = Annotated[Decimal, Field(max_digits=120)]


class Entry(BaseModel):
    """What is read of an `execution-event.v1`; fields that are not named here are passed over."""

    event_id: UUID
    event_type: Literal["EXECUTION_RECORDED", "EXECUTION_CORRECTED", "EXECUTION_REVERSED", "EXECUTION_CHARGED"]
    broker: Text
    account_id: Text
    exec_id: Text
    charge_id: Text | None = None
    reverses_exec_id: Text | None = None
    position_id: Annotated[int, Field(ge=1, le=2**63 - 1)]
    symbol: Text
    side: Literal["buy", "sell"]
    quantity: Amount
    price: Amount
    multiplier: Amount
    cash_amount: Amount
    commission: Amount = Decimal(0)
    fees: Amount = Decimal(0)
    net_amount: Amount | None = None
    currency: Text
    occurred_at: datetime


class NotBooked(Exception):
    """Why a record is not booked: an error class, as closeflow's own dead letters have, and the reason."""


def setting(name: str) -> str:
    """Of the environment; exits where it is not there."""
    return os.environ.get(name) or sys.exit(f"accounting: {name} is not set; README.md has every setting")


def kafka() -> dict[str, Any]:
    """How aiokafka's clients connect."""
    protocol = os.environ.get("KAFKA_SECURITY_PROTOCOL", "PLAINTEXT")
    context = None if protocol == "PLAINTEXT" else ssl.create_default_context(cafile=os.environ.get("KAFKA_CA_FILE"))
    servers = setting("KAFKA_BOOTSTRAP_SERVERS")
    options = {"bootstrap_servers": servers, "security_protocol": protocol, "ssl_context": context}
    if protocol == "SASL_SSL":
        options |= {"sasl_mechanism": "SCRAM-SHA-512", "sasl_plain_username": setting("KAFKA_USERNAME")}
        options |= {"sasl_plain_password": setting("KAFKA_PASSWORD")}
    return options


def read(value: bytes | None, headers: Any = ()) -> Entry:
    """The entry that a record is. Raises NotBooked, and nothing else."""
    for raw in (raw for name, raw in headers if name == "ce_dataschema" and raw is not None):
        if (named := SCHEMA.fullmatch(raw)) is None or named[1] != b"1":
            raise NotBooked("wrong_version" if named else "wrong_schema", f"{raw!r}; this reader knows v1")
    try:
        entry = Entry.model_validate_json(value or b"")
    except ValidationError as error:
        kinds = {one["type"] for one in error.errors()}
        unknown = "unknown_value" if kinds == {"literal_error"} else "bad_value"
        found = next((CLASSES[one] for one in kinds if one in CLASSES), unknown)
        raise NotBooked("null_value" if value is None else found, str(error)) from None
    value_of = EXACT.multiply(EXACT.multiply(entry.quantity, entry.price), entry.multiplier)
    receives = (entry.side == "sell") != (entry.event_type == "EXECUTION_REVERSED")
    cash = Decimal(0) if entry.event_type == "EXECUTION_CHARGED" else value_of if receives else -value_of
    net = EXACT.subtract(EXACT.subtract(entry.cash_amount, entry.commission), entry.fees)
    if entry.cash_amount != cash or entry.net_amount not in (None, net):
        raise NotBooked("bad_value", f"cash_amount should be {cash}, and net_amount {net}")
    return entry.model_copy(update={"net_amount": net})


async def book(db: Database, entry: Entry) -> None:
    """Add the entry and its postings, once. Raises NotBooked where the books have another one in its place."""
    said = await (await db.execute("SELECT book(%s)", [Jsonb(entry.model_dump(mode="json"))])).fetchall()
    if said[0][0] is not None:
        raise NotBooked("contradiction", said[0][0])


async def take(db: Database, dead: AIOKafkaProducer, record: Any) -> None:
    """Book a record, or put it where a person finds it before it is passed."""
    try:
        await book(db, read(record.value, record.headers))
    except NotBooked as error:
        place = [record.topic, record.partition, record.offset]
        error_class, reason = error.args[0], error.args[1].replace("\x00", " ")[:500]
        print("not booked:", *place, error_class, reason, flush=True)
        if error_class in ("unknown_value", "contradiction"):
            add = "INSERT INTO set_aside VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"
            await db.execute(add, [*place, error_class, reason, record.value])
            return
        said = dict(zip(DLQ, (*place, error_class, reason, GROUP, 1, datetime.now(UTC).isoformat()), strict=True))
        headers = [*record.headers, *((f"dlq_{name}", str(what).encode()) for name, what in said.items())]
        await dead.send_and_wait(f"{TOPIC}.dlq", record.value, key=record.key, headers=headers)


class FromLedger(ConsumerRebalanceListener):  # type: ignore[misc]
    """Begins each partition where the ledger ends, whatever Kafka was told."""

    consumer: AIOKafkaConsumer

    async def on_partitions_revoked(self, revoked: Any) -> None:
        """What is under way is committed, or is read again by who comes next."""

    async def on_partitions_assigned(self, assigned: Any) -> None:
        """Says so where records were deleted before they were booked."""
        async with await psycopg.AsyncConnection.connect(setting("ACCOUNTING_DSN")) as db:
            rows = await db.execute("SELECT partition, next_offset FROM offsets WHERE topic = %s", [TOPIC])
            ends = dict[int, int](await rows.fetchall())
        for place, first in (await self.consumer.beginning_offsets(assigned)).items():
            if ends.get(place.partition, first) < first:
                print(f"records before {first} of {place} were deleted unread: have them published again", flush=True)
            self.consumer.seek(place, max(first, ends.get(place.partition, first)))


async def run(db: Database) -> None:
    """Book what comes; a batch of a partition is one transaction."""
    options = {"enable_auto_commit": False, "auto_offset_reset": "earliest", "session_timeout_ms": 10_000}
    listener = FromLedger()
    listener.consumer = consumer = AIOKafkaConsumer(group_id=GROUP, **kafka(), **options)
    consumer.subscribe([TOPIC], listener=listener)
    async with consumer, AIOKafkaProducer(**kafka(), acks="all", enable_idempotence=True) as dead:
        while True:
            for place, records in (await consumer.getmany(timeout_ms=300, max_records=500)).items():
                async with db.transaction():
                    for record in records:
                        await take(db, dead, record)
                    await db.execute("SELECT pass(%s, %s, %s)", [place.topic, place.partition, records[-1].offset + 1])
                with suppress(KafkaError):  # The ledger has the offset; this one is for who watches the lag.
                    await consumer.commit({place: records[-1].offset + 1})


async def retry(db: Database) -> None:
    """Book what was set aside and can be read by now."""
    for *place, value in await (await db.execute("TABLE waiting")).fetchall():
        async with db.transaction():
            with suppress(NotBooked):  # It stays among what is wrong.
                await book(db, read(value))
                await db.execute("SELECT booked(%s, %s, %s)", place)


async def balance(db: Database) -> None:
    """Print the trial balance, and what is wrong; exit code 1 where something is."""
    for currency, account, amount in await (await db.execute("TABLE trial_balance")).fetchall():
        print(f"{currency}  {account:40}  {amount:>24f}")
    wrong = [f"WRONG: {what}" for (what,) in await (await db.execute("TABLE wrong")).fetchall()]
    print(*wrong, f"the books {'do not ' if wrong else ''}balance", sep="\n")
    sys.exit(1 if wrong else 0)


async def main(verb: str) -> None:
    """Make the ledger where there is none, then do it."""
    async with await psycopg.AsyncConnection.connect(setting("ACCOUNTING_DSN"), autocommit=True) as db:
        async with db.transaction():
            await db.execute("SELECT pg_advisory_xact_lock(hashtext('accounting'))")
            if not await (await db.execute("SELECT FROM pg_tables WHERE tablename = 'entries'")).fetchall():
                await db.execute(Path(__file__).with_name("ledger.sql").read_bytes())
        await VERBS[verb](db)


VERBS: dict[str, Any] = {"run": run, "retry": retry, "balance": balance}
if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in VERBS:
        sys.exit(f"{__doc__}\nsay which: {', '.join(VERBS)}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    asyncio.run(main(sys.argv[1]))
