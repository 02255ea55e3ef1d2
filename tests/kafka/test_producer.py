"""The producer while Kafka is away."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest
from aiokafka import AIOKafkaProducer

from closeflow.kafka import KafkaConnection, KafkaError, open_producer
from closeflow.kafka.producer import Producer

MakeTopic = Callable[[int], Awaitable[str]]


def _nobody_listens() -> KafkaConnection:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return KafkaConnection(f"127.0.0.1:{taken.getsockname()[1]}")


async def test_a_producer_that_fails_for_long_is_opened_again_from_the_bootstrap_servers(
    connection: KafkaConnection, make_topic: MakeTopic
) -> None:
    topic = await make_topic(1)
    made: list[AIOKafkaProducer] = []

    def make() -> AIOKafkaProducer:
        made.append(AIOKafkaProducer(**connection.options(), acks="all", request_timeout_ms=1000))
        return made[-1]

    producer = Producer(make, reopen_after_s=0)
    await producer.start()
    await producer.publish(topic, key=b"k", value=b"0")
    await made[0].stop()  # As good as an address at which nobody answers any more.
    with pytest.raises(KafkaError):
        async with asyncio.timeout(20):
            await producer.publish(topic, key=b"k", value=b"1")
    await producer.publish(topic, key=b"k", value=b"2")
    assert len(made) == 2
    await producer.stop()


async def test_a_kafka_that_is_not_there_is_its_own_error() -> None:
    with pytest.raises(KafkaError):
        async with asyncio.timeout(20), open_producer(_nobody_listens()):
            raise AssertionError("it cannot have started")
