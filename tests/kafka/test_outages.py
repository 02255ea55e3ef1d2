"""The consume loop while Kafka, or what its use-case needs, is away: it ends for nobody who did not ask it to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final

import pytest

import devstack
from closeflow.contracts import BrokerFillV1
from closeflow.kafka import ConsumerProgress, ConsumerTiming, KafkaConnection, Subscription, run_consumer
from demo.links import Links
from tests.kafka.test_consume import Batch, MakeTopic, numbers, publish
from tests.system.instance import own_instance

QUICK: Final = ConsumerTiming(
    poll_ms=50, heartbeat_ms=200, commit_deadline_s=0.5, stalled_s=4, restart_pause_s=0.05, restart_pause_cap_s=0.5
)


@pytest.fixture(scope="module")
def connection() -> KafkaConnection:
    return Links(devstack.up(own_instance(), secure=devstack.PROVIDER == "embedded")).kafka


class Passing(Exception):
    """An error that passes by itself."""


class Consumer:
    """A consumer whose batches wait for `release` and then fail as often as `failures` says."""

    def __init__(self, connection: KafkaConnection, topic: str) -> None:
        self.given: list[int] = []
        self.began = asyncio.Event()
        self.processed: list[int] = []
        self.release = asyncio.Event()
        self.release.set()
        self.failures = 0
        self.stop = asyncio.Event()
        self.progress = ConsumerProgress(stalled_after_s=1)
        subscription = Subscription(
            topic=topic,
            group=f"outages-{topic}",
            model=BrokerFillV1,
            process_batch=self._process,
            again_after=lambda error: isinstance(error, Passing),
        )
        self.task = asyncio.create_task(
            run_consumer(connection, subscription, self.stop, timing=QUICK, progress=self.progress)
        )

    async def _process(self, batch: Batch) -> None:
        self.given += numbers(batch)
        self.began.set()
        await self.release.wait()
        if self.failures:
            self.failures -= 1
            raise Passing("the database is away")
        self.processed += numbers(batch)

    async def until_processed(self, number: int) -> None:
        async with asyncio.timeout(60):
            while number not in self.processed:
                assert not self.task.done(), self.task
                await asyncio.sleep(0.05)

    async def until_trouble(self, there: bool) -> str | None:
        async with asyncio.timeout(60):
            while (self.progress.trouble() is not None) is not there:
                assert not self.task.done(), self.task
                await asyncio.sleep(0.05)
        return self.progress.trouble()

    async def end(self) -> None:
        self.stop.set()
        async with asyncio.timeout(30):
            await self.task


@contextmanager
def kafka_killed() -> Iterator[None]:
    devstack.kill_part(own_instance(), "kafka")
    try:
        yield
    finally:
        devstack.start_part(own_instance(), "kafka")


@contextmanager
def kafka_frozen() -> Iterator[None]:
    devstack.freeze_part(own_instance(), "kafka")
    try:
        yield
    finally:
        devstack.thaw_part(own_instance(), "kafka")


async def test_a_commit_that_kafka_did_not_take_is_a_warning_and_the_consumer_goes_on(
    connection: KafkaConnection, make_topic: MakeTopic
) -> None:
    topic = await make_topic(2)
    consumer = Consumer(connection, topic)
    consumer.release.clear()
    await publish(connection, topic, range(1))
    await consumer.began.wait()
    with kafka_killed():
        consumer.release.set()
        await consumer.until_processed(0)
        assert await consumer.until_trouble(True)
    await publish(connection, topic, range(1, 10))
    for number in range(1, 10):
        await consumer.until_processed(number)
    await consumer.until_trouble(False)
    await consumer.end()


async def test_a_consumer_of_a_frozen_kafka_is_not_well_and_goes_on_when_it_thaws(
    connection: KafkaConnection, make_topic: MakeTopic
) -> None:
    topic = await make_topic(2)
    consumer = Consumer(connection, topic)
    await publish(connection, topic, range(3))
    await consumer.until_processed(2)
    with kafka_frozen():
        assert await consumer.until_trouble(True)
        await asyncio.sleep(QUICK.stalled_s + 1)  # So that it also starts afresh, against a Kafka that says nothing.
    await publish(connection, topic, range(3, 6))
    await consumer.until_processed(5)
    await consumer.until_trouble(False)
    await consumer.end()


@pytest.mark.parametrize("away", [kafka_killed, kafka_frozen], ids=["killed", "frozen"])
async def test_a_consumer_without_partitions_notices_too_and_takes_over_afterwards(
    connection: KafkaConnection, make_topic: MakeTopic, away: Callable[[], AbstractContextManager[None]]
) -> None:
    topic = await make_topic(1)
    pair = [Consumer(connection, topic), Consumer(connection, topic)]
    for consumer in pair:
        await consumer.until_trouble(False)
    await publish(connection, topic, range(1))
    begun = [asyncio.create_task(one.began.wait()) for one in pair]
    await asyncio.wait(begun, timeout=60, return_when=asyncio.FIRST_COMPLETED)
    holder, spare = sorted(pair, key=lambda one: not one.began.is_set())
    await holder.until_processed(0)
    with away():
        for consumer in (spare, holder):
            assert await consumer.until_trouble(True)
        await asyncio.sleep(QUICK.stalled_s + 1)  # So that it also starts afresh, against a Kafka that says nothing.
        assert spare.progress.trouble()
    for consumer in pair:
        await consumer.until_trouble(False)
    await holder.end()
    await publish(connection, topic, range(1, 2))
    await spare.until_processed(1)
    await spare.end()


async def test_a_batch_whose_error_passes_is_given_again_and_nothing_is_skipped(
    connection: KafkaConnection, make_topic: MakeTopic
) -> None:
    topic = await make_topic(2)
    consumer = Consumer(connection, topic)
    consumer.failures = 3
    await publish(connection, topic, range(20))
    for number in range(20):
        await consumer.until_processed(number)
    assert len(consumer.processed) == 20
    assert len(consumer.given) > 20
    await consumer.until_trouble(False)
    await consumer.end()


async def test_an_error_that_does_not_pass_ends_the_consumer(
    connection: KafkaConnection, make_topic: MakeTopic
) -> None:
    topic = await make_topic(1)

    async def fail(_: Batch) -> None:
        raise LookupError("a defect")

    subscription = Subscription(topic=topic, group=f"outages-{topic}", model=BrokerFillV1, process_batch=fail)
    await publish(connection, topic, range(1))
    with pytest.raises(LookupError):
        await run_consumer(connection, subscription, asyncio.Event(), timing=QUICK)


async def test_it_is_well_once_it_has_joined_and_also_where_nothing_is_to_be_read(
    connection: KafkaConnection, make_topic: MakeTopic
) -> None:
    topic = await make_topic(1)
    first, second = Consumer(connection, topic), Consumer(connection, topic)
    assert first.progress.trouble() == "it has not joined its group yet"
    for consumer in (first, second):
        await consumer.until_trouble(False)
    await asyncio.sleep(1.5)  # Longer than an unanswered fetch may take here; one of the two has no partition to fetch.
    assert [one.progress.trouble() for one in (first, second)] == [None, None]
    for consumer in (first, second):
        await consumer.end()
