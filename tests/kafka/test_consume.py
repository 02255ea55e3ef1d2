"""The consume loop on a real Kafka: offsets after the work, nothing lost or skipped whatever the group does."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from types import TracebackType
from typing import Final, Self
from uuid import UUID

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from closeflow.contracts import BrokerFillV1, encode
from closeflow.domain.model import ExecType, Side, UpdateSource
from closeflow.kafka import (
    ConsumerTiming,
    KafkaConnection,
    Outgoing,
    Record,
    Subscription,
    TopicMissing,
    open_producer,
    run_consumer,
)

MakeTopic = Callable[[int], Awaitable[str]]
Batch = Sequence[Record[BrokerFillV1]]

GROUP: Final = "closeflow-test"
NOW: Final = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)
QUICK: Final = ConsumerTiming(poll_ms=50, heartbeat_ms=200)


class Crash(Exception):
    """Stands for everything that ends a process in the middle of a batch."""


async def eventually(condition: Callable[[], bool], what: str) -> None:
    try:
        async with asyncio.timeout(20):
            while True:
                if condition():
                    return
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"not within 20 s: {what}") from None


class Member:
    """One member of the group of a topic; `work` may block or raise before a batch counts as processed."""

    def __init__(
        self,
        connection: KafkaConnection,
        topic: str,
        work: Callable[[Batch], Awaitable[None]] | None = None,
        timing: ConsumerTiming = QUICK,
        max_records: int = 64,
    ) -> None:
        self.given: list[Record[BrokerFillV1]] = []
        self.processed: list[Record[BrokerFillV1]] = []
        self.partitions: frozenset[int] = frozenset()
        self.stop = asyncio.Event()
        self._work = work
        subscription = Subscription(
            topic=topic,
            group=f"{GROUP}-{topic}",
            model=BrokerFillV1,
            process_batch=self._process,
            on_assigned=self._assigned,
            max_records=max_records,
        )
        self.task = asyncio.create_task(run_consumer(connection, subscription, self.stop, timing=timing))

    async def _process(self, batch: Batch) -> None:
        self.given.extend(batch)
        if self._work is not None:
            await self._work(batch)
        self.processed.extend(batch)

    def _assigned(self, partitions: frozenset[int]) -> None:
        self.partitions = partitions

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop.set()
        if error is not None:
            self.task.cancel()
            await asyncio.wait({self.task})
        else:
            await self.task


def fill(n: int) -> BrokerFillV1:
    return BrokerFillV1(
        event_id=UUID(int=n),
        broker="sim",
        account_id="A1",
        symbol="AAPL",
        client_order_id=f"order-{n}",
        exec_type=ExecType.NEW,
        side=Side.SELL,
        order_qty=Decimal(1),
        transact_time=NOW,
        received_at=NOW,
        source=UpdateSource.STREAM,
    )


async def publish(connection: KafkaConnection, topic: str, numbers: range) -> None:
    async with open_producer(connection) as producer:
        await producer.publish_many(
            [Outgoing(topic=topic, key=str(n).encode(), value=encode(fill(n))) for n in numbers]
        )


def numbers(records: Sequence[Record[BrokerFillV1]]) -> Counter[int]:
    return Counter(record.value.event_id.int for record in records)


async def committed(admin: AIOKafkaAdminClient, topic: str) -> dict[int, int]:
    found = await admin.list_consumer_group_offsets(f"{GROUP}-{topic}")
    return {tp.partition: stored.offset for tp, stored in found.items() if tp.topic == topic}


async def test_offsets_are_committed_only_after_the_batch_was_processed(
    connection: KafkaConnection, admin: AIOKafkaAdminClient, make_topic: MakeTopic
) -> None:
    topic = await make_topic(1)
    release = asyncio.Event()

    async def wait_for_release(_: Batch) -> None:
        await release.wait()

    await publish(connection, topic, range(5))
    async with Member(connection, topic, wait_for_release) as member:
        await eventually(lambda: len(member.given) == 5, "the batch is given")
        assert await committed(admin, topic) == {}
        release.set()
    assert await committed(admin, topic) == {0: 5}
    assert [record.offset for record in member.processed] == [0, 1, 2, 3, 4]
    assert {record.key for record in member.processed} == {b"0", b"1", b"2", b"3", b"4"}
    assert all(record.timestamp.tzinfo is UTC for record in member.processed)


async def test_batches_are_bounded_and_in_order(connection: KafkaConnection, make_topic: MakeTopic) -> None:
    topic = await make_topic(1)
    sizes: list[int] = []

    async def measure(batch: Batch) -> None:
        sizes.append(len(batch))

    await publish(connection, topic, range(25))
    async with Member(connection, topic, measure, max_records=10) as member:
        await eventually(lambda: len(member.processed) == 25, "all records are processed")
    assert max(sizes) == 10
    assert [record.value.event_id.int for record in member.processed] == list(range(25))


@pytest.mark.parametrize("ending", ["raises", "cancelled"])
async def test_a_batch_that_did_not_finish_is_read_again(
    connection: KafkaConnection, admin: AIOKafkaAdminClient, make_topic: MakeTopic, ending: str
) -> None:
    topic = await make_topic(2)
    reached = asyncio.Event()

    async def crash(_: Batch) -> None:
        reached.set()
        if ending == "raises":
            raise Crash
        await asyncio.Event().wait()

    await publish(connection, topic, range(10))
    first = Member(connection, topic, crash)
    await reached.wait()
    if ending == "cancelled":
        first.task.cancel()
    with pytest.raises(Crash if ending == "raises" else asyncio.CancelledError):
        await first.task
    assert await committed(admin, topic) == {}
    async with Member(connection, topic) as second:
        await eventually(lambda: len(second.processed) >= 10, "everything is read again")
    assert numbers(second.processed) == Counter(range(10))
    assert sum((await committed(admin, topic)).values()) == 10


async def test_a_batch_that_takes_too_long_stops_the_process(
    connection: KafkaConnection, admin: AIOKafkaAdminClient, make_topic: MakeTopic
) -> None:
    topic = await make_topic(1)

    async def hang(_: Batch) -> None:
        await asyncio.Event().wait()

    await publish(connection, topic, range(1))
    member = Member(connection, topic, hang, ConsumerTiming(poll_ms=50, batch_deadline_s=0.2))
    with pytest.raises(TimeoutError, match=f"a batch of {topic} took longer than 0.2 s"):
        await member.task
    assert await committed(admin, topic) == {}


async def test_stopping_finishes_the_batch_in_flight_and_leaves_the_group(
    connection: KafkaConnection, admin: AIOKafkaAdminClient, make_topic: MakeTopic
) -> None:
    topic = await make_topic(1)
    release = asyncio.Event()

    async def wait_for_release(_: Batch) -> None:
        await release.wait()

    await publish(connection, topic, range(3))
    async with Member(connection, topic, wait_for_release) as member:
        await eventually(lambda: len(member.given) == 3, "the batch is given")
        member.stop.set()
        await asyncio.sleep(0)
        assert not member.task.done()
        release.set()
    assert await committed(admin, topic) == {0: 3}
    assert await state(admin, topic) == "Empty"


async def test_stopping_does_not_wait_for_a_rebalance(
    connection: KafkaConnection, admin: AIOKafkaAdminClient, make_topic: MakeTopic
) -> None:
    """The group waits up to 35 s for the first member's batch; the second one, asked to stop, ends with its session."""
    topic = await make_topic(1)
    release = asyncio.Event()

    async def wait_for_release(_: Batch) -> None:
        await release.wait()

    await publish(connection, topic, range(1))
    async with Member(connection, topic, wait_for_release) as first:
        await eventually(lambda: len(first.given) == 1, "the first member has a batch in flight")
        second = Member(connection, topic)
        await rebalancing(admin, topic)
        second.stop.set()
        async with asyncio.timeout(QUICK.rebalance_ms / 1000 / 2):
            await second.task
        release.set()
        await eventually(lambda: len(first.partitions) == 1, "the first member goes on alone")


