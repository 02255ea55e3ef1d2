"""Runs the usual wiring under a burst of closes, on the stack's PostgreSQL, Kafka and Connect."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import psycopg

import devstack
from bench.flow.alternative import Outcome, Setting, prepared
from bench.flow.side_venv import USUAL, programs
from bench.flow.trade_updates import LISTENING
from closectl.platform.connector import Outbox, register, unregister, write_credentials
from closeflow.kafka import TopicSpec, ensure_topics
from closeflow.kafka.connection import KafkaConnection
from closeflow.kafka.topics import remove_topics
from demo.services import free_port

NAME: Final = "usual"
PREFIX: Final = "usual-"
MADE: Final = tuple(
    TopicSpec(name=f"{PREFIX}{name}", partitions=6, config={})
    for name in ("submit-order", "broker-fill", "position-events")
)
FAUSTS_OWN: Final = tuple(
    TopicSpec(name=f"usual-{name}-__assignor-__leader", partitions=1, config={}) for name in ("submitter", "fills")
)
OUTBOX: Final = Path(__file__).with_name("outbox.sql")


@dataclass(frozen=True, slots=True)
class UsualOutbox(Outbox):
    """A connector with no setting of polling, batches or queues: Debezium then uses 500 ms, 2048 and 8192."""

    def config(self) -> dict[str, str]:
        """Where the table is and the outbox router; everything else is Debezium's default."""
        secret = self.credentials_file
        return {
            "name": self.connector,
            "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
            "tasks.max": "1",
            "plugin.name": "pgoutput",
            "database.hostname": self.host,
            "database.port": str(self.port),
            "database.dbname": self.database,
            "database.user": f"${{file:{secret}:user}}",
            "database.password": f"${{file:{secret}:password}}",
            "slot.name": self.slot,
            "topic.prefix": self.connector,
            "publication.name": "outbox",
            "publication.autocreate.mode": "filtered",
            "table.include.list": "public.outbox_events",
            "tombstones.on.delete": "false",
            "transforms": "outbox",
            "transforms.outbox.type": "io.debezium.transforms.outbox.EventRouter",
            "transforms.outbox.route.topic.replacement": f"{self.topic_prefix}${{routedByValue}}",
        }


def run(stack: devstack.Stack, *, closes: int, clients: int, call_s: float, warm_up: int) -> Outcome:
    """What `closes` took after `warm_up` that are not counted. Database, topics and connector are its own, and gone
    afterwards."""
    python = str(programs(USUAL) / "python")
    _forget(stack)
    with prepared(stack, NAME, positions=warm_up + closes, call_s=call_s) as setting, _published(setting):
        kafka = stack.kafka_bootstrap_servers
        environment = {  # Not BROKER_URL: to Faust that is a setting of its own.
            "POSTGRES_DSN": setting.dsn,
            "KAFKA_BOOTSTRAP_SERVERS": kafka,
            "FAUST_BROKER": f"kafka://{kafka}",
            "FAUST_LOOP": "uvloop",
            "TRADING_URL": setting.broker.url,
            "TRADING_STREAM_URL": setting.broker.stream_url,
        }
        setting.start("gateway", [python, "-m", "bench.flow.usual.gateway"], environment)
        for name in ("submitter", "fills"):
            worker = ["worker", "--loglevel", "warn", "--without-web"]
            setting.start(name, [python, "-m", "faust", "-A", f"bench.flow.usual.{name}:app", *worker], environment)
        port = free_port()
        setting.serve("api", [python, "-m", "bench.flow.usual.api"], environment | {"PORT": str(port)}, port)
        setting.await_line("gateway", LISTENING)
        setting.count_parts("postgres", "kafka", "connect")
        return setting.warm_up_and_measure(port, closes=closes, clients=clients)


@contextmanager
def _published(setting: Setting) -> Iterator[None]:
    stack = setting.stack
    with psycopg.connect(setting.dsn, autocommit=True) as database:
        database.execute(OUTBOX.read_bytes())
    kafka = KafkaConnection(stack.kafka_bootstrap_servers)
    asyncio.run(ensure_topics(kafka, MADE))
    outbox = _outbox(stack)
    login = urlsplit(stack.admin_dsn)
    write_credentials(outbox.credentials_file, str(login.password), user=str(login.username))
    try:
        register(stack.connect_url, outbox, dsn=setting.dsn)
        yield
    finally:
        setting.stop()
        _forget(stack)


def _forget(stack: devstack.Stack) -> None:
    unregister(stack.connect_url, _outbox(stack), dsn=stack.admin_dsn)
    asyncio.run(remove_topics(KafkaConnection(stack.kafka_bootstrap_servers), [*MADE, *FAUSTS_OWN]))


def _outbox(stack: devstack.Stack) -> UsualOutbox:
    secret = stack.data_dir / f"{NAME}.properties"
    return UsualOutbox(f"bench_{NAME}", stack.postgres_host, stack.postgres_port, secret, PREFIX)
