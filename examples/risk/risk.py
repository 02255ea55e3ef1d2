"""Exposure per account and symbol from closeflow's position-events, with Faust: `python risk.py worker -l info`.

The view is derived: of each position the highest version that was read. So it may be killed at any moment, be given a
record twice and be started from the first record again; and where its state is lost, it reads everything anew.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import sys
import traceback
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

import faust
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import CommitFailedError
from faust.exceptions import PartitionsMismatch
from pydantic import BaseModel, Field, ValidationError

TOPIC = os.environ.get("RISK_TOPIC", "position-events")
GROUP = os.environ.get("RISK_GROUP", "risk")
SCHEMA = re.compile(rb"(?:.*[/:])?position-event\.v([0-9]+)(?:\.json)?")
DLQ = "origin_topic origin_partition origin_offset error_class reason consumer_group attempts first_seen".split()  # noqa: SIM905
Amount = Annotated[Decimal, Field(max_digits=60)]


class PositionEvent(BaseModel):
    """What is read of a `position-event.v1`; fields that are not named here are passed over."""

    position_id: Annotated[int, Field(ge=1)]
    position_version: Annotated[int, Field(ge=0)]
    account_id: str
    symbol: str
    asset_type: Literal["stock", "option", "crypto"]
    position_status: Literal["open", "closing", "closed", "close_retryable", "close_failed"]
    quantity: Amount
    multiplier: Amount | None = None
    currency: str | None = None
    exposure_unproven: bool = False


class NotApplied(Exception):
    """Why a record is not applied: an error class, as closeflow's own dead letters have, and the reason."""


def setting(name: str) -> str:
    """Of the environment; exits where it is not there."""
    return os.environ.get(name) or sys.exit(f"risk: {name} is not set; README.md has every setting")


def security() -> tuple[Any, dict[str, Any]]:
    """How Faust and aiokafka's clients prove who they are."""
    protocol = os.environ.get("KAFKA_SECURITY_PROTOCOL", "PLAINTEXT")
    if protocol == "PLAINTEXT":
        return None, {}
    context = ssl.create_default_context(cafile=os.environ.get("KAFKA_CA_FILE"))
    options: dict[str, Any] = {"security_protocol": protocol, "ssl_context": context}
    if protocol == "SSL":
        return faust.SSLCredentials(context=context), options
    who = {"username": setting("KAFKA_USERNAME"), "password": setting("KAFKA_PASSWORD")}
    options |= {f"sasl_plain_{name}": value for name, value in who.items()} | {"sasl_mechanism": "SCRAM-SHA-512"}
    return faust.SASLCredentials(**who, mechanism="SCRAM-SHA-512", ssl_context=context), options


def read(value: bytes | None, headers: Any = ()) -> PositionEvent:
    """The state that a record tells of. Raises NotApplied, and nothing else."""
    for raw in (raw for name, raw in headers if name == "ce_dataschema" and raw is not None):
        if (named := SCHEMA.fullmatch(raw)) is None or named[1] != b"1":
            raise NotApplied("wrong_version" if named else "wrong_schema", f"{raw!r}; this reader knows v1")
    if value is None:
        raise NotApplied("null_value", "the record has no value")
    try:
        return PositionEvent.model_validate_json(value)
    except ValidationError as error:
        kinds = {one["type"] for one in error.errors()}
        unknown = "unknown_value" if kinds == {"literal_error"} else "bad_value"
        classes = {"json_invalid": "bad_json", "missing": "missing_field"}
        raise NotApplied(next((classes[one] for one in kinds if one in classes), unknown), str(error)) from None


SERVERS = setting("KAFKA_BOOTSTRAP_SERVERS")
CREDENTIALS, OPTIONS = security()
app = faust.App(
    GROUP,
    broker=[f"kafka://{one}" for one in SERVERS.split(",")],
    broker_credentials=CREDENTIALS,
    broker_session_timeout=10.0,
    broker_heartbeat_interval=2.0,
    consumer_auto_offset_reset="earliest",
    broker_commit_interval=1.0,
    topic_partitions=int(os.environ.get("RISK_PARTITIONS", "6")),
    topic_replication_factor=int(os.environ.get("RISK_REPLICATION", "3")),
    topic_disable_leader=True,
    web_host=os.environ.get("RISK_HOST", "127.0.0.1"),
    web_port=int(os.environ.get("RISK_PORT", "6066")),
    datadir=os.environ.get("RISK_DATA", "risk-data"),
    store="memory://",
)
source = app.topic(TOPIC, key_serializer="raw", value_serializer="raw")
dead = app.topic(f"{TOPIC}.dlq", key_serializer="raw", value_serializer="raw")
positions = app.Table("positions")
PARKED = "parked/"  # Keys of the same table, so that there is one changelog.


