"""What the reconciler counts for the metrics, with the rights that it has, on real PostgreSQL and Kafka."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import psycopg
import pytest

from closeflow.contracts import dead_letter_topic
from closeflow.contracts.topics import BROKER_FILL
from closeflow.kafka import KafkaConnection, ensure_topics, load_topics, open_producer
from closeflow.storage.core.engine import Database as Engine
from closeflow.storage.core.engine import make_engine
from reconciler.jobs.count_dead_letters import LETTERS, CountDeadLetters
from reconciler.jobs.measure_backlog import CLOSES, INCIDENTS, OLDEST_S, MeasureBacklog
from tests.conftest import REPOSITORY
from tests.storage.seeding import add_position, add_request

if TYPE_CHECKING:
    from tests.conftest import Database


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[Engine]:
    made = make_engine(database.dsn("closeflow_reconciler"), pool_size=2, application_name="test")
    yield made
    await made.dispose()


async def test_a_dead_letter_that_nobody_handled_is_counted(database: Database, engine: Engine) -> None:
    kafka = KafkaConnection(database.stack.kafka_bootstrap_servers)
    await ensure_topics(kafka, load_topics(REPOSITORY / "schemas" / "topics"))
    topic = dead_letter_topic(BROKER_FILL)
    async with open_producer(kafka) as producer:
        await producer.publish(topic, key=b"1", value=b"{}", headers=())
    await CountDeadLetters(engine, kafka, [BROKER_FILL]).once()
    assert LETTERS.labels(topic)._value.get() >= 1


async def test_what_is_not_over_is_counted_by_what_it_waits_for(database: Database, engine: Engine) -> None:
    with psycopg.connect(database.admin_dsn, autocommit=True) as owner:
        request = add_request(owner, add_position(owner), status="pending")
        owner.execute(
            "UPDATE close_requests SET created_at = closeflow_now() - interval '1 hour' WHERE id = %s", (request,)
        )
        owner.execute(
            "INSERT INTO incidents (kind, severity, detail) VALUES ('gap', 'critical', '{\"subject\": \"x\"}')"
        )
    await MeasureBacklog(engine).once()
    assert CLOSES.labels("pending", "plan")._value.get() == 1
    assert OLDEST_S.labels("pending", "plan")._value.get() >= 3600
    assert INCIDENTS.labels("gap", "critical")._value.get() == 1