async def test_partitions_are_given_up_only_after_the_batch_in_flight(
    connection: KafkaConnection, admin: AIOKafkaAdminClient, make_topic: MakeTopic
) -> None:
    topic = await make_topic(4)
    release = asyncio.Event()

    async def wait_for_release(_: Batch) -> None:
        await release.wait()

    await publish(connection, topic, range(40))
    async with Member(connection, topic, wait_for_release) as first:
        await eventually(lambda: len(first.given) == 40, "the first member has a batch in flight")
        async with Member(connection, topic) as second:
            await eventually(lambda: not second.task.done(), "the second member joins")
            await rebalancing(admin, topic)
            await still_rebalancing(admin, topic, seconds=5 * QUICK.heartbeat_ms / 1000)
            assert second.partitions == frozenset()
            release.set()
            await eventually(lambda: len(second.partitions) == len(first.partitions) == 2, "the partitions are shared")
            assert first.partitions.isdisjoint(second.partitions)
            await publish(connection, topic, range(40, 80))
            await eventually(lambda: len(first.processed) + len(second.processed) >= 80, "all records are processed")
        await eventually(lambda: len(first.partitions) == 4, "the first member gets the partitions back")
        await publish(connection, topic, range(80, 90))
        await eventually(lambda: len(first.processed) + len(second.processed) >= 90, "the rest is processed")
    # Exactly once, because nobody died: a clean rebalance re-reads nothing and skips nothing.
    assert numbers(first.processed) + numbers(second.processed) == Counter(range(90))
    assert sum((await committed(admin, topic)).values()) == 90