@app.agent(source)
async def follow(stream: Any) -> None:
    """Faust passes an event whose agent raised: what is not expected ends the process instead, and is read again."""
    async for event in stream.events():
        while True:
            try:
                await apply(event.message)
                break
            except PartitionsMismatch:
                await asyncio.sleep(1)  # Of a changelog that was just made, Kafka's metadata may not tell yet.
            except Exception:
                traceback.print_exc()
                os._exit(1)


async def apply(message: Any) -> None:
    """The state of the record's position, if it is newer; else what cannot be applied is put aside."""
    try:
        found = read(message.value, message.headers or ())
    except NotApplied as error:
        place, (error_class, reason) = (message.topic, message.partition, message.offset), error.args
        print("not applied:", *place, error_class, reason, flush=True)
        if error_class == "unknown_value":
            key = f"{PARKED}{message.partition}/{message.offset}"
            positions[key] = {"reason": reason, "value": message.value.decode()}
            return
        said = dict(zip(DLQ, (*place, error_class, reason[:500], GROUP, 1, datetime.now(UTC).isoformat()), strict=True))
        headers = [*(message.headers or ()), *((f"dlq_{name}", str(what).encode()) for name, what in said.items())]
        await (await dead.send(key=message.key, value=message.value, headers=headers))
        return
    known = positions.get(str(found.position_id))
    if known is None or known["position_version"] < found.position_version:
        positions[str(found.position_id)] = found.model_dump(mode="json")


@app.page("/exposure")
async def exposure(web: Any, request: Any) -> Any:
    """What is held now, by account and symbol; a unit is one of the underlying, signed (short < 0)."""
    totals: dict[tuple[str, ...], list[Any]] = {}
    for one in (one for key, one in positions.items() if not key.startswith(PARKED)):
        total = totals.setdefault(
            (one["account_id"], one["symbol"], one["currency"] or ""), [Decimal(0), Decimal(0), 0]
        )
        total[0] += Decimal(one["quantity"])
        total[1] += Decimal(one["quantity"]) * Decimal(one["multiplier"] or 1)
        total[2] += one["exposure_unproven"]
    names = ("account_id", "symbol", "currency", "quantity", "units", "unproven")
    rows = [dict(zip(names, (*key, f"{q:f}", f"{u:f}", n), strict=True)) for key, (q, u, n) in sorted(totals.items())]
    return web.json(
        {"exposure": rows, "parked": {key: one for key, one in positions.items() if key.startswith(PARKED)}}
    )


@app.page("/positions")
async def listed(web: Any, request: Any) -> Any:
    """Each position as its highest version says, by id."""
    return web.json({key: one for key, one in positions.items() if not key.startswith(PARKED)})


async def begin_anew_without_state() -> None:
    """The state is in the changelog topics. Where they are gone, the group's offsets are of no use: they are deleted,
    so that every record is read again."""
    admin = AIOKafkaAdminClient(bootstrap_servers=SERVERS, **OPTIONS)
    consumer = AIOKafkaConsumer(bootstrap_servers=SERVERS, group_id=GROUP, enable_auto_commit=False, **OPTIONS)
    await asyncio.gather(admin.start(), consumer.start())
    try:
        topics = await admin.list_topics()
        changelog = f"{GROUP}-positions-changelog"
        places = [TopicPartition(TOPIC, one) for one in range(app.conf.topic_partitions)]
        read_before = any([await consumer.committed(place) for place in places])
        kept = (
            [TopicPartition(changelog, one) for one in range(app.conf.topic_partitions)] if changelog in topics else []
        )
        if read_before and not any((await consumer.end_offsets(kept)).values() if kept else ()):
            consumer.assign(places)
            while True:
                try:
                    await consumer.commit(await consumer.beginning_offsets(places))
                    break
                except CommitFailedError:
                    await asyncio.sleep(1)  # Kafka still counts the member that was killed, for its session's time.
            print("the state is lost: everything is read again", flush=True)
    finally:
        await asyncio.gather(consumer.stop(), admin.close())


if __name__ == "__main__":
    asyncio.run(begin_anew_without_state())
    app.main()
