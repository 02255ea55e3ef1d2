"""The one consume loop: read a batch, let the use-case commit its transaction, then commit the offsets.

- Offsets are committed per partition, last offset + 1, only after `process_batch` returned and every dead letter is
  acknowledged. Whatever happens in between, the batch is read again.
- Before partitions are given up, the batch in flight is finished and committed.
- Only `Undecodable`, and records the use-case returns as `Rejected`, become dead letters; of those, a value of a newer
  writer is parked where the subscription can. An error of Kafka starts the loop again; one that the use-case says will
  pass (`again_after`) gives it the batch again; any other error ends it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Generic, TypeVar

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError, KafkaTimeoutError

from closeflow.contracts import WireModel, dead_letter_topic
from closeflow.kafka.closing import close
from closeflow.kafka.connection import KafkaConnection
from closeflow.kafka.consumer_progress import ConsumerProgress, tell_heartbeats
from closeflow.kafka.dlq import (
    DEFAULT_LIMIT,
    DeadLetterBudget,
    DeadLetterLimit,
    DlqPublisher,
    open_dlq_publisher,
)
from closeflow.kafka.lenient import about_a_record, offset_after, read_leniently
from closeflow.kafka.log_check import LogCheck
from closeflow.kafka.lost_tail import LostTail
from closeflow.kafka.reading import Sorted, sort_out
from closeflow.kafka.records import DeadLetter, Record, Rejected
from closeflow.kafka.timing import PRODUCTION, ConsumerTiming, deadline
from closeflow.kafka.topics import require_topics
from closeflow.tasks import GrowingPause, being_cancelled, end_tasks
from closeflow.telemetry.metrics import KAFKA_BATCH_RECORDS, KAFKA_BATCH_SECONDS, KAFKA_LAG, KAFKA_RECORDS

M = TypeVar("M", bound=WireModel)
log = structlog.get_logger(__name__)

MAX_RECORDS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription(Generic[M]):
    """What one consumer group does with one topic.

    `process_batch` gets the readable records in partition order, commits its own transaction, and may return records to
    dead-letter. It must bear to see a record again. `before_dead_letters` is told of the unreadable ones first, before
    `process_batch`, so that it can freeze what they are about. `park` keeps those with a value of a newer writer, in
    place of the dead letter topic, and must bear to see one again. `on_assigned` gets the partitions held now: none
    while the group rebalances. `again_after` says of an error of theirs that it will pass: the same batch is given
    again after a growing pause. `on_lost_tail` is told of partitions whose newest records vanished.
    """

    topic: str
    group: str
    model: type[M]
    process_batch: Callable[[Sequence[Record[M]]], Awaitable[Sequence[Rejected[M]] | None]]
    before_dead_letters: Callable[[Sequence[DeadLetter]], Awaitable[None]] | None = None
    park: Callable[[Sequence[DeadLetter]], Awaitable[None]] | None = None
    on_assigned: Callable[[frozenset[int]], None] | None = None
    on_lost_tail: Callable[[Sequence[LostTail]], Awaitable[None]] | None = None
    again_after: Callable[[Exception], bool] = lambda _: False
    dead_letter_limit: DeadLetterLimit = DEFAULT_LIMIT
    max_records: int = MAX_RECORDS


class ConsumerStalled(Exception):
    """Nothing moved for `ConsumerTiming.stalled_s`, or aiokafka ended by itself what was asked of it."""


class BatchDamaged(KafkaError):  # type: ignore[misc]  # aiokafka has no types
    """Kafka's disk has a batch that cannot be told from the next, and nothing behind it is known."""


async def run_consumer(
    connection: KafkaConnection,
    subscription: Subscription[M],
    stop: asyncio.Event,
    *,
    timing: ConsumerTiming = PRODUCTION,
    progress: ConsumerProgress | None = None,
) -> None:
    """Consume until `stop` is set: the batch in flight is finished and committed, then the group is left.

    While Kafka is away, or throws us out, it starts again and again, after pauses that grow up to the cap. Raises what
    `process_batch` raises, TimeoutError when a batch takes longer than its deadline, `DeadLetterLimitExceeded`, or
    `TopicMissing`; nothing is committed for that batch.
    """
    progress = progress or ConsumerProgress()
    pause = GrowingPause(timing.restart_pause_s, timing.restart_pause_cap_s)
    while not stop.is_set():
        began = time.monotonic()
        try:
            await _consume(connection, subscription, stop, timing, progress)
        except (KafkaError, ConsumerStalled) as error:
            if time.monotonic() - began > timing.stalled_s:
                pause.reset()
            reason, next_in_s = f"{type(error).__name__}: {error}", pause.next_s()
            progress.failed(reason)
            log.warning("consumer_starts_again", topic=subscription.topic, reason=reason, next_in_s=next_in_s)
            await _wait_for(stop, next_in_s)


