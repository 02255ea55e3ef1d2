"""A database with closes in every state, made once for all tests of closectl that only look at it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import text

import devstack
from closeflow.contracts import dead_letter_topic
from closeflow.kafka import KafkaConnection, TopicSpec, ensure_topics
from closeflow.kafka.topics import remove_topics
from closeflow.storage.core.engine import Database, make_engine, transaction
from tests.closectl.offices import Office
from tests.closectl.seeding import Closes
from tests.conftest import Database as OnTestStack
from tests.conftest import fresh_database

_LIMITS = text("""
    INSERT INTO account_limits (account_id, max_order_qty, max_order_notional, submits_per_minute)
    VALUES ('main', 1000, 1000000, 1000) ON CONFLICT DO NOTHING
""")

_NOT_DUE = text("""
    UPDATE close_requests SET next_attempt_at = closeflow_now() + interval '1 hour', working_timeout_s = 86400,
        reason = CASE status WHEN 'pending' THEN 'market_closed' ELSE reason END
    WHERE status IN ('pending', 'submitted')
""")
"""However long the tests take, the one that is only accepted is not forgotten, nor is the one at work late."""


@pytest.fixture(scope="session")
def closes_database(stack: devstack.Stack, template: str) -> Iterator[OnTestStack]:
    with fresh_database(stack, template) as made:
        yield made


@pytest.fixture(scope="session")
async def closes(closes_database: OnTestStack) -> AsyncIterator[Database]:
    """The owner's engine on it. Whoever changes something takes it back."""
    engine = make_engine(closes_database.admin_dsn, pool_size=3, application_name="closeflow-tests")
    await Closes(engine).make_all()
    async with transaction(engine) as tx:
        await tx.execute(_LIMITS)
        await tx.execute(_NOT_DUE)
    yield engine
    await engine.dispose()


@pytest.fixture
def office(stack: devstack.Stack, module_database: OnTestStack) -> Iterator[Office]:
    topic = f"test-{uuid.uuid4().hex[:12]}"
    kafka = KafkaConnection(stack.kafka_bootstrap_servers)
    specs = [TopicSpec(name=name, partitions=1, config={}) for name in (topic, dead_letter_topic(topic))]
    asyncio.run(ensure_topics(kafka, specs))
    yield Office(topic, kafka, module_database)
    asyncio.run(remove_topics(kafka, specs))
