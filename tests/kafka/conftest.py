"""Topics that live for one test on the embedded Kafka."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
from aiokafka.admin import AIOKafkaAdminClient

import devstack
from closeflow.contracts import dead_letter_topic
from closeflow.kafka import KafkaConnection, TopicSpec, ensure_topics

MakeTopic = Callable[[int], Awaitable[str]]


@pytest.fixture(scope="session")
def connection(stack: devstack.Stack) -> KafkaConnection:
    return KafkaConnection(stack.kafka_bootstrap_servers)


@pytest.fixture
async def admin(connection: KafkaConnection) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(**connection.options())
    await client.start()
    yield client
    await client.close()


@pytest.fixture
async def make_topic(connection: KafkaConnection, admin: AIOKafkaAdminClient) -> AsyncIterator[MakeTopic]:
    """Make a topic with so many partitions and its dead letter topic; gives the name."""
    async with AsyncExitStack() as stack:

        async def make(partitions: int) -> str:
            name = f"test-{uuid.uuid4().hex[:12]}"
            specs = (
                TopicSpec(name=name, partitions=partitions, config={"max.message.bytes": "1048588"}),
                TopicSpec(name=dead_letter_topic(name), partitions=1, config={"max.message.bytes": "2097152"}),
            )
            await ensure_topics(connection, specs)
            stack.push_async_callback(admin.delete_topics, [spec.name for spec in specs])
            return name

        yield make