async def _consume(
    connection: KafkaConnection,
    subscription: Subscription[M],
    stop: asyncio.Event,
    timing: ConsumerTiming,
    progress: ConsumerProgress,
) -> None:
    try:
        await _consume_once(connection, subscription, stop, timing, progress)
    except asyncio.CancelledError:
        # Where Kafka is away, aiokafka lets the cancellation of its own tasks out: it would pass for one of ours.
        if being_cancelled():
            raise
        raise ConsumerStalled("aiokafka cancelled itself") from None


async def _consume_once(
    connection: KafkaConnection,
    subscription: Subscription[M],
    stop: asyncio.Event,
    timing: ConsumerTiming,
    progress: ConsumerProgress,
) -> None:
    await require_topics(connection, [subscription.topic, dead_letter_topic(subscription.topic)])
    consumer = AIOKafkaConsumer(
        **connection.options(),
        group_id=subscription.group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=timing.session_ms,
        heartbeat_interval_ms=timing.heartbeat_ms,
        rebalance_timeout_ms=timing.rebalance_ms,
        max_poll_interval_ms=timing.max_poll_interval_ms,
        fetch_max_wait_ms=timing.poll_ms,
    )
    async with AsyncExitStack() as stack:
        office = await stack.enter_async_context(open_dlq_publisher(connection, subscription.group))
        log_check = LogCheck(connection, consumer, subscription.on_lost_tail, subscription.again_after)
        loop = _Loop(consumer, subscription, office, stop, timing, progress, log_check)
        consumer.subscribe([subscription.topic], listener=loop)
        stack.push_async_callback(loop.leave)
        await loop.run()