async def state(admin: AIOKafkaAdminClient, topic: str) -> str:
    (found,) = await admin.describe_consumer_groups([f"{GROUP}-{topic}"])
    return str(found.groups[0][2])


async def rebalancing(admin: AIOKafkaAdminClient, topic: str) -> None:
    async with asyncio.timeout(20):
        while True:
            if await state(admin, topic) == "PreparingRebalance":
                return
            await asyncio.sleep(0.01)


async def still_rebalancing(admin: AIOKafkaAdminClient, topic: str, *, seconds: float) -> None:
    """For so long the group waits for a member that does not join yet, although it has been told to."""
    until = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < until:
        assert await state(admin, topic) == "PreparingRebalance"
        await asyncio.sleep(0.05)


async def test_a_member_that_was_thrown_out_commits_nothing_and_nothing_is_lost(
    connection: KafkaConnection, admin: AIOKafkaAdminClient, make_topic: MakeTopic
) -> None:
    """The group waits for a slow batch no longer than the rebalance time-out; then the others have the partitions."""
    topic = await make_topic(2)
    impatient = ConsumerTiming(poll_ms=50, heartbeat_ms=200, rebalance_ms=500)
    release = asyncio.Event()

    async def wait_for_release(_: Batch) -> None:
        await release.wait()

    await publish(connection, topic, range(20))
    async with Member(connection, topic, wait_for_release, impatient) as slow:
        await eventually(lambda: len(slow.given) == 20, "the slow member has the whole topic in flight")
        async with Member(connection, topic, timing=impatient) as quick:
            await eventually(lambda: len(quick.processed) == 20, "the other member took over and read it again")
            await publish(connection, topic, range(20, 30))
            await eventually(lambda: len(quick.processed) == 30, "and goes on")
            release.set()
            await eventually(lambda: len(slow.partitions) == len(quick.partitions) == 1, "the slow member came back")
            assert not slow.task.done()
            await publish(connection, topic, range(30, 40))
            await eventually(lambda: len(slow.processed) + len(quick.processed) >= 60, "all records are processed")
    assert set(numbers(slow.processed) + numbers(quick.processed)) == set(range(40))
    assert sum((await committed(admin, topic)).values()) == 40


async def test_a_member_without_partitions_takes_over_long_after_the_poll_interval(
    connection: KafkaConnection, make_topic: MakeTopic
) -> None:
    """aio-libs/aiokafka#1187."""
    topic = await make_topic(1)
    timing = ConsumerTiming(poll_ms=50, heartbeat_ms=200, max_poll_interval_ms=400)
    async with Member(connection, topic, timing=timing) as one:
        await eventually(lambda: len(one.partitions) == 1, "the first member has the partition")
        async with Member(connection, topic, timing=timing) as other:
            await eventually(lambda: len(one.partitions) + len(other.partitions) == 1, "both are in the group")
            waited = asyncio.get_running_loop().time() + 3 * timing.max_poll_interval_ms / 1000
            await eventually(lambda: asyncio.get_running_loop().time() > waited, "three poll intervals")
            holder, idle = (one, other) if one.partitions else (other, one)
            holder.stop.set()
            await eventually(lambda: len(idle.partitions) == 1, "the idle member takes over")


async def test_a_topic_that_does_not_exist_stops_the_start(connection: KafkaConnection) -> None:
    member = Member(connection, "no-such-topic")
    with pytest.raises(TopicMissing, match=r"no topic no-such-topic, no-such-topic\.dlq"):
        await member.task


async def test_a_new_group_reads_from_the_beginning(connection: KafkaConnection, make_topic: MakeTopic) -> None:
    topic = await make_topic(3)
    await publish(connection, topic, range(30))
    async with Member(connection, topic) as member:
        await eventually(lambda: len(member.processed) == 30, "records from before the group existed are read")
    assert {TopicPartition(record.topic, record.partition).partition for record in member.processed} == {0, 1, 2}