class _Loop(ConsumerRebalanceListener, Generic[M]):  # type: ignore[misc]  # aiokafka has no types
    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        subscription: Subscription[M],
        office: DlqPublisher,
        stop: asyncio.Event,
        timing: ConsumerTiming,
        progress: ConsumerProgress,
        log_check: LogCheck,
    ) -> None:
        self._consumer = consumer
        self._log_check = log_check
        self._subscription = subscription
        self._office = office
        self._stop = stop
        self._timing = timing
        self._progress = progress
        self._pause = GrowingPause(timing.restart_pause_s, timing.restart_pause_cap_s)
        self._handled: dict[TopicPartition, int] = {}
        """Where to go on in the partitions that are held, of those of which a batch was handled."""
        self._fetched: dict[TopicPartition, int | None] = {}
        self._budget = DeadLetterBudget(subscription.dead_letter_limit)
        self._in_flight = asyncio.Lock()
        self._log = log.bind(topic=subscription.topic, group=subscription.group)

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Called by aiokafka before it joins again; polls give nothing from here until new partitions are assigned."""
        async with self._in_flight:
            self._announce(frozenset())
            self._progress.revoked()
        if revoked:
            self._log.info("partitions_revoked", partitions=sorted(tp.partition for tp in revoked))

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self._handled.clear()
        self._log_check.assigned(assigned)
        self._announce(frozenset(tp.partition for tp in assigned))
        self._progress.assigned(frozenset(tp.partition for tp in assigned))
        self._log.info("partitions_assigned", partitions=sorted(tp.partition for tp in assigned))

    def _announce(self, partitions: frozenset[int]) -> None:
        if self._subscription.on_assigned is not None:
            self._subscription.on_assigned(partitions)

    async def run(self) -> None:
        began = time.monotonic()
        polling = asyncio.create_task(self._poll_until_stopped())
        stopping = asyncio.create_task(self._stop.wait())
        try:
            while not polling.done() and not stopping.done():
                await asyncio.wait(
                    {polling, stopping}, return_when=asyncio.FIRST_COMPLETED, timeout=self._timing.stalled_s / 10
                )
                self._refuse_standstill(began)
            # A join, or a poll while the group rebalances, can wait long, so it is cut off; a batch in flight is not.
            if not polling.done() and not self._in_flight.locked():
                polling.cancel()
            await asyncio.wait({polling})
        finally:
            await end_tasks([polling, stopping])
        if not polling.cancelled():
            polling.result()
        elif not self._stop.is_set():
            raise ConsumerStalled("the poll was cancelled by nobody of ours")

    def _refuse_standstill(self, began: float) -> None:
        still_for_s = min(self._progress.still_for_s(), time.monotonic() - began)
        if still_for_s > self._timing.stalled_s and not self._in_flight.locked():
            raise ConsumerStalled(f"nothing moved for {still_for_s:.0f} s")

    async def leave(self) -> None:
        """Leave the group, so that the others need not wait for our session to end; not for longer than it would take
        to end by itself, because aiokafka first waits for a join that is under way."""
        await close(self._consumer.stop(), what="consumer", within_s=self._timing.session_ms / 1000)

    async def _poll_until_stopped(self) -> None:
        await self._consumer.start()
        tell_heartbeats(self._consumer, self._progress.in_group)
        while not self._stop.is_set():
            failure = await self._poll()
            if failure is not None:
                await self._wait_after(failure)

    async def _poll(self) -> Exception | None:
        """Read a batch and handle it; returns the error for which it has to be given again."""
        try:
            # Awaited here and not in a task of its own: between the poll's last check for a rebalance and the lock
            # there is then no point at which `on_partitions_revoked` could slip in.
            batch = await self._consumer.getmany(
                timeout_ms=self._timing.poll_ms, max_records=self._subscription.max_records
            )
        except Exception as error:
            if not about_a_record(error):
                raise
            async with self._in_flight:
                starts = await self._go_back()
                return None if await self._put_aside({}) else await self._step_over(error, starts)
        if batch:
            self._progress.given()
        async with self._in_flight:
            aside = await self._put_aside({tp: records[0].offset for tp, records in batch.items()})
            batch = {tp: records for tp, records in batch.items() if tp not in aside}
            if batch:
                return await self._handle(batch)
        if self._was_answered():
            self._progress.moved()
        return None

    async def _go_back(self) -> dict[TopicPartition, int]:
        """To where every partition was handled, because a poll that fails loses what it had of the others."""
        starts = {}
        try:
            async with asyncio.timeout(self._timing.commit_deadline_s):
                for tp in self._consumer.assignment():
                    start = self._handled.get(tp)
                    if start is None:
                        start = await self._consumer.committed(tp)
                    if start is None:
                        start = (await self._consumer.beginning_offsets([tp]))[tp]
                    self._consumer.seek(tp, start)
                    starts[tp] = start
        except TimeoutError:
            raise KafkaTimeoutError("Kafka does not tell how far the group has read") from None
        return starts

    async def _step_over(self, error: Exception, starts: Mapping[TopicPartition, int]) -> Exception | None:
        """aiokafka refuses a record before we see it: read what can be read of its batch, and go on behind it."""
        self._log.warning("records_refused_by_client", reason=f"{type(error).__name__}: {error}")
        batch: dict[TopicPartition, Sequence[Any]] = {}
        for tp, start in starts.items():
            found = await read_leniently(self._consumer, tp, start)
            if found:
                batch[tp] = found[: self._subscription.max_records]
        if not batch:
            began = ", ".join(f"{tp.topic}/{tp.partition} at {start}" for tp, start in starts.items())
            raise BatchDamaged(f"nothing can be read from {began} on: {error}") from error
        failure = await self._handle(batch)
        for tp, handled in batch.items() if failure is None else ():
            self._consumer.seek(tp, offset_after(handled[-1]))
        return failure

    async def _put_aside(self, polled: Mapping[TopicPartition, int]) -> Collection[TopicPartition]:
        """Of which partitions what was polled is not to be handled, because they may have lost it: they are read again
        from where that is sure."""
        looked = await self._log_check.look(self._consumer.assignment(), polled=polled)
        if looked.lost:
            self._handled |= looked.lost
            await self._commit(looked.lost)
        return looked.put_aside

    def _was_answered(self) -> bool:
        """Whether Kafka answered a fetch since the last look. The times are only compared with each other."""
        before = self._fetched
        self._fetched = {tp: self._consumer.last_poll_timestamp(tp) for tp in self._consumer.assignment()}
        return self._fetched != before

    async def _wait_after(self, failure: Exception) -> None:
        reason, next_in_s = f"{type(failure).__name__}: {failure}".partition("\n")[0], self._pause.next_s()
        self._progress.failed(reason)
        self._log.warning("batch_given_again", reason=reason, next_in_s=next_in_s)
        await _wait_for(self._stop, next_in_s)

    async def _handle(self, batch: Mapping[TopicPartition, Sequence[Any]]) -> Exception | None:
        """Returns the error for which the batch has to be given again; the next poll then begins with it."""
        started = time.monotonic()
        topic = self._subscription.topic
        async with deadline(self._timing.batch_deadline_s, what=f"a batch of {topic}"):
            found = self._sort_out(batch)
            readable, letters = found.readable, found.letters
            try:
                if found.to_park and self._subscription.park is not None:
                    await self._subscription.park(found.to_park)
                if letters and self._subscription.before_dead_letters is not None:
                    await self._subscription.before_dead_letters(letters)
                rejected = (await self._subscription.process_batch(readable) if readable else None) or ()
            except Exception as error:
                if being_cancelled() or not self._subscription.again_after(error):
                    raise
                self._budget = DeadLetterBudget(self._subscription.dead_letter_limit)  # These would be counted again.
                for tp, records in batch.items():
                    self._consumer.seek(tp, records[0].offset)
                return error
            if rejected:
                self._budget.count(True for _ in rejected)
                letters.extend(rejection.dead_letter() for rejection in rejected)
            if letters:
                await self._dead_letter(letters)
        offsets = {tp: offset_after(records[-1]) for tp, records in batch.items()}
        self._log_check.handled({tp: (offsets[tp], records[-1].timestamp) for tp, records in batch.items()})
        await self._commit(offsets)
        self._handled |= offsets
        KAFKA_RECORDS.labels(topic, "processed").inc(len(readable) - len(rejected))
        KAFKA_RECORDS.labels(topic, "dead_lettered").inc(len(letters))
        KAFKA_RECORDS.labels(topic, "parked").inc(len(found.to_park))
        KAFKA_BATCH_RECORDS.labels(topic).observe(sum(map(len, batch.values())))
        KAFKA_BATCH_SECONDS.labels(topic).observe(time.monotonic() - started)
        self._pause.reset()
        self._progress.succeeded()
        return None

    def _sort_out(self, batch: Mapping[TopicPartition, Sequence[Any]]) -> Sorted[M]:
        found = sort_out(self._subscription.model, batch.values(), parks=self._subscription.park is not None)
        self._budget.count(found.counted)
        return found

    async def _dead_letter(self, letters: Sequence[DeadLetter]) -> None:
        await self._office.publish(letters, datetime.now(UTC))
        for letter in letters:
            self._log.warning(
                "record_dead_lettered",
                partition=letter.partition,
                offset=letter.offset,
                error_class=letter.error_class.value,
                reason=letter.reason,
            )

    async def _commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """A commit that is not taken is no error: the partitions are somebody else's now, or Kafka is away. The records
        will be read again, by us or by the other; or the next commit, which is higher, covers them."""
        try:
            async with asyncio.timeout(self._timing.commit_deadline_s):
                await self._consumer.commit({tp: (at, self._log_check.mark(tp)) for tp, at in offsets.items()})
        except (KafkaError, TimeoutError) as error:
            by_partition = {tp.partition: offset for tp, offset in offsets.items()}
            self._log.warning("offset_commit_failed", error=f"{type(error).__name__}: {error}", offsets=by_partition)
            return
        for tp, offset in offsets.items():
            end = self._consumer.highwater(tp)
            KAFKA_LAG.labels(tp.topic, tp.partition).set(max(0, end - offset) if end is not None else 0)


async def _wait_for(stop: asyncio.Event, timeout_s: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await stop.wait()
